"""Measure, quantise and train models on clips. This is the workstation's side and needs PyTorch.

* Clips: ``clipset`` lists videos with their labels, ``decoding`` turns them into clips.
* Measuring: ``measure`` runs models, ``timing`` times them in turns, ``evaluation`` has the results, ``report`` shows
  them (``charts`` selects what, ``circumstances`` says how they came about), and ``plots`` draws pictures of them.
* Quantising: ``quantisation`` quantises a program by a recipe of ``recipes``, with ranges chosen by ``observers``;
  ``finetuning`` trains weights for a recipe.
* Training: ``train`` has the loop, ``distillation`` the losses of a teacher; ``egomotion`` trains egomotion-nano,
  ``actions`` trains small models on labelled videos.
"""
