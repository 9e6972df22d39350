"""What a lowering is, and which module has the one for an engine."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from vmp_edge.engines import Engine
from vmp_edge.errors import UsageError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from vmp_edge.bundle.reading import Bundle
    from vmp_edge.bundle.writing import Staging
    from vmp_edge.models import VideoMamba

    from .target import Target

MODULES = {
    "executorch": "vmp_edge.compile.lowerings.executorch",
    "onnxruntime": "vmp_edge.compile.lowerings.onnx.lowering",
    "openvino": "vmp_edge.compile.lowerings.openvino",
    "torch": "vmp_edge.compile.lowerings.torch",
    "tvm": "vmp_edge.compile.lowerings.tvm.lowering",
}
# With recipes of the same names in calibration/recipes; the latter by a delegate's own quantiser, of a program in
# ordinary operations: int16 activations, int8 weights.
QUANTISED = ("int8", "int8-dynamic", "int8-weight-only")
CALIBRATED = ("16a8w",)
PER_FRAME = ("executorch", "onnxruntime", "openvino", "tvm")  # engines that run an embedding apart from the rest
PRECISIONS = {  # that a lowering does; a target's are its own
    "executorch": ("fp32", "fp16", *QUANTISED, *CALIBRATED),
    "onnxruntime": ("fp32", "fp16", *QUANTISED, *CALIBRATED),
    "openvino": ("fp32", *QUANTISED),
    "torch": ("fp32",),
    "tvm": ("fp32", "fp16", *QUANTISED),
}


@dataclass(frozen=True)
class Source:
    """What is lowered.

    Attributes:
        model: the source model.
        program: its inference form by `graph.export`, quantised if the precision is; without the patch embedding where
            that is apart.
        embedding: the patch embedding of one frame, by `graph.split`; None where the program has it.
        clips: what a precision is calibrated on that a delegate quantises to by itself, as the program takes them.
    """

    model: VideoMamba
    program: ExportedProgram
    embedding: ExportedProgram | None = None
    clips: Sequence[npt.NDArray[np.float32]] = ()


@dataclass(frozen=True)
class Lowered:
    """What a lowering made.

    Attributes:
        program: the file in the bundle that the engine executes.
        tools: name and version of what made it.
        cpu_features: what it needs of a CPU beyond the architecture, as the manifest has it.
        libraries, gpu: what it needs of the device, as the manifest has it.
        emulate: what runs the bundle on a machine that is not its target; None where nothing does.
        embedding: the file with the source's embedding, if it has one.
    """

    program: str
    tools: dict[str, str]
    cpu_features: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    gpu: dict[str, Any] = field(default_factory=dict)
    emulate: Callable[[Bundle], EmulatedEngine] | None = None
    embedding: str | None = None


class EmulatedEngine(Engine, Protocol):
    """An engine with the name of what it runs under."""

    emulator: str


class Lower(Protocol):
    """A lowering: adds the program, and all that it needs on the device, to a bundle."""

    def __call__(self, source: Source, staging: Staging, target: Target, precision: str) -> Lowered:
        """Lower `source` for the target `target` in a precision into `staging`."""
        ...


def find(engine: str) -> Lower:
    """The lowering for an engine.

    Raises:
        UsageError: there is none.
        MissingDependencyError: what it imports is not installed.
    """
    if engine not in MODULES:
        raise UsageError(f"nothing lowers to the engine {engine!r}; known are {', '.join(MODULES)}")
    return cast(Lower, importlib.import_module(MODULES[engine]).lower)
