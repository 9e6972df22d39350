"""Train a model of the family on labelled clips.

``recipe`` has all settings, ``loop`` the training loop with its checkpoint.
"""
