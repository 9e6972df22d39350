"""The contract of a delegate, and the module of each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram

from vmp_edge.calibration.quantisation import Recipe

from ...target import Target

# The registry: the modules by the names that targets' YAML files use. Each has its record as `DELEGATE`.
MODULES = {
    "coreml": "vmp_edge.compile.lowerings.delegates.coreml",
    "ethosu": "vmp_edge.compile.lowerings.delegates.ethosu",
    "onnx-qnn": "vmp_edge.compile.lowerings.delegates.onnx_qnn",
    "qnn": "vmp_edge.compile.lowerings.delegates.qnn",
    "vgf": "vmp_edge.compile.lowerings.delegates.vgf",
    "vulkan": "vmp_edge.compile.lowerings.delegates.vulkan",
}

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Delegated:
    """The result of a delegate's compiler.

    Attributes:
        program: The content of the file that the engine reads.
        tools: The distributions that made the file.
        emulator: The name of the emulator that can run the program here; None where there is none.
        run: Runs the program under that emulator: frames (T / tubelet, tubelet * 3, H, W) -> logits (1, classes).
        check: Raises `MissingDependencyError` if something that `run` needs is not installed.
    """

    program: bytes
    tools: tuple[str, ...]
    emulator: str | None = None
    run: Callable[[Array], Array] | None = None
    check: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Delegate:
    """A delegate.

    Attributes:
        lower: Compiles a prepared program for a target in a precision.
        check: Raises `MissingDependencyError` if the delegate's toolchain is not installed.
        rewrite: Rewrites operations that the delegate cannot take, or computes badly; None if there are none.
        quantiser: Makes the delegate's PT2E ``Quantizer`` for a target with a recipe's ranges; None if the delegate has
            none.
        lower_calibrated: Quantises and compiles in one step, for a delegate without a `quantiser`: program, target,
            recipe, and clips (T / tubelet, tubelet * 3, H, W) to calibrate on.
    """

    lower: Callable[[ExportedProgram, Target, str], Delegated]
    check: Callable[[], object] = lambda: None
    rewrite: Callable[[ExportedProgram], ExportedProgram] | None = None
    quantiser: Callable[[Target, Recipe], Any] | None = None
    lower_calibrated: Callable[[ExportedProgram, Target, Recipe, Sequence[Array]], Delegated] | None = None


def find(target: Target) -> Delegate:
    """Return the delegate that a target's YAML names. Its toolchain is not imported yet."""
    assert target.delegate is not None
    delegate: Delegate = importlib.import_module(MODULES[target.delegate]).DELEGATE
    return delegate
