"""Build `libvmp_executorch.so` against the SDK in the executorch wheel, once per version of the sources and the SDK."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from vmp_edge.bundle.reading import EXECUTORCH_LIBRARY
from vmp_edge.errors import MissingDependencyError
from vmp_edge.installation import install_command

from ..building import cache_folder, cmake_build, fingerprint, source_folder

LIBRARY = EXECUTORCH_LIBRARY
RUNNER = "vmp_executorch_runner"


def executorch_folder() -> Path:
    """Return the folder of the installed executorch package without importing it, which would import PyTorch.

    Raises:
        MissingDependencyError: executorch is not installed.
    """
    spec = importlib.util.find_spec("executorch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "lib" / "libexecutorch.so").is_file():
            return Path(folder)
    raise MissingDependencyError(
        f"the executorch engine needs executorch 1.5 or later; run: {install_command('compile')}"
    )


def build_library(toolchain: str | None = None, sdk: Path | None = None) -> Path:
    """Return the engine's library from the cache, or build it, which takes about half a minute.

    Args:
        toolchain: The CMake toolchain of another kind of machine, a file in ``runtimes/native/cmake``. None builds for
            this machine.
        sdk: The folder of the other machine's ExecuTorch, with ``lib``, ``include`` and ``share`` as in its wheel.

    Raises:
        MissingDependencyError: executorch, CMake 3.28 or later, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    return _build(LIBRARY, "vmp_executorch", toolchain, sdk)


def library_is_built(toolchain: str | None = None) -> bool:
    """Return whether `build_library` has nothing to compile."""
    return _place(LIBRARY, toolchain).is_file()


def build_runner(toolchain: str | None = None, sdk: Path | None = None) -> Path:
    """Return the small executable that runs a bundle without Python, from the cache, or build it.

    Args:
        toolchain: The CMake toolchain of another kind of machine; see `build_library`.
        sdk: The folder of the other machine's ExecuTorch; see `build_library`.

    Raises:
        MissingDependencyError: executorch, CMake 3.28 or later, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    return _build(RUNNER, RUNNER, toolchain, sdk)


def _place(file: str, toolchain: str | None) -> Path:
    """Return the path of a built file in the cache."""
    versions = [f"executorch {importlib.metadata.version('executorch')}", *([toolchain] if toolchain else [])]
    folder = f"executorch-{fingerprint(versions, source_folder('executorch'), source_folder('native'))}"
    return cache_folder() / folder / file


def _build(file: str, target: str, toolchain: str | None, sdk: Path | None) -> Path:
    native = source_folder("native")
    finished = _place(file, toolchain)
    if finished.is_file():
        return finished
    options = [f"-DCMAKE_PREFIX_PATH={sdk or executorch_folder()}"]
    options += [f"-DCMAKE_TOOLCHAIN_FILE={native / 'cmake' / toolchain}"] if toolchain else []
    finished.parent.mkdir(parents=True, exist_ok=True)
    log = finished.with_name(f"{target}.log")
    with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
        cmake_build(source_folder("executorch"), Path(folder), [target], options, log)
        temporary = finished.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / file, temporary)
        temporary.replace(finished)
    log.unlink(missing_ok=True)  # another process may have built the same and removed its log
    return finished
