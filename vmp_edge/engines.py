"""Which engine executes a bundle. An engine's module is imported when a bundle asks for it, never before."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from .bundle.reading import Bundle
from .errors import BundleError, MissingDependencyError, UsageError


class Engine(Protocol):
    """Executes one bundle. Not for use from two threads at once: `Recognizer` sees to that."""

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Executes the model.

        Args:
            video: float32 (B, 3, T, S, S), normalised; any strides. The engine may read it in place, and does not
                keep it after returning.

        Returns:
            Logits, float32 (B, classes), or, of a bundle with features, (B, classes + C): the features follow.
        """
        ...

    def close(self) -> None:
        """Releases what the engine holds; it may not be run afterwards."""
        ...


class FrameEngine(Engine, Protocol):
    """Executes a bundle whose embedding is a program of its own; `run` does one after the other."""

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embeds one frame.

        Args:
            frame: float32 (3, S, S), normalised, C-contiguous.

        Returns:
            Its shares of the tokens before positions are added, float32 (P, N, C), N the model's tubelet size: the
            tokens of N frames are the sum of the first one's first share, the second one's second, ... New memory.
        """
        ...

    def run_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Executes the rest of the model.

        Args:
            tokens: float32 (B, T / N, P, C), C-contiguous, of `embed`.

        Returns:
            Logits, float32 (B, classes).
        """
        ...


class EngineFactory(Protocol):
    """What a registered name leads to: usually the engine's class."""

    def __call__(self, bundle: Bundle, threads: int | None) -> Engine:
        """Loads a bundle's program; `threads` None leaves the number to the engine."""
        ...


@dataclass(frozen=True)
class EngineEntry:
    """Where an engine is, `module:attribute`, and which extra brings it."""

    factory: str
    extra: str


_ENGINES: dict[str, EngineEntry] = {
    "executorch": EngineEntry("vmp_edge.runtimes.executorch.engine:ExecuTorchEngine", "compile"),
    "torch": EngineEntry("vmp_edge.runtimes.torch.engine:TorchEngine", "compile"),
    "tvm": EngineEntry("vmp_edge.runtimes.tvm.engine:TvmEngine", "tvm"),
    "onnxruntime": EngineEntry("vmp_edge.runtimes.onnxruntime.engine:OnnxRuntimeEngine", "onnxruntime"),
    "openvino": EngineEntry("vmp_edge.runtimes.openvino.engine:OpenVinoEngine", "openvino"),
}


def register(name: str, factory: str, extra: str = "compile") -> None:
    """Adds an engine of your own.

    Args:
        name: As bundles' manifests give it.
        factory: `module:attribute` of an `EngineFactory`; imported at first use.
        extra: Which extra of this package brings what it imports, for the message when that is missing.

    Raises:
        UsageError: The name is taken by another engine, or the factory is not `module:attribute`.
    """
    entry = EngineEntry(factory, extra)
    if not all(factory.partition(":")):
        raise UsageError(f"an engine's factory is `module:attribute`, not {factory!r}")
    if _ENGINES.setdefault(name, entry) != entry:
        raise UsageError(f"there is an engine {name!r} already")


def available() -> list[str]:
    """The names of the engines that this version has (whether or not what they need is installed)."""
    return list(_ENGINES)


def create(bundle: Bundle, threads: int | None = None) -> Engine:
    """Loads a bundle into its engine.

    Args:
        bundle: An opened, thus checked, bundle.
        threads: For the engine; None takes the manifest's, or leaves it to the engine.

    Raises:
        BundleError: The engine is unknown, or cannot load the program.
        MissingDependencyError: What the engine imports is not installed.
        UsageError: `threads` is not positive.
    """
    name = bundle.manifest.engine
    entry = _ENGINES.get(name)
    known = ", ".join(available())
    if entry is None:
        raise BundleError(f"{bundle.path} needs the engine {name!r}, which is unknown here (there are: {known})")
    if threads is None:
        threads = bundle.manifest.threads
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    return _factory(name, entry)(bundle, threads)


def _factory(name: str, entry: EngineEntry) -> EngineFactory:
    module_name, _, attribute = entry.factory.partition(":")
    try:
        module: Any = importlib.import_module(module_name)
    except ImportError as error:
        missing = error.name or str(error)
        raise MissingDependencyError(
            f"the engine {name!r} cannot be imported here ({missing}): pip install 'vmp-edge[{entry.extra}]'"
        ) from error
    return cast(EngineFactory, getattr(module, attribute))
