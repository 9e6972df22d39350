"""Building `libvmp_executorch.so` against the SDK in the installed executorch wheel, once per version of either."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vmp_edge.errors import BuildError, MissingDependencyError

LIBRARY = "libvmp_executorch.so"
INSTALL_HINT = "run: pip install 'vmp-edge[compile]'"


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


def cache_folder() -> Path:
    """Where built libraries are kept: $VMP_EDGE_CACHE, or vmp-edge in the user's cache folder."""
    if chosen := os.environ.get("VMP_EDGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmp-edge"


def build_library() -> Path:
    """The library for this machine, from the cache or built now (about half a minute).

    Raises:
        MissingDependencyError: executorch, CMake >= 3.28, Ninja or a C++ compiler is not there.
        BuildError: the compiler failed; the text names the log.
    """
    sdk = executorch_folder()
    sources = source_folder("executorch"), source_folder("native")
    finished = cache_folder() / f"executorch-{_fingerprint(*sources)}" / LIBRARY
    if finished.is_file():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    log = finished.parent / "build.log"
    with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
        _run([*_cmake(), "-S", str(sources[0]), "-B", folder, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={sdk}"], log)
        _run([*_cmake(), "--build", folder, "--target", "vmp_executorch"], log)
        beside = finished.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / LIBRARY, beside)
        beside.replace(finished)
    log.unlink()
    return finished


def source_folder(name: str) -> Path:
    """A folder of C++ sources beside this one, in a checkout or as installed."""
    runtimes = importlib.import_module("vmp_edge.runtimes")
    for root in runtimes.__path__:
        if (Path(root) / name / "CMakeLists.txt").is_file():
            return Path(root) / name
    raise BuildError(f"the C++ sources of runtimes/{name} are not installed; reinstall vmp-edge")


def _fingerprint(*folders: Path) -> str:
    digest = hashlib.sha256()
    digest.update(f"{importlib.metadata.version('executorch')} {platform.machine()} {platform.libc_ver()}".encode())
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".h", ".cpp", ".txt"):
                digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _cmake() -> list[str]:
    """CMake of PyPI as a module of this interpreter, so that an old one on the PATH does not get in the way."""
    for tool in ("cmake", "ninja"):
        if importlib.util.find_spec(tool) is None:
            raise MissingDependencyError(f"building for executorch needs {tool} from PyPI; {INSTALL_HINT}")
    return [sys.executable, "-m", "cmake"]


def _run(command: list[str], log: Path) -> None:
    """Run a build step, all that it prints going to the log."""
    import ninja

    environment = {**os.environ, "PATH": f"{ninja.BIN_DIR}{os.pathsep}{os.environ.get('PATH', '')}"}
    with log.open("a") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        text = log.read_text(errors="replace")
        if "No CMAKE_CXX_COMPILER could be found" in text:
            raise MissingDependencyError("building for executorch needs a C++ compiler (Debian: apt install g++)")
        raise BuildError(f"building {LIBRARY} failed; what the compiler said is in {log}")
