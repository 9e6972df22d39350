"""The ONNX Runtime engine: a bundle's ``model.onnx`` on the CPU, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from vmp_edge.bundle import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.runtimes.folding import embed_all, fold

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
        self._session = _session(bundle.path / bundle.manifest.program, options)
        self._embedding = None if bundle.embedding is None else _session(bundle.embedding, options)

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
        inputs = fold(video, self._tubelet) if self._embedding is None else embed_all(video, self._tubelet, self.embed)
        return self.run_tokens(inputs)

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `vmp_edge.engines.FrameEngine`."""
        (shares,) = _execute(self._embedding, frame[None])
        by_place: npt.NDArray[np.float32] = shares.reshape(len(shares), self._tubelet, -1)
        return by_place

    def run_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `vmp_edge.engines.FrameEngine`."""
        return np.concatenate([_execute(self._session, one) for one in tokens])

    def close(self) -> None:
        """Free the model; `run` must not be called afterwards."""
        self.__dict__.pop("_session", None)
        self.__dict__.pop("_embedding", None)


def _session(path: Path, options: Any) -> Any:
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise BundleError(f"{path}: ONNX Runtime cannot load it ({one_line(error)})") from error


def _execute(session: Any, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The one result of a model's one input."""
    try:
        result: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    except Exception as error:
        raise VmpError(f"ONNX Runtime: {one_line(error)}") from error
    return result.astype(np.float32, copy=False)


def one_line(error: Exception) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
