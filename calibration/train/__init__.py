"""Train a model of the family on labelled clips.

* Settings: ``recipe``.
* Learning: ``loop`` is the training loop with its checkpoint. ``objective`` computes its loss, ``optimiser`` says how
  fast each parameter learns, ``depth`` leaves out blocks, and ``parallel`` divides the work among processes.
* Clips: ``batches`` makes batches of decoded clips, which ``augment`` changes and ``mixing`` mixes.
"""
