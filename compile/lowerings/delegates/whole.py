"""Helpers for every delegate: check its toolchain, silence its compiler, check that it took the model whole."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch.export import ExportedProgram

from vmp_edge.errors import BuildError, MissingDependencyError, VmpError
from vmp_edge.installation import install_command

GLUE = ("executorch_call_delegate", "getitem")


def require(extra: str, *names: str) -> None:
    """Import modules of a toolchain.

    Args:
        extra: The extra of this package that installs them.
        names: The modules.

    Raises:
        MissingDependencyError: A module is not installed; the text names the extra.
    """
    with quiet():
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise MissingDependencyError(
                    f"this target needs {error.name or name}; run: {install_command(f'compile,{extra}')}"
                ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars, warnings and log lines of the compilers; their exceptions pass."""
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
    """Let the nodes of a graph share the record of their history.

    PyTorch 2.13 copies the whole record for each node in each pass, and each pass adds to it. The time grows with the
    square of the number of passes, and Arm's compilers have more than a hundred.
    """
    from torch.fx.traceback import NodeSource

    NodeSource.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]


def lower_whole(program: ExportedProgram, partitioner: Any, name: str, edges: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Lower a program to one call of a delegate, with nothing beside it.

    Args:
        program: A program of ordinary operations.
        partitioner: The delegate's partitioner.
        name: The delegate's name, for people.
        edges: See `check_whole`.

    Returns:
        See `check_whole`.

    Raises:
        BuildError: The compiler failed, or left something to the CPU.
    """

    def lower() -> Any:
        from executorch.exir import to_edge_transform_and_lower

        return to_edge_transform_and_lower(program, partitioner=[partitioner])

    return check_whole(lower, name, edges)


def check_whole(lower: Callable[[], Any], name: str, edges: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Lower to a delegate, and check that it took everything in one part.

    Args:
        lower: Lowers, and returns ExecuTorch's ``EdgeProgramManager``.
        name: The delegate's name, for people.
        edges: Operators that may be left in front of and behind the delegate's part, by a part of their names.

    Returns:
        ExecuTorch's ``EdgeProgramManager``, and its one ``LoweredBackendModule``.

    Raises:
        BuildError: The compiler failed, or left something to the CPU.
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
