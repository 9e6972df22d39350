"""Building `libvmp_executorch.so` against the SDK in the installed executorch wheel, once per version of either."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from vmp_edge.errors import MissingDependencyError
from vmp_edge.runtimes.building import INSTALL_HINT, cache_folder, cmake_build, fingerprint, source_folder

LIBRARY = "libvmp_executorch.so"


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


def build_library() -> Path:
    """The library for this machine, from the cache or built now (about half a minute).

    Raises:
        MissingDependencyError: executorch, CMake >= 3.28, Ninja or a C++ compiler is not there.
        BuildError: the compiler failed; the text names the log.
    """
    sdk = executorch_folder()
    sources = source_folder("executorch"), source_folder("native")
    version = f"executorch {importlib.metadata.version('executorch')}"
    finished = cache_folder() / f"executorch-{fingerprint([version], *sources)}" / LIBRARY
    if finished.is_file():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    log = finished.parent / "build.log"
    with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
        cmake_build(sources[0], Path(folder), ["vmp_executorch"], [f"-DCMAKE_PREFIX_PATH={sdk}"], log)
        beside = finished.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / LIBRARY, beside)
        beside.replace(finished)
    log.unlink()
    return finished
