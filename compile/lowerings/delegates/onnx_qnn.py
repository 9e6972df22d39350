"""The delegate for Qualcomm's HTP by ONNX Runtime: its QNN provider compiles the ONNX model to one context binary."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram

from vmp_edge.calibration.quantisation import Recipe
from vmp_edge.errors import BuildError
from vmp_edge.ops.chunked import Form

from ...emulation.qnn import EMULATOR, open_session
from ...emulation.qnn import OnnxProgram as Program
from ...target import Target
from ..onnx import lowering as onnx
from . import Delegate, Delegated, quiet, require
from .htp import with_accurate_operations, with_bounded_exponents

__all__ = ["DELEGATE", "Program", "lower", "lower_calibrated", "open_session"]
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-qnn")


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Compile a program to an ONNX model of one node, which holds the context binary.

    Args:
        program: A program of ordinary operations.
        target: The target, with the SoC to compile for.
        precision: ``fp16``.

    Raises:
        MissingDependencyError: onnxruntime-qnn is not installed.
        BuildError: QNN cannot compile the model, or leaves something to the CPU.
    """
    _require()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(onnx.to_onnx(with_bounded_exponents(program), Form(**target.scan)).SerializeToString())
        return _compile(path, target)


def lower_calibrated(
    program: ExportedProgram, target: Target, recipe: Recipe, clips: Sequence[npt.NDArray[np.float32]]
) -> Delegated:
    """Compile a program in 16-bit activations and 8-bit weights by channel, quantised by ONNX Runtime.

    Args:
        program: A program of ordinary operations.
        target: The target, with the SoC to compile for.
        recipe: The recipe. Ranges are those of the clips times its headroom.
        clips: The frames (T / tubelet, tubelet * 3, H, W) of each clip to calibrate on.

    Raises:
        MissingDependencyError: onnxruntime-qnn is not installed.
        BuildError: QNN cannot compile the model, or leaves something to the CPU.
    """
    _require()
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    with tempfile.TemporaryDirectory() as folder:
        plain, path = Path(folder) / "plain.onnx", Path(folder) / "model.onnx"
        plain.write_bytes(onnx.to_onnx(program, Form(**target.scan)).SerializeToString())
        types = {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8, "weight_symmetric": True}
        with quiet():
            config = get_qnn_qdq_config(str(plain), _Clips(clips), per_channel=True, **types)
            ranges = _ranges(plain, config, recipe.headroom)
            quantize_static(plain, path, **vars(config), calibration_cache_path=ranges)
        return _compile(path, target)


def _ranges(model: Path, config: Any, headroom: float) -> Path:
    """Write the file of ranges for ONNX Runtime's quantiser: those of the clips, widened around zero."""
    from onnxruntime.quantization import TensorData, create_calibrator, save_tensors_data

    copy = model.with_name("calibrator.onnx")
    calibrator = create_calibrator(model, config.op_types_to_quantize, str(copy), config.calibrate_method)
    calibrator.collect_data(config.calibration_data_reader)
    ranges = calibrator.compute_data()
    for name, data in ranges.items():
        low, high = (bound * np.float32(headroom) for bound in data.range_value)
        ranges[name] = TensorData(lowest=low, highest=high)
    path = model.with_name("ranges.json")
    save_tensors_data(ranges, path)
    return path


class _Clips:
    """Clips as ONNX Runtime's ``CalibrationDataReader``."""

    def __init__(self, clips: Sequence[npt.NDArray[np.float32]]) -> None:
        self._clips = iter(clips)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        clip = next(self._clips, None)
        return None if clip is None else {onnx.NAMES[0][0]: clip}


def _require() -> None:
    require("qnn", "onnx", "onnxscript", "onnxruntime", "onnxruntime_qnn")


def _compile(path: Path, target: Target) -> Delegated:
    """Compile an ONNX file with QNN. More files are written into its folder."""
    from vmp_edge.runtimes.programs import one_line

    assert target.soc is not None
    soc, context = target.socs[target.soc], path.with_name("context.onnx")
    entries = {"ep.context_enable": "1", "ep.context_file_path": str(context), "ep.context_embed_mode": "1"}
    with quiet():
        try:
            open_session(str(path), soc, entries)
        except Exception as error:  # ONNX Runtime's exceptions have no base class of their own
            raise BuildError(f"QNN cannot compile the model: {one_line(error)}") from error
    content = context.read_bytes()
    check(content)
    return Delegated(content, TOOLS, EMULATOR, Program(content, soc).run)


def check(content: bytes) -> None:
    """Check that a compiled model is one context binary and nothing else.

    Raises:
        BuildError: The model has several parts, or other nodes.
    """
    import onnx as standard

    kinds = [node.op_type for node in standard.load_model_from_string(content).graph.node]
    if kinds != ["EPContext"]:
        leftovers = ", ".join(sorted(set(kinds) - {"EPContext"})) or "nothing"
        parts = kinds.count("EPContext")
        raise BuildError(f"QNN takes the model in {parts} parts and leaves {leftovers} beside; it should take it whole")


DELEGATE = Delegate(lower, _require, rewrite=with_accurate_operations, lower_calibrated=lower_calibrated)
