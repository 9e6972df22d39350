"""Small models trained on labelled videos by cross-validation, to measure on real actions what quantising costs.

``geometry`` brings videos to one size and length, ``dataset`` makes batches, ``train`` trains a model for each fold;
``python -m vmp_edge.calibration.actions`` is the command. Nothing that it makes comes with the package.
"""
