"""The ONNX Runtime engine: a bundle's ``model.onnx`` on the CPU, without PyTorch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnxruntime

from vmp_edge.bundle import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.runtimes.folding import fold

ONLY_ERRORS = 3  # of ONNX Runtime's log levels
# Where only weights are int8, it would round activations, too.
FLOAT_ACTIVATIONS = ("session.qdq_matmulnbits_accuracy_level", "1")


class OnnxRuntimeEngine:
    """Runs a bundle's ONNX model, made of standard operators alone.

    Args:
        bundle: a bundle whose engine is ``onnxruntime``.
        threads: CPU threads inside an operator; None leaves them to ONNX Runtime, which takes all cores.

    Raises:
        BundleError: ONNX Runtime cannot load the model.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = ONLY_ERRORS
        options.add_session_config_entry(*FLOAT_ACTIVATIONS)
        program = bundle.path / bundle.manifest.program
        try:
            self._session = onnxruntime.InferenceSession(str(program), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no base class of their own
            raise BundleError(f"{program}: ONNX Runtime cannot load it ({one_line(error)})") from error
        self._input = self._session.get_inputs()[0].name

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of a batch of clips.

        Args:
            video: float32 (B, 3, T, H, W), normalised. Frames that lie frame by frame in memory, as the frame ring
                writes them, are read in place.

        Returns:
            float32 (B, classes).

        Raises:
            VmpError: the model failed.
        """
        try:
            logits = [self._session.run(None, {self._input: clip})[0] for clip in fold(video, self._tubelet)]
        except Exception as error:
            raise VmpError(f"ONNX Runtime: {one_line(error)}") from error
        return np.concatenate(logits).astype(np.float32, copy=False)

    def close(self) -> None:
        """Free the model; `run` must not be called afterwards."""
        self.__dict__.pop("_session", None)


def one_line(error: Exception) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
