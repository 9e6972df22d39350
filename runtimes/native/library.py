"""Build the native library of a checkout that is not installed, once per version of the sources."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from ..building import cache_folder, cmake_build, fingerprint, source_folder

FILE = "libvmp_ops.so"


def build_library() -> Path:
    """Return ``libvmp_ops.so`` for this machine from the cache, or build it, which takes about half a minute.

    Raises:
        MissingDependencyError: CMake, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    sources = source_folder("native")
    finished = cache_folder() / f"native-{fingerprint((), sources)}" / FILE
    if finished.is_file():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    log = finished.with_name("build.log")
    with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
        cmake_build(sources, Path(folder), ["vmp_ops"], ["-DCMAKE_BUILD_TYPE=Release"], log)
        temporary = finished.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / FILE, temporary)
        temporary.replace(finished)
    log.unlink(missing_ok=True)  # another process may have built the same and removed its log
    return finished
