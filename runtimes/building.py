"""Building the C++ parts of the engines with CMake, once per version of sources and libraries."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vmp_edge.errors import BuildError, MissingDependencyError

INSTALL_HINT = "run: pip install 'vmp-edge[compile]'"


def cache_folder() -> Path:
    """Where built libraries are kept: $VMP_EDGE_CACHE, or vmp-edge in the user's cache folder."""
    if chosen := os.environ.get("VMP_EDGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmp-edge"


def source_folder(name: str) -> Path:
    """A folder of C++ sources beside this file, in a checkout or as installed."""
    runtimes = importlib.import_module("vmp_edge.runtimes")
    for root in runtimes.__path__:
        if (Path(root) / name / "CMakeLists.txt").is_file():
            return Path(root) / name
    raise BuildError(f"the C++ sources of runtimes/{name} are not installed; reinstall vmp-edge")


def fingerprint(versions: Sequence[str], *folders: Path) -> str:
    """A name for what is built from these sources on this machine with these versions of others' libraries."""
    digest = hashlib.sha256()
    digest.update(f"{' '.join(versions)} {platform.machine()} {platform.libc_ver()}".encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".h", ".cpp", ".inc", ".txt", ".cmake", ".map"):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cmake_build(source: Path, build: Path, targets: Sequence[str], options: Sequence[str], log: Path) -> None:
    """Configure and build targets of a folder.

    Args:
        source: the folder with a CMakeLists.txt.
        build: a folder to build in.
        targets: what to build.
        options: of the configuration, ``-DNAME=VALUE``.
        log: gets all that the tools print; of use when they fail.

    Raises:
        MissingDependencyError: CMake, Ninja or a C++ compiler is not there.
        BuildError: a step failed; the text names the log.
    """
    what = f"building for {source.name}"
    for tool in ("cmake", "ninja"):
        if importlib.util.find_spec(tool) is None:
            raise MissingDependencyError(f"{what} needs {tool} from PyPI; {INSTALL_HINT}")
    # CMake of PyPI as a module of this interpreter, so that an old one on the PATH does not get in the way
    cmake = [sys.executable, "-m", "cmake"]
    _run([*cmake, "-S", str(source), "-B", str(build), "-G", "Ninja", *options], what, log)
    _run([*cmake, "--build", str(build), "--target", *targets], what, log)


def _run(command: list[str], what: str, log: Path) -> None:
    import ninja

    environment = {**os.environ, "PATH": f"{ninja.BIN_DIR}{os.pathsep}{os.environ.get('PATH', '')}"}
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        if "No CMAKE_CXX_COMPILER could be found" in log.read_text(errors="replace"):
            raise MissingDependencyError(f"{what} needs a C++ compiler (Debian: apt install g++)")
        raise BuildError(f"{what} failed; what the compiler said is in {log}")
