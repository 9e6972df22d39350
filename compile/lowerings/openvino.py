"""The lowering to OpenVINO, which reads the ONNX model as it is."""

from __future__ import annotations

from vmp_edge.bundle.writing import Staging

from ..lowering import Exported, Lowered, Lowering
from ..target import Target
from .onnx import lowering as onnx

EXTRAS = "compile,openvino"  # the extras that install what this lowering imports


def lower(exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
    """Write ``model.onnx`` into a bundle.

    Args:
        exported: The model.
        staging: The bundle that is being made.
        target: The target, whose `scan` says how the scans are written.
        precision: One of the target's precisions.

    Raises:
        MissingDependencyError: onnx, onnxscript or openvino is not installed.
        UsageError: The program is quantised and the precision is not, or the other way round.
        BuildError: The model does not pass ONNX's checker.
    """
    onnx.require(("onnx", "onnxscript", "openvino"), EXTRAS)
    return onnx.write(exported, staging, target, precision, ("openvino",))


def check(target: Target, precision: str) -> None:
    """Check that onnx, onnxscript and openvino are installed.

    Raises:
        MissingDependencyError: One of them is missing.
    """
    onnx.require(("onnx", "onnxscript", "openvino"), EXTRAS)


LOWERING = Lowering(lower, check, stems=True)
