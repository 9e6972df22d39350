"""Delegates of ExecuTorch and ONNX Runtime: the whole model as one program of an NPU's or a GPU's compiler.

No kernel of ours can run inside a delegate, so the scan and the convolution are made of ordinary operations
(`vmp_edge.ops.chunked`), in the form that the target's YAML names.
"""

from __future__ import annotations

from .contract import MODULES, Array, Delegate, Delegated
from .lowering import EmulatedDelegate, check, lower, prepare, quantiser, shares_scans
from .whole import check_whole, lower_whole, quiet, require, shared_history

__all__ = [
    "MODULES",
    "Array",
    "Delegate",
    "Delegated",
    "EmulatedDelegate",
    "check",
    "check_whole",
    "lower",
    "lower_whole",
    "prepare",
    "quantiser",
    "quiet",
    "require",
    "shared_history",
    "shares_scans",
]
