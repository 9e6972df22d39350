"""The ONNX Runtime engine: runs a bundle's ``model.onnx`` on the CPU, without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, VmpError
from vmp_edge.machine import default_threads, usable_core_count

from ..programs import ProgramEngine, one_line

ONLY_ERRORS = 3  # a log level of ONNX Runtime
# In bundles whose weights alone are int8, ONNX Runtime would round the activations, too; level 1 keeps them float32.
FLOAT_ACTIVATIONS = ("session.qdq_matmulnbits_accuracy_level", "1")
NO_SPINNING = ("session.intra_op.allow_spinning", "0")


class OnnxRuntimeEngine(ProgramEngine):
    """The engine of a bundle's ONNX model, which consists of standard operators alone.

    Args:
        bundle: A bundle whose engine is ``onnxruntime``.
        threads: Number of CPU threads inside an operator. None takes one for each core that this process may use.

    Raises:
        BundleError: ONNX Runtime cannot load the model.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        # The number is given even where it is the default: ONNX Runtime would count cores that this process may not
        # use, and would bind its threads to them.
        count = options.intra_op_num_threads = threads or min(default_threads(), usable_core_count())
        if count > default_threads():  # threads that spin would keep the others from a core
            options.add_session_config_entry(*NO_SPINNING)
        options.log_severity_level = ONLY_ERRORS
        options.add_session_config_entry(*FLOAT_ACTIVATIONS)
        embedding = bundle.manifest.embedding
        program = _Program(bundle, bundle.manifest.program, options)
        super().__init__(bundle, program, None if embedding is None else _Program(bundle, embedding, options))


class _Program:
    """An ONNX model."""

    def __init__(self, bundle: Bundle, name: str, options: Any) -> None:
        with bundle.take(name) as file:
            try:
                # By the path of the descriptor, a model cannot name weights in other files of the folder.
                self._session: Any = onnxruntime.InferenceSession(
                    file.path, options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # ONNX Runtime's exceptions have no common base class
                reason = one_line(error).replace(file.path, name)
                raise BundleError(f"{bundle.path / name}: ONNX Runtime cannot load it ({reason})") from error
        self._names = [given.name for given in self._session.get_inputs()]

    def run(self, *inputs: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        try:
            results = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        except Exception as error:
            raise VmpError(f"ONNX Runtime: {one_line(error)}") from error
        return [result.astype(np.float32, copy=False) for result in results]

    def close(self) -> None:
        self._session = None
