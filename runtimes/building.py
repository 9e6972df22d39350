"""Build the C++ parts of the engines with CMake, once per version of the sources and the libraries."""

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
from vmp_edge.installation import install_command


def cache_folder() -> Path:
    """Return the folder that keeps built libraries: $VMP_EDGE_CACHE, or vmp-edge in the user's cache folder."""
    if chosen := os.environ.get("VMP_EDGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmp-edge"


def source_folder(name: str) -> Path:
    """Return a folder of C++ sources beside this file, in a checkout or as installed.

    Raises:
        BuildError: The folder is not installed.
    """
    runtimes = importlib.import_module("vmp_edge.runtimes")
    for root in runtimes.__path__:
        if (Path(root) / name / "CMakeLists.txt").is_file():
            return Path(root) / name
    raise BuildError(f"the C++ sources of runtimes/{name} are not installed; reinstall vmp-edge")


def fingerprint(versions: Sequence[str], *folders: Path) -> str:
    """Return a short hash that names a build.

    Args:
        versions: Versions of the libraries of others that the build uses.
        folders: The folders whose sources are built.

    Returns:
        16 hexadecimal digits. They change with the sources, the versions, the kind of machine and its C library.
    """
    digest = hashlib.sha256()
    digest.update(f"{' '.join(versions)} {platform.machine()} {platform.libc_ver()}".encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".h", ".cpp", ".inc", ".txt", ".cmake", ".map"):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cmake_build(source: Path, build: Path, targets: Sequence[str], options: Sequence[str], log: Path) -> None:
    """Configure a CMake project and build some of its targets.

    Args:
        source: The folder with the CMakeLists.txt.
        build: The folder to build in.
        targets: The CMake targets to build.
        options: Options of the configuration, ``-DNAME=VALUE``.
        log: The file to which everything that the tools print is appended.

    Raises:
        MissingDependencyError: CMake, Ninja or a C++ compiler is not installed.
        BuildError: A step failed; the message names the log.
    """
    purpose = f"building for {source.name}"
    for tool in ("cmake", "ninja"):
        if importlib.util.find_spec(tool) is None:
            raise MissingDependencyError(f"{purpose} needs {tool} from PyPI; run: {install_command('compile')}")
    # Run the CMake of this interpreter as a module: the PATH may have an older one.
    cmake = [sys.executable, "-m", "cmake"]
    _run([*cmake, "-S", str(source), "-B", str(build), "-G", "Ninja", *options], purpose, log)
    _run([*cmake, "--build", str(build), "--target", *targets], purpose, log)


def _run(command: list[str], purpose: str, log: Path) -> None:
    import ninja

    environment = {**os.environ, "PATH": f"{ninja.BIN_DIR}{os.pathsep}{os.environ.get('PATH', '')}"}
    with log.open("a") as file:
        process = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if process.returncode:
        if "No CMAKE_CXX_COMPILER could be found" in log.read_text(errors="replace"):
            raise MissingDependencyError(f"{purpose} needs a C++ compiler (Debian: apt install g++)")
        raise BuildError(f"{purpose} failed; the compiler's messages are in {log}")
