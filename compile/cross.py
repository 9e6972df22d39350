"""Building for another machine: its C++ compiler, its CMake toolchain, and libraries out of its wheels."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from vmp_edge.errors import MissingDependencyError
from vmp_edge.machine import host_machine
from vmp_edge.runtimes.building import cache_folder
from vmp_edge.runtimes.executorch.library import build_library

COMPILERS = {"x86_64": "x86_64-linux-gnu-g++", "aarch64": "aarch64-linux-gnu-g++"}
TOOLCHAINS = {"aarch64": "aarch64-linux-gnu.cmake"}
PLATFORM = "manylinux_2_28"


def cmake_toolchain(machine: str) -> str | None:
    """A file in ``runtimes/native/cmake``; None for this machine, and where there is none."""
    return None if machine == host_machine() else TOOLCHAINS.get(machine)


def cross_compiler(machine: str) -> str:
    """The C++ compiler that links for a machine.

    Raises:
        MissingDependencyError: it is not installed.
    """
    name = "g++" if machine == host_machine() else COMPILERS.get(machine, f"{machine}-linux-gnu-g++")
    if shutil.which(name) is None:
        package = "g++" if name == "g++" else f"g++-{machine.replace('_', '-')}-linux-gnu"
        raise MissingDependencyError(f"building for {machine} needs {name} (Debian: apt install {package})")
    return name


def from_wheels(
    machine: str, versions: Mapping[str, str], name: str, place: Callable[[str], str | None], what: str
) -> Path:
    """A folder with files of another machine's wheels, from the cache or from PyPI.

    Args:
        machine: whose.
        versions: of the distributions.
        name: of the folder in the cache.
        place: where a member of a wheel goes in that folder; None leaves it out.
        what: needs them, for people.

    Raises:
        MissingDependencyError: the wheels cannot be downloaded.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--platform", f"{PLATFORM}_{machine}", "--retries", "1", "--timeout", "15"]
        pip += ["--dest", temporary, *(f"{one}=={version}" for one, version in versions.items())]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or len(wheels) != len(versions):
            names = " and ".join(versions)
            raise MissingDependencyError(f"{what} needs the wheels of {names} for {machine}, which pip cannot download")
        ready = Path(temporary) / "ready"
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as content:
                for member in content.namelist():
                    if (target := place(member)) is not None:
                        (ready / target).parent.mkdir(parents=True, exist_ok=True)
                        (ready / target).write_bytes(content.read(member))
        if not folder.is_dir():  # somebody else may have been faster
            ready.rename(folder)
    return folder


def executorch_sdk(machine: str) -> Path:
    """A folder with another machine's ExecuTorch libraries, headers and CMake package, from the cache or from PyPI.

    Raises:
        MissingDependencyError: the wheel cannot be downloaded.
    """
    version = importlib.metadata.version("executorch")
    parts = tuple(f"executorch/{part}/" for part in ("include", "lib", "share"))

    def place(member: str) -> str | None:
        return member.removeprefix("executorch/") if member.startswith(parts) and not member.endswith("/") else None

    name = f"executorch-sdk-{version}-{machine}"
    return from_wheels(machine, {"executorch": version}, name, place, f"building for {machine}")


def executorch_library(machine: str) -> Path:
    """``libvmp_executorch.so`` of another machine, from the cache or built now.

    Raises:
        MissingDependencyError: the machine's compiler or ExecuTorch's wheel for it cannot be had.
        BuildError: the compiler failed.
    """
    cross_compiler(machine)
    return build_library(cmake_toolchain(machine), executorch_sdk(machine))
