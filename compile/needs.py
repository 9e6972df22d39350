"""What a build needs of this machine: checked before the first long step, and named together."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.installation import install_command

COMPILERS = ("c++", "g++", "clang++")
LIBRARY = 2_000_000  # bytes that a bundle may take beside the weights


class SeveralMissingError(MissingDependencyError):
    """Several things are not installed.

    Args:
        parts: A text for each.
    """

    def __init__(self, parts: tuple[str, ...]) -> None:
        self.parts = parts
        numbered = "; ".join(f"({number}) {part}" for number, part in enumerate(parts, 1))
        super().__init__(f"{len(parts)} things are missing: {numbered}")


def require_all(*checks: Callable[[], object]) -> None:
    """Run checks to the last one.

    Raises:
        MissingDependencyError: The error of the check that failed, or one that names the faults of all.
    """
    errors: list[MissingDependencyError | BuildError] = []
    for check in checks:
        try:
            check()
        except (MissingDependencyError, BuildError) as error:
            errors.append(error)
    parts: list[str] = []
    for missing in errors:
        parts += missing.parts if isinstance(missing, SeveralMissingError) else [str(missing)]
    if len(set(parts)) > 1:
        raise SeveralMissingError(tuple(dict.fromkeys(parts))) from errors[0]
    if errors:
        raise errors[0]


def require_package(name: str, purpose: str, extra: str) -> None:
    """Check that a package can be imported, without importing it.

    Args:
        name: The package.
        purpose: What needs it, for the error message.
        extra: The extra that installs it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if not has_package(name):
        raise MissingDependencyError(f"{purpose} needs {name}; run: {install_command(extra)}")


def has_package(name: str) -> bool:
    """Return whether a package is installed."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: something has hidden it
        return False


def require_package_tools() -> None:
    """Check that CMake and Ninja are installed, which compile our own C++ sources for any machine.

    Raises:
        MissingDependencyError: One of them is not.
    """
    for name in ("cmake", "ninja"):
        require_package(name, "compiling", "compile")


def require_build_tools() -> None:
    """Check that what compiles our own C++ sources for this machine is installed.

    Raises:
        MissingDependencyError: CMake, Ninja or a C++ compiler is not.
    """
    require_all(require_package_tools, _require_compiler)


def _require_compiler() -> None:
    chosen = os.environ.get("CXX", "").split()[:1]
    if not any(shutil.which(name) for name in (*chosen, *COMPILERS)):
        raise MissingDependencyError("compiling needs a C++ compiler (Debian: apt install g++)")


def require_space(output: Path, weights: int, precision: str) -> None:
    """Check that a bundle finds room on the disk.

    Args:
        output: The bundle's folder, which need not exist.
        weights: The number of the model's weights.
        precision: The bundle's precision, which says how many bytes a weight takes.

    Raises:
        BuildError: The disk has less room than the weights alone will take.
    """
    width = {"fp32": 4, "fp16": 2}.get(precision, 1)
    folder = next(path for path in output.absolute().parents if path.exists())
    free, needed = shutil.disk_usage(folder).free, width * weights + LIBRARY
    if free < needed:
        raise BuildError(
            f"{folder} has {free / 1e6:.0f} MB free, and the bundle takes at least {needed / 1e6:.0f} MB: make room, "
            "or choose another --output"
        )
