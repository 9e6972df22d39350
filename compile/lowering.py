"""The contract of a lowering: its input, its result, and the module that has the one for an engine.

A lowering is the part of a build that is an engine's own: from an exported program to the file that the engine
executes. Each engine's record names the module that has it as `LOWERING`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from vmp_edge import engines
from vmp_edge.engines import Engine
from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.installation import install_command

from .target import Target

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from vmp_edge.bundle.reading import Bundle
    from vmp_edge.bundle.writing import Staging
    from vmp_edge.models import ModelOptions, VideoMamba


@dataclass(frozen=True)
class Prepared:
    """A program that is ready for a target's delegate.

    Its scans were replaced by ordinary operations, or kept because the delegate compiles one scan for all layers.

    Attributes:
        program: The program, from frames (T / tubelet, tubelet * 3, H, W) to logits (1, classes).
    """

    program: ExportedProgram


@dataclass(frozen=True)
class Exported:
    """The input of a lowering: a source model and its program.

    Attributes:
        model: The source model.
        program: The model's inference form from `graph.export`, quantised if the precision is, and without the patch
            embedding if that is a program of its own. `Prepared` if it was already made ready for a delegate.
        embedding: The patch embedding of one frame, from `graph.split`; None where `program` includes it.
        clips: The clips on which a delegate calibrates that quantises while it lowers, float32 (T / tubelet,
            tubelet * 3, H, W) each.
    """

    model: VideoMamba
    program: ExportedProgram | Prepared
    embedding: ExportedProgram | None = None
    clips: Sequence[npt.NDArray[np.float32]] = ()

    @property
    def unprepared(self) -> ExportedProgram:
        """The program of an engine without a delegate: nothing has prepared it."""
        assert not isinstance(self.program, Prepared)
        return self.program


@dataclass(frozen=True)
class Lowered:
    """The result of a lowering: the files that it wrote into the bundle, and their needs.

    Attributes:
        program: The name of the file that the engine executes.
        tools: Name and version of each tool that made the file.
        cpu_features: CPU features that the program needs beyond the architecture, as the manifest names them.
        libraries: Libraries that the program needs on the device, as the manifest names them.
        gpu: What the program needs of a GPU, as the manifest has it.
        emulate: Makes an engine that runs the bundle on a machine that is not its target; None if nothing can.
        embedding: The name of the file with the patch embedding, if it is a program of its own.
    """

    program: str
    tools: dict[str, str]
    cpu_features: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    gpu: dict[str, Any] = field(default_factory=dict)
    emulate: Callable[[Bundle], EmulatedEngine] | None = None
    embedding: str | None = None


class EmulatedEngine(Engine, Protocol):
    """An engine that runs under an emulator.

    Attributes:
        emulator: The emulator's name, for people.
    """

    emulator: str


class Lower(Protocol):
    """The function that lowers: it adds the program, and all that the program needs on the device, to a bundle."""

    def __call__(self, exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
        """Lower a model for a target in a precision into the bundle in `staging`."""
        ...


@dataclass(frozen=True)
class Lowering:
    """An engine's lowering.

    Attributes:
        lower: Lowers a program.
        check: Raises `MissingDependencyError` if a library or a compiler is missing that `lower` will need for a target
            in a precision, with all that is missing in its text. A build calls it before anything is loaded.
        tune: Times variants of a program's kernels on this machine and keeps the best for later builds; None if the
            engine has nothing to tune.
        check_tuning: Raises a `VmpError` if the tuning log of a target cannot be read or, if the second argument is
            true, if this machine cannot tune for the target.
        stems: Whether it lowers models with an image network as their stem, for targets without a delegate.
    """

    lower: Lower
    check: Callable[[Target, str], None] = lambda target, precision: None
    tune: Callable[[ExportedProgram, Target], None] | None = None
    check_tuning: Callable[[Target, bool], None] = lambda target, tune: None
    stems: bool = False


def find(engine: str) -> Lowering:
    """Return the lowering to an engine.

    Raises:
        UsageError: There is no such engine, or this package cannot build for it.
        MissingDependencyError: A library that the lowering imports is not installed.
    """
    record = engines.record(engine)
    if record.lowering is None:
        raise UsageError(f"nothing lowers to the engine {engine!r}: bundles for it are built elsewhere")
    try:
        module = importlib.import_module(record.lowering)
    except ImportError as error:
        if (error.name or "").startswith("vmp_edge"):
            raise  # a fault of this package, not a missing library
        extras = ",".join(dict.fromkeys(("compile", record.extra)))
        raise MissingDependencyError(
            f"lowering to {engine} needs {error.name or error}; run: {install_command(extras)}"
        ) from error
    lowering: Lowering = module.LOWERING
    return lowering


def check_stem(options: ModelOptions, name: str, target: Target, engine: str) -> None:
    """Check that an engine takes a model on a target, if the model has an image network as its stem.

    Args:
        options: The model's.
        name: The model, for the message.
        target: The target.
        engine: One of the target's engines.

    Raises:
        UsageError: It does not.
        MissingDependencyError: A library that the lowering imports is not installed.
    """
    if options.stem == "none" or (target.delegate is None and find(engine).stems):
        return
    others = [one for one in target.engines if one != engine and find(one).stems]
    advice = "choose the target of a CPU, such as host or onnx"
    if target.delegate is None and others:
        advice = f"choose --engine {' or '.join(others)}"
    raise UsageError(
        f"{name} has an image network as its stem, which the engine {engine} does not take for {target.name}: {advice}"
    )
