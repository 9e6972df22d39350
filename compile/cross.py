"""Build for another machine: find its C++ compiler and CMake toolchain, and get libraries out of its wheels."""

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
from vmp_edge.progress import part
from vmp_edge.runtimes.building import cache_folder
from vmp_edge.runtimes.executorch.library import build_library

COMPILERS = {"x86_64": "x86_64-linux-gnu-g++", "aarch64": "aarch64-linux-gnu-g++"}
TOOLCHAINS = {"aarch64": "aarch64-linux-gnu.cmake"}
PLATFORM = "manylinux_2_28"
TVM_LIBRARIES = {  # the members of TVM's wheels that running a bundle needs
    "apache-tvm": ("tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_cuda.so"),
    "apache-tvm-ffi": ("tvm_ffi/lib/libtvm_ffi.so",),
}


def cmake_toolchain(machine: str) -> str | None:
    """Return the name of a machine's file in ``runtimes/native/cmake``; None for this machine, and if there is none."""
    return None if machine == host_machine() else TOOLCHAINS.get(machine)


def cross_compiler(machine: str) -> str:
    """Return the C++ compiler that links for a machine.

    Raises:
        MissingDependencyError: The compiler is not installed.
    """
    name = "g++" if machine == host_machine() else COMPILERS.get(machine, f"{machine}-linux-gnu-g++")
    if shutil.which(name) is None:
        package = "g++" if name == "g++" else f"g++-{machine.replace('_', '-')}-linux-gnu"
        raise MissingDependencyError(f"building for {machine} needs {name} (Debian: apt install {package})")
    return name


def from_wheels(
    machine: str, versions: Mapping[str, str], name: str, place: Callable[[str], str | None], what: str
) -> Path:
    """Return a folder with files of another machine's wheels, from the cache or from PyPI.

    Args:
        machine: The machine.
        versions: The versions of the distributions by their names.
        name: The name of the folder in the cache.
        place: Gives the place of a wheel's member in that folder, or None to leave the member out.
        what: What needs the wheels, for the error message.

    Raises:
        MissingDependencyError: The wheels cannot be downloaded.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--platform", f"{PLATFORM}_{machine}", "--retries", "1", "--timeout", "15"]
        pip += ["--dest", temporary, *(f"{package}=={version}" for package, version in versions.items())]
        with part(f"download the wheels for {machine}"):
            process = subprocess.run(pip, capture_output=True, text=True, check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if process.returncode or len(wheels) != len(versions):
            names = " and ".join(versions)
            raise MissingDependencyError(f"{what} needs the wheels of {names} for {machine}, which pip cannot download")
        ready = Path(temporary) / "ready"
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as content:
                for member in content.namelist():
                    if (target := place(member)) is not None:
                        (ready / target).parent.mkdir(parents=True, exist_ok=True)
                        (ready / target).write_bytes(content.read(member))
        if not folder.is_dir():  # another process may have been faster
            ready.rename(folder)
    return folder


def executorch_sdk(machine: str) -> Path:
    """Return a folder with another machine's ExecuTorch libraries, headers and CMake package, from cache or PyPI.

    Raises:
        MissingDependencyError: The wheel cannot be downloaded.
    """
    version = importlib.metadata.version("executorch")
    parts = tuple(f"executorch/{part}/" for part in ("include", "lib", "share"))

    def place(member: str) -> str | None:
        return member.removeprefix("executorch/") if member.startswith(parts) and not member.endswith("/") else None

    name = f"executorch-sdk-{version}-{machine}"
    return from_wheels(machine, {"executorch": version}, name, place, f"building for {machine}")


def executorch_library(machine: str) -> Path:
    """Return ``libvmp_executorch.so`` of another machine, from the cache or built now.

    Raises:
        MissingDependencyError: The machine's compiler or ExecuTorch's wheel for it cannot be had.
        BuildError: The compiler failed.
    """
    cross_compiler(machine)
    return build_library(cmake_toolchain(machine), executorch_sdk(machine))


def tvm_runtime(machine: str) -> Path:
    """Return a folder with another machine's TVM runtime, its CUDA runtime and ``libtvm_ffi.so``, from cache or PyPI.

    Raises:
        MissingDependencyError: The wheels cannot be downloaded.
    """
    versions = {name: importlib.metadata.version(name) for name in TVM_LIBRARIES}
    members = {member for names in TVM_LIBRARIES.values() for member in names}
    name = f"tvm-runtime-{versions['apache-tvm']}-{versions['apache-tvm-ffi']}-{machine}-cuda"
    return from_wheels(machine, versions, name, lambda m: Path(m).name if m in members else None, "running it")
