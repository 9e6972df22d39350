"""The graph that every lowering starts from: the source model rewritten for inference and exported by `torch.export`.

`inference` has the model's form for inference and `stepping` that of a causal model's step, `tracing` exports them,
`passes` and `float16` rewrite the exported program for backends that need another form, and `pt2e` reads what is
quantised in it.
"""

from __future__ import annotations

from .float16 import in_float16
from .inference import Direction, InferenceBlock, InferenceModel, Linear, Normalise, fold_frames
from .passes import scans, with_bounded_norms, with_linear_patches, with_plain_operations
from .stepping import StepModel
from .tracing import export, split

__all__ = [
    "Direction",
    "InferenceBlock",
    "InferenceModel",
    "Linear",
    "Normalise",
    "StepModel",
    "export",
    "fold_frames",
    "in_float16",
    "scans",
    "split",
    "with_bounded_norms",
    "with_linear_patches",
    "with_plain_operations",
]
