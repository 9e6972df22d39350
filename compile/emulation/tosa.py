"""Run the TOSA program that Vela compiles for Ethos-U, with Arm's reference model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vmp_edge.errors import BuildError

from ..lowerings.delegates import Array

EMULATOR = "Arm's TOSA reference model"


@dataclass(frozen=True)
class Edge:
    """The quantisation of the NPU's input or output by the CPU: q = clip(round(x / scale), least, most), int16.

    Attributes:
        scale: The scale of all numbers.
        least, most: The least and the largest q.
        shape: The shape of the tensor.
    """

    scale: float
    least: int
    most: int
    shape: tuple[int, ...]


class Tosa:
    """A TOSA program in whole numbers, as Vela took it.

    Args:
        program: The program as a flatbuffer.
        source: The quantisation of the program's input.
        result: The quantisation of the program's output.
    """

    def __init__(self, program: bytes, source: Edge, result: Edge) -> None:
        self.program, self.source, self.result = program, source, result

    def run(self, frames: Array) -> Array:
        """Return the output for an input, both float32.

        Raises:
            BuildError: The reference model finds something in the program that TOSA does not allow.
        """
        import tosa_reference_model

        source, result = self.source, self.result
        quantised = np.clip(np.round(frames / np.float32(source.scale)), source.least, source.most).astype(np.int16)
        outputs, status = tosa_reference_model.run(
            self.program, [quantised], verbosity="NONE", initialize_variable_tensor_from_numpy=True
        )
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            raise BuildError(f"{EMULATOR} does not take the program: {status}")
        values = np.asarray(outputs[0]).reshape(result.shape)
        output: Array = values.astype(np.float32) * np.float32(result.scale)
        return output
