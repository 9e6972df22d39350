"""Train small models on labelled videos by cross-validation, to measure on real actions what quantising costs.

``geometry`` cuts videos to one size and length, ``dataset`` makes batches, ``train`` trains a model for each fold, and
``python -m vmp_edge.calibration.actions`` is the command. The models do not come with the package.
"""
