"""Measure, quantise and train models on clips. This is the workstation's side and needs PyTorch.

* Clips: ``clipset`` lists videos with their labels, ``decoding`` turns them into clips.
* Measuring: ``measure`` runs models, ``evaluation`` has the results, ``report`` and ``plots`` show them.
* Quantising: ``quantisation`` quantises a program by a recipe of ``recipes``, with ranges chosen by ``observers``;
  ``finetuning`` trains weights for a recipe.
* Training: ``training`` has the loop, ``distillation`` the losses of a teacher; ``egomotion`` trains egomotion-nano,
  ``actions`` trains small models on labelled videos.
"""
