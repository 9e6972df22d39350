"""Train a model of the family on labelled clips, or pre-train it on videos without labels.

* Settings: ``recipe``.
* Learning: ``loop`` is the training loop with its checkpoint. ``objective`` computes its loss, ``optimiser`` says how
  fast each parameter learns, ``depth`` leaves out blocks, and ``parallel`` divides the work among processes.
* Clips: ``batches`` makes batches of decoded clips, which ``augment`` changes and ``mixing`` mixes.
* The last layer alone: ``head``.
* Pre-training: ``pretrain`` is the flow of `vmp-edge pretrain`. ``alignment`` is what is learnt, from ``teachers``,
  one of which is ``efficientnet``. ``masks`` hides patches, and ``pieces`` decodes videos.
"""
