"""The engines that execute bundles: their contract, the record of each, and the one that a bundle asks for.

Every fact about an engine stands in its `EngineRecord`, in the engine's own folder: ``runtimes/NAME/__init__.py``. What
the engine imports is imported when a bundle asks for that engine, never before.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from .bundle.manifest import check_threads
from .bundle.reading import Bundle
from .errors import BundleError, MissingDependencyError, UsageError
from .installation import install_command
from .machine import missing_cpu_features


class Engine(Protocol):
    """Execute one bundle. An engine is not safe between threads: `Recognizer` lets one call in at a time."""

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Execute the model.

        Args:
            video: float32 (B, 3, T, S, S), normalised; any strides. The engine may read it in place, and does not
                keep it after returning.

        Returns:
            Logits, float32 (B, classes). If the bundle gives features, they follow the logits: (B, classes + C).
        """
        ...

    def close(self) -> None:
        """Release the engine's resources. The engine cannot run afterwards."""
        ...


class FrameEngine(Engine, Protocol):
    """Execute a bundle whose patch embedding is a program of its own. `run` executes both, one after the other."""

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embed one frame.

        Args:
            frame: float32 (3, S, S), normalised, C-contiguous.

        Returns:
            The frame's shares of the tokens before positions are added, float32 (P, N, C) in new memory, where N is
            the model's tubelet size. The tokens of a tubelet of N frames are the sum of the first frame's first share,
            the second frame's second share, and so on.
        """
        ...

    def run_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Execute the model behind its patch embedding.

        Args:
            tokens: float32 (B, T / N, P, C), C-contiguous, added up from the shares that `embed` gives.

        Returns:
            Logits, float32 (B, classes).
        """
        ...


class StepEngine(Engine, Protocol):
    """Execute a bundle of a causal model. `run` goes through whole videos step by step, each from its beginning."""

    def step(
        self, frames: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Execute one step of each stream of a batch.

        The states belong to the caller: the engine keeps none, so that one engine serves any number of streams.

        Args:
            frames: float32 (B, 3, N, S, S), normalised; any strides. N is the model's tubelet size.
            state: float32 (B, n), the states of the streams, one after the other as the manifest lists them: those of
                the step before, or zeros for a stream that starts. They are only read.

        Returns:
            Logits, float32 (B, classes), followed by the features if the bundle gives any, (B, classes + C); and the
            states after the step, float32 (B, n), in new memory.
        """
        ...


class EngineFactory(Protocol):
    """Make an engine for a bundle: usually the engine's class."""

    def __call__(self, bundle: Bundle, threads: int | None) -> Engine:
        """Load a bundle's program. With `threads` None the engine chooses the number of threads."""
        ...


@dataclass(frozen=True)
class EngineRecord:
    """All facts about an engine.

    Attributes:
        name: The engine's name, as bundles' manifests give it.
        factory: Where the `EngineFactory` is, ``module:attribute``.
        extra: The extra of this package that installs what the engine imports.
        lowering: The module with the `Lowering` to this engine; None if this package cannot build for the engine.
        precisions: The precisions that the lowering does. Which of them a target has is the target's to say.
        per_frame: Whether the engine can run the patch embedding as a program of its own (`FrameEngine`).
        steps: The precisions in which it runs the steps of causal models (`StepEngine`), on CPUs.
        tolerance: The largest difference of any logit from the source model's that a build in fp32 accepts; None takes
            the precision's.
        distribution: The package on PyPI that the engine comes in; None for an engine of the user's own.
        trial: Where a function is that computes something tiny with the engine, ``module:attribute``; None has nothing
            to try but the import of the factory.
    """

    name: str
    factory: str
    extra: str = "compile"
    lowering: str | None = None
    precisions: tuple[str, ...] = ()
    per_frame: bool = False
    steps: tuple[str, ...] = ()
    tolerance: float | None = None
    distribution: str | None = None
    trial: str | None = None

    def __post_init__(self) -> None:
        if not all(self.factory.partition(":")):
            raise UsageError(f"an engine's factory is `module:attribute`, not {self.factory!r}")


# The registry: the folders of ``runtimes/`` with an engine. Each has its record as `RECORD`.
ENGINES = ("executorch", "torch", "tvm", "onnxruntime", "openvino")

_registered: dict[str, EngineRecord] = {}  # the engines that `register` added


def register(name: str, factory: str, extra: str = "compile") -> None:
    """Add an engine of your own.

    Args:
        name: The engine's name, as bundles' manifests give it.
        factory: `module:attribute` of an `EngineFactory`; imported at first use.
        extra: The extra of this package that installs what the engine imports, for the message when that is missing.

    Raises:
        UsageError: The name is taken by another engine, or the factory is not `module:attribute`.
    """
    entry = EngineRecord(name, factory, extra)
    if name in ENGINES or _registered.setdefault(name, entry) != entry:
        raise UsageError(f"there is an engine {name!r} already")


def available() -> list[str]:
    """List the names of the engines that this version knows, installed or not."""
    return [*ENGINES, *_registered]


def record(name: str) -> EngineRecord:
    """Return the record of an engine.

    Raises:
        UsageError: There is no such engine.
    """
    if name in _registered:
        return _registered[name]
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}; known are {', '.join(available())}")
    entry: EngineRecord = importlib.import_module(f"vmp_edge.runtimes.{name}").RECORD
    return entry


def create(bundle: Bundle, threads: int | None = None) -> Engine:
    """Load a bundle into its engine.

    Args:
        bundle: An opened, thus checked, bundle.
        threads: Threads for the engine; None takes the manifest's number, or lets the engine choose.

    Raises:
        BundleError: The engine is unknown, or cannot load the program, or the program needs another CPU.
        MissingDependencyError: Something that the engine imports is not installed.
        UsageError: `threads` is not positive, or too large.
    """
    name = bundle.manifest.engine
    if name not in available():
        known = ", ".join(available())
        raise BundleError(f"{bundle.path} needs the engine {name!r}, which is unknown here (there are: {known})")
    if threads is None:
        threads = bundle.manifest.threads
    check_threads(threads)
    check_cpu(bundle)
    return _factory(record(name))(bundle, threads)


def check_cpu(bundle: Bundle) -> None:
    """Raise BundleError if this CPU lacks a feature that a bundle's program needs."""
    if missing := missing_cpu_features(bundle.manifest.cpu_features):
        raise BundleError(
            f"{bundle.path} needs a CPU with {', '.join(missing)}, which this one lacks: build a bundle for this "
            "machine's target"
        )


def _factory(engine: EngineRecord) -> EngineFactory:
    module_name, _, attribute = engine.factory.partition(":")
    try:
        module: Any = importlib.import_module(module_name)
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingDependencyError(
            f"the engine {engine.name!r} cannot be imported here ({missing}); run: {install_command(engine.extra)}"
        ) from error
    return cast(EngineFactory, getattr(module, attribute))
