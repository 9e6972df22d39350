"""Find TVM's runtime, and build what belongs to it: the operators, the runner, replacements of CUDA's libraries."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from vmp_edge.bundle.reading import CUDA_RUNTIME
from vmp_edge.errors import MissingDependencyError
from vmp_edge.installation import install_command

from ..building import cache_folder, cmake_build, fingerprint, source_folder

ARCHIVES = ("libvmp_tvm.a", "native/libvmp_ops_static.a")
RUNNER = "vmp_tvm_runner"
CUDART = CUDA_RUNTIME
CUDA_DRIVER = "libcuda.so.1"


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it: importing tvm loads a whole compiler.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "lib").is_dir():
            return Path(folder)
    raise MissingDependencyError(f"the tvm engine needs {name}; run: {install_command('tvm')}")


def runtime_library() -> Path:
    """Return the path of ``libtvm_runtime.so`` in the installed wheel.

    Raises:
        MissingDependencyError: TVM is not installed.
    """
    path = package_folder("tvm") / "lib" / "libtvm_runtime.so"
    if not path.is_file():
        raise MissingDependencyError(f"{path} is missing: TVM is not installed whole; run: {install_command('tvm')}")
    return path


def cuda_library() -> Path:
    """Return the path of ``libtvm_runtime_cuda.so`` in the installed wheel.

    Raises:
        MissingDependencyError: TVM is not installed, or its wheel has no CUDA runtime.
    """
    path = runtime_library().parent / "libtvm_runtime_cuda.so"
    if not path.is_file():
        raise MissingDependencyError(
            f"{path} is missing: TVM's wheel for this machine has no CUDA; run: {install_command('tvm')}"
        )
    return path


def build_cudart(toolchain: str | None = None) -> Path:
    """Return the CUDA runtime library of bundles for GPUs (``src/cudart.cpp``), from the cache, or build it.

    Args:
        toolchain: The CMake toolchain of another kind of machine; see `build_operators`.

    Raises:
        MissingDependencyError: tvm-ffi, CMake, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    return _build([CUDART], ["vmp_cudart"], toolchain, package_folder("tvm_ffi") / "lib")[0]


def build_cuda_driver(toolchain: str | None = None) -> Path:
    """Return a ``libcuda.so.1`` that emulates a GPU (``runtimes/cuda/emulation``), from the cache, or build it.

    Args:
        toolchain: The CMake toolchain of another kind of machine; see `build_operators`.

    Raises:
        MissingDependencyError: tvm-ffi, CMake, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    return _build([CUDA_DRIVER], ["vmp_cuda_driver"], toolchain, package_folder("tvm_ffi") / "lib")[0]


def build_operators(toolchain: str | None = None) -> list[Path]:
    """Return the archives that a bundle's library is linked with, in the linker's order, from the cache, or build them.

    Args:
        toolchain: The CMake toolchain of another kind of machine, a file in ``runtimes/native/cmake``. None builds for
            this machine.

    Raises:
        MissingDependencyError: tvm-ffi, CMake, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    return _build(ARCHIVES, ["vmp_tvm", "vmp_ops_static"], toolchain, package_folder("tvm_ffi") / "lib")


def operators_are_built(toolchain: str | None = None) -> bool:
    """Return whether `build_operators` has nothing to compile."""
    folder = _folder(["vmp_tvm", "vmp_ops_static"], toolchain)
    return all((folder / Path(file).name).is_file() for file in ARCHIVES)


def build_runner(toolchain: str | None = None, libraries: Path | None = None) -> Path:
    """Return the small executable that runs a bundle's library without Python, from the cache, or build it.

    Args:
        toolchain: The CMake toolchain of another kind of machine; see `build_operators`.
        libraries: The folder with the other machine's ``libtvm_ffi.so``.

    Raises:
        MissingDependencyError: tvm-ffi, CMake, Ninja or a C++ compiler is not installed.
        BuildError: The compiler failed; the message names the log.
    """
    return _build([RUNNER], [RUNNER], toolchain, libraries or package_folder("tvm_ffi") / "lib")[0]


def _folder(targets: list[str], toolchain: str | None) -> Path:
    """Return the folder in the cache in which some targets are built."""
    sources = source_folder("tvm"), source_folder("native"), source_folder("cuda") / "emulation"
    versions = [f"tvm-ffi {importlib.metadata.version('apache-tvm-ffi')}", toolchain or "", *targets]
    return cache_folder() / f"tvm-{fingerprint(versions, *sources)}"


def _build(files: list[str] | tuple[str, ...], targets: list[str], toolchain: str | None, lib: Path) -> list[Path]:
    include, native = package_folder("tvm_ffi") / "include", source_folder("native")
    folder = _folder(targets, toolchain)
    finished = [folder / Path(file).name for file in files]
    if all(path.is_file() for path in finished):
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    options = [f"-DTVM_FFI_INCLUDE={include}", f"-DTVM_FFI_LIBRARY={lib / 'libtvm_ffi.so'}"]
    options += [f"-DCMAKE_TOOLCHAIN_FILE={native / 'cmake' / toolchain}"] if toolchain else []
    with tempfile.TemporaryDirectory(prefix="vmp-edge-") as build:
        cmake_build(source_folder("tvm"), Path(build), targets, options, log)
        for file, path in zip(files, finished, strict=True):
            temporary = path.with_suffix(f".{os.getpid()}")
            shutil.copy2(Path(build) / file, temporary)
            temporary.replace(path)
    log.unlink(missing_ok=True)  # another process may have built the same and removed its log
    return finished
