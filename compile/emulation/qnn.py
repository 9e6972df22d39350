"""Run programs for Qualcomm's HTP under Qualcomm's x86 emulator, by ExecuTorch or by ONNX Runtime's QNN provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..lowerings.onnx.lowering import NAMES
from ..target import Soc

EMULATOR = "Qualcomm's x86 emulator of the HTP"
PROVIDER = "QNNExecutionProvider"
ONLY_FATAL = 4  # one of ONNX Runtime's log levels; the exceptions that it raises say what its errors say


class ExecuTorchProgram:
    """A ``.pte`` file under the emulator, which must be loaded (`delegates.qnn.load_toolchain`).

    Args:
        content: The content of the file.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._method: Any = None

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits (1, classes) of frames (T / tubelet, tubelet * 3, H, W)."""
        import torch

        if self._method is None:
            from executorch.runtime import Runtime

            self._method = Runtime.get().load_program(self.content).load_method("forward")
        (logits,) = self._method.execute([torch.from_numpy(np.ascontiguousarray(frames))])
        return np.array(logits, np.float32)


class OnnxProgram:
    """A compiled ONNX model under the emulator.

    Args:
        content: The content of the ONNX file.
        soc: The SoC that the model was compiled for.
    """

    def __init__(self, content: bytes, soc: Soc) -> None:
        self.content, self.soc = content, soc
        self._session: Any = None

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits (1, classes) of frames (T / tubelet, tubelet * 3, H, W)."""
        if self._session is None:
            self._session = open_session(self.content, self.soc)
        logits: npt.NDArray[np.float32] = self._session.run(None, {NAMES[0][0]: frames})[0]
        return logits


def open_session(model: str | bytes, soc: Soc, entries: dict[str, str] | None = None) -> Any:
    """Open an `onnxruntime.InferenceSession` on a SoC's HTP, which is emulated here, without falling back to the CPU.

    Args:
        model: The path of an ONNX file, or its content. A model that is not compiled yet is compiled now.
        soc: The SoC.
        entries: Further entries of the session's configuration.
    """
    import onnxruntime
    import onnxruntime_qnn

    if not _devices():
        onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ONLY_FATAL
    for key, value in {"session.disable_cpu_ep_fallback": "1", **(entries or {})}.items():
        options.add_session_config_entry(key, value)
    provider_options = {
        "backend_path": onnxruntime_qnn.get_qnn_htp_path(),
        "soc_model": str(soc.model),
        "htp_arch": str(soc.htp),
        "enable_htp_fp16_precision": "1",
    }
    options.add_provider_for_devices(_devices()[:1], provider_options)
    return onnxruntime.InferenceSession(model, options)


def _devices() -> list[Any]:
    """Return ONNX Runtime's devices of the QNN provider."""
    import onnxruntime

    return [device for device in onnxruntime.get_ep_devices() if device.ep_name == PROVIDER]
