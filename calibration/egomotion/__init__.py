"""egomotion-nano, a model that names the camera's own motion, and everything that is needed to train it again.

``camera`` defines the labels, ``textures`` and ``clips`` draw the training data, ``symmetry`` multiplies it,
``initialise`` sets the first weights, ``train`` and ``evaluate`` are the two commands, ``footage`` is the test on real
video, and ``sample`` draws the demo's clip.
"""
