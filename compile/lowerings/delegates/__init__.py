"""NPUs and GPUs by delegates of ExecuTorch or ONNX Runtime: the whole model as one program of the device's compiler.

No kernel of ours can run inside of them, so the scan and the convolution are made of ordinary operations
(`vmp_edge.ops.chunked`), in the form that the target's YAML names.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram

from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import Staging
from vmp_edge.calibration import quantisation
from vmp_edge.calibration.quantisation import Recipe
from vmp_edge.errors import BuildError, MissingDependencyError, VmpError
from vmp_edge.ops.chunked import Form
from vmp_edge.runtimes.folding import fold

from ... import graph
from ...lowering import CALIBRATED, Lowered, Source
from ...target import Target

MODULES = {
    "coreml": "vmp_edge.compile.lowerings.delegates.coreml",
    "ethosu": "vmp_edge.compile.lowerings.delegates.ethosu",
    "onnx-qnn": "vmp_edge.compile.lowerings.delegates.onnx_qnn",
    "qnn": "vmp_edge.compile.lowerings.delegates.qnn",
    "vgf": "vmp_edge.compile.lowerings.delegates.vgf",
    "vulkan": "vmp_edge.compile.lowerings.delegates.vulkan",
}

Array = npt.NDArray[np.float32]
GLUE = ("executorch_call_delegate", "getitem")


@dataclass(frozen=True)
class Delegated:
    """What a delegate made.

    Attributes:
        program: the file that the engine reads.
        tools: the distributions that made it.
        emulator: the name of what runs the delegate's program here; None where nothing does.
        run: that: frames (T / tubelet, tubelet * 3, H, W) -> logits (1, classes).
        check: raises `MissingDependencyError` if something that `run` needs is not installed.
    """

    program: bytes
    tools: tuple[str, ...]
    emulator: str | None = None
    run: Callable[[Array], Array] | None = None
    check: Callable[[], object] = lambda: None


class Delegate(Protocol):
    """A module of this folder.

    It may have ``rewrite(program)``, for operations that it takes otherwise or not at all. If one of its precisions is
    `CALIBRATED`, it has ``quantiser(kind, recipe)``, PT2E's ``Quantizer`` for a program of ordinary operations, or
    ``lower_calibrated(program, kind, recipe, clips)``, which quantises by itself.
    """

    def lower(self, program: ExportedProgram, target: Target, precision: str) -> Delegated:
        """Lower a program of `ordinary` operations."""
        ...


def find(name: str | None) -> Delegate:
    """The module of a delegate that a target's YAML names."""
    assert name is not None
    return cast(Delegate, importlib.import_module(MODULES[name]))


def ordinary(program: ExportedProgram, target: Target, precision: str) -> ExportedProgram:
    """A program of `graph.export` in operations that a target's delegate takes, its scans in the form that it asks for.

    But in fp32, norms square only what sixteen bits can hold. Scans that the delegate shares stay as they are.
    """
    with quiet():
        program = program if precision == "fp32" else graph.with_bounded_norms(program)
        program = graph.with_linear_patches(program) if target.options.get("patches") == "linear" else program
        if shares_scans(program, target, precision):
            return program
        plain = graph.with_plain_operations(program, Form(**target.scan))
        rewrite = getattr(find(target.delegate), "rewrite", None)
        return plain if rewrite is None else cast(ExportedProgram, rewrite(plain))


def shares_scans(program: ExportedProgram, target: Target, precision: str) -> bool:
    """Whether a delegate compiles scans once for all layers: from as many tokens on as its ``shared_scans`` says.

    Scans that are quantised differ from layer to layer, as their ranges are compiled in.
    """
    least = target.options.get("shared_scans")
    if least is None or precision in CALIBRATED:
        return False
    return any(node.args[0].meta["val"].shape[1] >= least for node in graph.scans(program))


def quantiser(target: Target, recipe: Recipe) -> Any:
    """That of a target's delegate, with a recipe's ranges; None if it quantises by itself.

    Raises:
        MissingDependencyError: the delegate's toolchain is not installed.
    """
    module: Any = find(target.delegate)
    return module.quantiser(target, recipe) if hasattr(module, "quantiser") else None


def lower(source: Source, staging: Staging, target: Target, precision: str, file: str) -> Lowered:
    """Write what the target's delegate makes of a model into a bundle, as `file`.

    Raises:
        MissingDependencyError: the delegate's toolchain is not installed.
        BuildError: the delegate does not take the model whole.
    """
    module: Any = find(target.delegate)
    # a program that is quantised was prepared before
    plain = source.program if precision in CALIBRATED else ordinary(source.program, target, precision)
    if precision in CALIBRATED and hasattr(module, "lower_calibrated"):
        made = module.lower_calibrated(plain, target, quantisation.load(precision), source.clips)
    else:
        made = module.lower(plain, target, precision)
    staging.add(file, made.program)
    emulate = None if made.run is None else partial(Emulated, made)
    return Lowered(file, {name: importlib.metadata.version(name) for name in made.tools}, emulate=emulate)


class Emulated:
    """An engine on a machine that is not the target.

    Args:
        made: with a `run`.
        bundle: that it is in.

    Raises:
        MissingDependencyError: something that it needs is not installed.
    """

    def __init__(self, made: Delegated, bundle: Bundle) -> None:
        assert made.run is not None and made.emulator is not None
        made.check()
        self.emulator, self._run = made.emulator, made.run
        self._tubelet = int(bundle.manifest.model["tubelet_size"])

    def run(self, video: Array) -> Array:
        """Logits of a batch of clips: float32 (B, 3, T, H, W) -> (B, classes)."""
        return np.concatenate([self._run(clip) for clip in fold(video, self._tubelet)]).astype(np.float32, copy=False)

    def close(self) -> None:
        """Nothing is held."""


def require(extra: str, *names: str) -> None:
    """Import modules of a toolchain.

    Raises:
        MissingDependencyError: one is not installed; the text says which extra has it.
    """
    with quiet():
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise MissingDependencyError(
                    f"this target needs {error.name or name}; run: pip install 'vmp-edge[compile,{extra}]'"
                ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars, warnings and log lines of the compilers; what they raise is raised."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def shared_history() -> Iterator[None]:
    """Nodes share the record of what they were made from.

    PyTorch 2.13 copies it, all of it, for each node in each pass, and each pass adds to it: what that takes grows with
    the square of the number of passes, and Arm's compilers have more than a hundred.
    """
    from torch.fx.traceback import NodeSource

    NodeSource.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]


def lower_whole(program: ExportedProgram, partitioner: Any, name: str, edges: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """A program as one call of a delegate, with nothing beside it.

    Args:
        program: of ordinary operations.
        partitioner: the delegate's.
        name, edges: as of `check_whole`.

    Returns:
        As `check_whole`.

    Raises:
        BuildError: the compiler failed, or left something to the CPU.
    """

    def lower() -> Any:
        from executorch.exir import to_edge_transform_and_lower

        return to_edge_transform_and_lower(program, partitioner=[partitioner])

    return check_whole(lower, name, edges)


def check_whole(lower: Callable[[], Any], name: str, edges: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Lower to a delegate, and see that it took everything in one part.

    Args:
        lower: gives ExecuTorch's ``EdgeProgramManager``.
        name: of the delegate, for people.
        edges: operators that may be left before and behind it, by a part of their names.

    Returns:
        ExecuTorch's ``EdgeProgramManager``, and its one ``LoweredBackendModule``.

    Raises:
        BuildError: the compiler failed, or left something to the CPU.
    """
    from executorch.exir.lowered_backend_module import get_lowered_submodules

    try:
        with quiet(), shared_history():
            edge = lower()
    except VmpError:
        raise
    except Exception as error:  # each of these compilers raises what it likes
        raise BuildError(f"{name} cannot compile the model: {' '.join(str(error).split())[:300]}") from error
    module = edge.exported_program().graph_module
    called = (node.target for node in module.graph.nodes if node.op == "call_function")
    calls = [getattr(operator, "__name__", str(operator)) for operator in called]
    left = sorted({call for call in calls if call not in GLUE and not any(part in call for part in edges)})
    lowered = [each for _, each, _ in get_lowered_submodules(module)]
    if left or len(lowered) != 1:
        beside = f" and leaves {', '.join(left)} to the CPU" if left else ""
        raise BuildError(f"{name} takes the model in {len(lowered)} parts{beside}; it should take it whole")
    return edge, lowered[0]
