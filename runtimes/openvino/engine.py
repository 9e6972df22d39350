"""The OpenVINO engine: a bundle's ``model.onnx`` on an Intel CPU or another that OpenVINO knows, without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from vmp_edge.bundle import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.runtimes.folding import fold


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
        program = bundle.path / bundle.manifest.program
        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(program), "CPU", options)
        except Exception as error:  # RuntimeError, or what its ONNX reader raises
            raise BundleError(f"{program}: OpenVINO cannot load it ({' '.join(str(error).split())[:300]})") from error

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
            logits = [np.array(self._model(clip)[0], np.float32) for clip in fold(video, self._tubelet)]
        except Exception as error:
            raise VmpError(f"OpenVINO: {' '.join(str(error).split())[:300]}") from error
        return np.concatenate(logits)

    def close(self) -> None:
        """Free the model; `run` must not be called afterwards."""
        self.__dict__.pop("_model", None)
