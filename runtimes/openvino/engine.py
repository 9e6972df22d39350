"""The OpenVINO engine: runs a bundle's ``model.onnx`` on a CPU that OpenVINO supports, without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.machine import cpu_count, default_threads

from ..programs import ProgramEngine, one_line


class OpenVinoEngine(ProgramEngine):
    """The engine of a bundle's ONNX model by OpenVINO, with floating point arithmetic in float32.

    Args:
        bundle: A bundle whose engine is ``openvino``.
        threads: Number of CPU threads. None leaves the number to OpenVINO, unless this process may use less than the
            machine has: then it is `default_threads`.

    Raises:
        BundleError: OpenVINO cannot load the model.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        # OpenVINO would choose bfloat16 on CPUs that have it, which moves logits by 0.015.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is None and default_threads() < cpu_count():
            threads = default_threads()
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        embedding = bundle.manifest.embedding
        program = _Program(bundle, bundle.manifest.program, options)
        super().__init__(bundle, program, None if embedding is None else _Program(bundle, embedding, options))


class _Program:
    """A compiled model."""

    def __init__(self, bundle: Bundle, name: str, options: dict[str, Any]) -> None:
        with bundle.take(name) as file:
            try:
                core = openvino.Core()
                # By the path of the descriptor, a model cannot name weights in other files of the folder.
                self._model: Any = core.compile_model(core.read_model(file.path), "CPU", options)
            except Exception as error:  # RuntimeError, or an error of its ONNX reader
                reason = one_line(error).replace(file.path, name)
                raise BundleError(f"{bundle.path / name}: OpenVINO cannot load it ({reason})") from error

    def run(self, *inputs: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        try:
            return [np.array(result, np.float32) for result in self._model(list(inputs)).to_tuple()]
        except Exception as error:
            raise VmpError(f"OpenVINO: {one_line(error)}") from error

    def close(self) -> None:
        self._model = None
