"""egomotion-nano: a model that names the camera's own motion, and everything needed to train it again.

``camera`` says what the labels mean, ``textures`` and ``clips`` draw the training data, ``symmetry`` multiplies it,
``train`` and ``evaluate`` are the two commands, ``footage`` is the protocol for real video, and ``sample`` draws the
demo's clip.
"""
