"""The OpenVINO engine: a bundle's ``model.onnx`` on an Intel CPU or another that OpenVINO knows, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from vmp_edge.bundle import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.runtimes.folding import embed_all, fold


class OpenVinoEngine:
    """Runs a bundle's ONNX model, its floats in float32.

    Args:
        bundle: a bundle whose engine is ``openvino``.
        threads: CPU threads; None leaves them to OpenVINO.

    Raises:
        BundleError: OpenVINO cannot load the model.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        # its own choice is bfloat16 on CPUs that have it, which costs 0.015 of a logit
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._model = _load(bundle.path / bundle.manifest.program, options)
        self._embedding = None if bundle.embedding is None else _load(bundle.embedding, options)

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
        return np.concatenate([_execute(self._model, one) for one in tokens])

    def close(self) -> None:
        """Free the model; `run` must not be called afterwards."""
        self.__dict__.pop("_model", None)
        self.__dict__.pop("_embedding", None)


def _load(path: Path, options: dict[str, Any]) -> Any:
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(path), "CPU", options)
    except Exception as error:  # RuntimeError, or what its ONNX reader raises
        raise BundleError(f"{path}: OpenVINO cannot load it ({' '.join(str(error).split())[:300]})") from error


def _execute(model: Any, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The one result of a model's one input."""
    try:
        return np.array(model(inputs)[0], np.float32)
    except Exception as error:
        raise VmpError(f"OpenVINO: {' '.join(str(error).split())[:300]}") from error
