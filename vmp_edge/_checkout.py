"""A checkout that is not installed: its folders are found as subpackages, and its programs find its package.

A program of a checkout runs this file (`runpy`) before it can import the package, so it imports nothing of it.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

# The folders of a checkout that are subpackages of the installed package.
SIBLINGS = ("apps", "calibration", "compile", "runtimes")


def checkout(package: Path) -> Path | None:
    """Return the checkout that a package's folder lies in, or None if the package is installed by itself."""
    folder = package.parent
    parts = [folder / "pyproject.toml", *(folder / name / "__init__.py" for name in SIBLINGS)]
    return folder if all(part.is_file() for part in parts) else None


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the folders beside a checkout's package, by the names that they have where it is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "vmp_edge" or name not in SIBLINGS:
            return None
        place = self.folder / name
        return importlib.util.spec_from_file_location(
            fullname, place / "__init__.py", submodule_search_locations=[str(place)]
        )


def install() -> None:
    """Make the siblings of this package importable if it is that of a checkout. An editable install goes first."""
    folder = checkout(Path(__file__).resolve().parent)
    if folder is not None:
        sys.meta_path.append(_Finder(folder))


def use(script: str, extra: str = "") -> None:
    """Let a program, whose file Python runs by its path, import the package of its own checkout.

    The program ends here, with one line of error, if this Python is too old, or has the package of another checkout.
    Where the package is installed, so that the program is a part of it, only the program's folder goes from the path.

    Args:
        script: The program's file.
        extra: The extra that the program needs, for the message.
    """
    place = Path(script).resolve()
    # Python puts the program's folder first, where compile/executorch.py and its like would hide libraries.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != place.parent]
    root = place.parents[1]
    if checkout(root / "vmp_edge") is None:
        return
    if sys.version_info < (3, 10):  # noqa: UP036 - nothing has checked it where nothing is installed
        _fail(f"this needs Python 3.10 to 3.13; {sys.executable} is {sys.version.split()[0]}")
    sys.path.insert(0, str(root))
    spec = importlib.util.find_spec("vmp_edge")
    origin = Path(spec.origin).resolve() if spec is not None and spec.origin is not None else None
    if origin is None or origin.parent != root / "vmp_edge":
        other = "no vmp-edge" if origin is None else f"the vmp-edge of {origin.parents[1]}"
        chosen = f"[{extra}]" if extra else ""
        _fail(
            f"{sys.executable} has {other}, not that of this checkout; take another Python, as `make setup` makes one "
            f"here, or run: {sys.executable} -m pip install -e '{root}{chosen}'"
        )


def _fail(text: str) -> None:
    """End the program as the command line would."""
    print(f"vmp-edge: {text}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": text}))
    sys.exit(1)
