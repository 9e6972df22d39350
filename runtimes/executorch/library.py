"""Building `libvmp_executorch.so` against the SDK in the executorch wheel, once per version of either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from vmp_edge.errors import MissingDependencyError

from ..building import INSTALL_HINT, cache_folder, cmake_build, fingerprint, source_folder

LIBRARY = "libvmp_executorch.so"
RUNNER = "vmp_executorch_runner"


def executorch_folder() -> Path:
    """The installed executorch package, found without importing it (importing it imports PyTorch).

    Raises:
        MissingDependencyError: it is not installed.
    """
    spec = importlib.util.find_spec("executorch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "lib" / "libexecutorch.so").is_file():
            return Path(folder)
    raise MissingDependencyError(f"the executorch engine needs executorch 1.5 or later; {INSTALL_HINT}")


def build_library(toolchain: str | None = None, sdk: Path | None = None) -> Path:
    """The library for this machine or another, from the cache or built now (about half a minute).

    Args:
        toolchain: another machine's, a file in ``runtimes/native/cmake``.
        sdk: the folder of that machine's ExecuTorch, with ``lib``, ``include`` and ``share`` as in its wheel.

    Raises:
        MissingDependencyError: executorch, CMake >= 3.28, Ninja or a C++ compiler is not there.
        BuildError: the compiler failed; the text names the log.
    """
    return _build(LIBRARY, "vmp_executorch", toolchain, sdk)


def build_runner(toolchain: str | None = None, sdk: Path | None = None) -> Path:
    """The program that runs a bundle's program without Python, from the cache or built now.

    Args:
        toolchain, sdk: as in `build_library`.

    Raises:
        MissingDependencyError, BuildError: as `build_library`.
    """
    return _build(RUNNER, RUNNER, toolchain, sdk)


def _build(file: str, target: str, toolchain: str | None, sdk: Path | None) -> Path:
    native = source_folder("native")
    sources = source_folder("executorch"), native
    versions = [f"executorch {importlib.metadata.version('executorch')}", *([toolchain] if toolchain else [])]
    finished = cache_folder() / f"executorch-{fingerprint(versions, *sources)}" / file
    if finished.is_file():
        return finished
    options = [f"-DCMAKE_PREFIX_PATH={sdk or executorch_folder()}"]
    options += [f"-DCMAKE_TOOLCHAIN_FILE={native / 'cmake' / toolchain}"] if toolchain else []
    finished.parent.mkdir(parents=True, exist_ok=True)
    log = finished.with_name(f"{target}.log")
    with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
        cmake_build(sources[0], Path(folder), [target], options, log)
        beside = finished.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / file, beside)
        beside.replace(finished)
    log.unlink(missing_ok=True)  # somebody else may have built the same
    return finished
