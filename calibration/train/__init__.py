"""Train a model of the family on labelled clips.

* Settings: ``settings`` is what the user asks for, ``recipe`` all that decides the result, ``start`` the model at the
  beginning.
* Clips: ``survey`` looks at them (``inspection``, ``geometry``), ``split`` divides them, ``footage`` decodes them, and
  ``batches`` makes batches, which ``augment`` changes and ``mixing`` mixes.
* Learning: ``loop`` is the training loop with its checkpoint. ``objective`` computes its loss, ``optimiser`` says how
  fast each parameter learns, ``depth`` leaves out blocks, and ``parallel`` divides the work among processes.
  ``teacher`` is a trained model to learn from, and ``fold_teachers`` says which model learns from which.
* The last layer alone: ``head``.
* The flow of `vmp-edge train`: ``command``, then ``training``, which lets ``fit`` train each model and ``measuring``
  measure it; ``forecast`` foretells the time, and ``results`` writes and says what came out.
"""
