"""Qualcomm's HTP by ONNX Runtime's QNN provider: the whole ONNX model as one context binary for a SoC."""

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

from ...target import Soc, Target
from ..onnx import lowering as onnx
from . import Delegate, Delegated, quiet, require
from .htp import well_computed, with_bounded_exponents

PROVIDER = "QNNExecutionProvider"
EMULATOR = "Qualcomm's x86 emulator of the HTP"
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-qnn")
ONLY_FATAL = 4  # of ONNX Runtime's log levels; what it raises says the same


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """An ONNX model of one node, which holds the context binary.

    Args:
        program: of ordinary operations.
        target: the target, with the SoC to compile for.
        precision: fp16.

    Raises:
        MissingDependencyError: onnxruntime-qnn is not installed.
        BuildError: it cannot compile the model, or leaves something to the CPU.
    """
    _require()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(onnx.to_onnx(with_bounded_exponents(program), Form(**target.scan)).SerializeToString())
        return _compile(path, target)


def lower_calibrated(
    program: ExportedProgram, target: Target, recipe: Recipe, clips: Sequence[npt.NDArray[np.float32]]
) -> Delegated:
    """As `lower`, in 16-bit activations and 8-bit weights by channel; ranges are all that the clips show, and more.

    Args:
        program: of ordinary operations.
        target: the target, with the SoC to compile for.
        recipe: whose headroom the ranges get.
        clips: frames (T / tubelet, tubelet * 3, H, W) each.

    Raises:
        MissingDependencyError, BuildError: as `lower`.
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
    """A file with what the clips show, widened around zero, as ONNX Runtime's quantiser reads it."""
    from onnxruntime.quantization import TensorData, create_calibrator, save_tensors_data

    beside = model.with_name("calibrator.onnx")
    calibrator = create_calibrator(model, config.op_types_to_quantize, str(beside), config.calibrate_method)
    calibrator.collect_data(config.calibration_data_reader)
    found = calibrator.compute_data()
    for name, seen in found.items():
        low, high = (bound * np.float32(headroom) for bound in seen.range_value)
        found[name] = TensorData(lowest=low, highest=high)
    path = model.with_name("ranges.json")
    save_tensors_data(found, path)
    return path


class _Clips:
    """ONNX Runtime's ``CalibrationDataReader``."""

    def __init__(self, clips: Sequence[npt.NDArray[np.float32]]) -> None:
        self._clips = iter(clips)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        clip = next(self._clips, None)
        return None if clip is None else {onnx.NAMES[0][0]: clip}


def _require() -> None:
    require("qnn", "onnx", "onnxscript", "onnxruntime", "onnxruntime_qnn")


def _compile(path: Path, target: Target) -> Delegated:
    """What QNN makes of an ONNX file; more files are written beside it."""
    from vmp_edge.runtimes.programs import one_line

    assert target.soc is not None
    soc, context = target.socs[target.soc], path.with_name("context.onnx")
    wanted = {"ep.context_enable": "1", "ep.context_file_path": str(context), "ep.context_embed_mode": "1"}
    with quiet():
        try:
            open_session(str(path), soc, wanted)
        except Exception as error:  # its exceptions have no base class of their own
            raise BuildError(f"QNN cannot compile the model: {one_line(error)}") from error
    content = context.read_bytes()
    check(content)
    return Delegated(content, TOOLS, EMULATOR, Program(content, soc).run)


def open_session(model: str | bytes, soc: Soc, entries: dict[str, str] | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the HTP of a SoC, emulated here, without the CPU.

    Args:
        model: a file, or what is in it.
        soc: the SoC.
        entries: of the session's configuration.
    """
    import onnxruntime
    import onnxruntime_qnn

    if not _devices():
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ONLY_FATAL
    for key, value in {"session.disable_cpu_ep_fallback": "1", **(entries or {})}.items():
        options.add_session_config_entry(key, value)
    choice = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "soc_model": str(soc.model),
        "htp_arch": str(soc.htp),
        "enable_htp_fp16_precision": "1",
    }
    options.add_provider_for_devices(_devices()[:1], choice)
    return onnxruntime.InferenceSession(model, options)


def _devices() -> list[Any]:
    import onnxruntime

    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]


def check(content: bytes) -> None:
    """Whether a compiled model is one context binary and nothing else.

    Raises:
        BuildError: it is not.
    """
    import onnx as standard

    kinds = [node.op_type for node in standard.load_model_from_string(content).graph.node]
    if kinds != ["EPContext"]:
        others = ", ".join(sorted(set(kinds) - {"EPContext"})) or "nothing"
        parts = kinds.count("EPContext")
        raise BuildError(f"QNN takes the model in {parts} parts and leaves {others} beside; it should take it whole")


class Program:
    """A compiled model under the emulator.

    Args:
        content: of the file.
        soc: that it is for.
    """

    def __init__(self, content: bytes, soc: Soc) -> None:
        self.content, self.soc = content, soc
        self._session: Any = None

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Frames (T / tubelet, tubelet * 3, H, W) -> logits (1, classes)."""
        if self._session is None:
            self._session = open_session(self.content, self.soc)
        logits: npt.NDArray[np.float32] = self._session.run(None, {onnx.NAMES[0][0]: frames})[0]
        return logits


DELEGATE = Delegate(lower, _require, rewrite=well_computed, lower_calibrated=lower_calibrated)
