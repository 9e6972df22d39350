"""Find and run a CUDA compiler, and check the machine code in a finished library.

The compiler is nvcc, or NVRTC from PyPI for devices whose CUDA is older than this machine's nvcc.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.installation import install_command
from vmp_edge.runtimes.building import source_folder

Version = tuple[int, int]
OPTIONS = ("-std=c++17", "-ftz=true")  # as in runtimes/cuda/CMakeLists.txt
NVRTC_PACKAGES = ("nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12", "nvidia-cuda-cccl-cu12")
EM_CUDA = 190
NEWER_FLAGS = 8  # the first ELF ABI version with the architecture in the flags' second byte instead of the first
JETPACKS: dict[str, Version] = {"6": (12, 6), "7": (13, 0)}  # the CUDA of each JetPack, by NVIDIA's release notes


class Compiler(Protocol):
    """A compiler from CUDA C++ to machine code."""

    @property
    def version(self) -> Version:
        """The version of the compiler's CUDA."""
        ...

    def compile(self, source: str, architectures: Sequence[int]) -> bytes:
        """Compile to a cubin, or for several architectures to a fat binary of cubins, without PTX.

        Raises:
            BuildError: The source does not compile.
        """
        ...


def find(newest: Version | None = None) -> Compiler:
    """Find a compiler whose code the device's CUDA can load.

    Args:
        newest: The device's CUDA: a driver refuses code that a newer major version made. None takes any compiler.

    Raises:
        MissingDependencyError: There is no compiler at all.
        BuildError: There are only compilers of a newer CUDA.
    """
    nvcc = find_nvcc()
    if nvcc and (newest is None or nvcc.version <= newest):
        return nvcc
    nvrtc = find_nvrtc()
    if nvrtc and (newest is None or nvrtc.version <= newest):
        return nvrtc
    if nvcc is None:
        raise MissingDependencyError(
            "building for NVIDIA GPUs needs nvcc, which is not on the PATH: install the CUDA toolkit, or set CUDACXX "
            "to its nvcc"
        )
    assert newest is not None
    raise BuildError(
        f"nvcc is of CUDA {version_text(nvcc.version)}, newer than the device's {version_text(newest)}: its code would "
        f"not load there; run: {install_command('jetpack6')}, or set CUDACXX to an older nvcc"
    )


def version_text(version: Version) -> str:
    """Return a version such as ``(12, 6)`` as the text ``12.6``."""
    return ".".join(map(str, version))


def include_folders() -> list[Path]:
    """Return the folders with the headers of the hand-written kernels."""
    return [source_folder("cuda") / "src", source_folder("cuda") / "include"]


# ------------------------------------------------------------------------------------------------------------- nvcc


@dataclass(frozen=True)
class Nvcc:
    """nvcc, the compiler of a CUDA toolkit."""

    path: str
    version: Version

    def compile(self, source: str, architectures: Sequence[int]) -> bytes:
        """Compile for one or several architectures, like `Compiler.compile`."""
        kind = ["-cubin", f"-arch=sm_{architectures[0]}"]
        if len(architectures) > 1:
            kind = ["-fatbin", "--no-compress", *(f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures)]
        with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
            code, result = Path(folder) / "kernels.cu", Path(folder) / "kernels.bin"
            code.write_text(source)
            includes = [f"-I{path}" for path in include_folders()]
            command = [self.path, *OPTIONS, "-O3", *kind, *includes, str(code), "-o", str(result)]
            process = subprocess.run(command, capture_output=True, text=True, check=False)
            if process.returncode:
                raise BuildError(f"nvcc: {first_error(process.stderr)}")
            return result.read_bytes()


def find_nvcc() -> Nvcc | None:
    """Find ``$CUDACXX``, or nvcc on the PATH or in the folder of NVIDIA's installers; return None if there is none.

    Raises:
        BuildError: There is one, but it does not run.
    """
    path = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not path:
        return None
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{path} does not run ({error}); set CUDACXX to a working nvcc") from error
    release = re.search(r"release (\d+)\.(\d+)", text)
    if not release:
        raise BuildError(f"{path} is not nvcc: --version names no release; set CUDACXX to a working nvcc")
    return Nvcc(path, (int(release[1]), int(release[2])))


def first_error(text: str) -> str:
    """Return the first line of a compiler's output that has the word error, or else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return next((line for line in lines if "error" in line), lines[-1])


# ------------------------------------------------------------------------------------------------------------ NVRTC


@dataclass(frozen=True)
class Nvrtc:
    """NVRTC, NVIDIA's compiler as a library, from packages on PyPI. It compiles no host code."""

    library: str
    includes: tuple[str, ...]
    version: Version

    def compile(self, source: str, architectures: Sequence[int]) -> bytes:
        """Compile for one architecture, like `Compiler.compile`.

        Raises:
            BuildError: The source does not compile, or there is more than one architecture.
        """
        if len(architectures) != 1:
            raise BuildError("NVRTC compiles for one architecture; install the CUDA toolkit's nvcc for several")
        nvrtc = _load_nvrtc(self.library)
        program = ctypes.c_void_p()
        _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
        try:
            folders = [*map(str, include_folders()), *self.includes]
            options = [*OPTIONS, f"--gpu-architecture=sm_{architectures[0]}", "-default-device"]
            options += [f"-I{folder}" for folder in folders]
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if nvrtc.nvrtcCompileProgram(program, len(options), flags):
                log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
                raise BuildError(f"NVRTC: {first_error(log.decode(errors='replace'))}")
            return _read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        finally:
            nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def find_nvrtc() -> Nvrtc | None:
    """Find the NVRTC of the extra ``jetpack6``; return None if it is not installed."""
    try:
        major, minor = importlib.metadata.version(NVRTC_PACKAGES[0]).split(".")[:2]
        spec = importlib.util.find_spec("nvidia")
    except importlib.metadata.PackageNotFoundError:
        return None
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    libraries = [path for root in roots for path in root.glob("cuda_nvrtc/lib/libnvrtc.so.*")]
    includes = [str(path) for root in roots for path in sorted(root.glob("cuda_*/include"))]
    if not libraries or not includes:
        return None
    return Nvrtc(str(libraries[0]), tuple(includes), (int(major), int(minor)))


@functools.cache
def _load_nvrtc(path: str) -> ctypes.CDLL:
    """Load the library, or raise a `MissingDependencyError`."""
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise MissingDependencyError(
            f"{path} cannot be loaded ({error}): install the package nvidia-cuda-nvrtc-cu12 of the extra jetpack6 again"
        ) from error
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _check(nvrtc: ctypes.CDLL, code: int) -> None:
    """Raise a `BuildError` for an error code of NVRTC."""
    if code:
        raise BuildError(f"NVRTC: {nvrtc.nvrtcGetErrorString(code).decode()}")


def _read(size: ctypes._NamedFuncPointer, content: ctypes._NamedFuncPointer, program: ctypes.c_void_p) -> bytes:
    """Read a result of NVRTC by a pair of functions, one for the size and one for the content."""
    count = ctypes.c_size_t()
    size(program, ctypes.byref(count))
    data = ctypes.create_string_buffer(count.value)
    content(program, data)
    return data.raw


# ------------------------------------------------------------------------------------------------- what is inside


def architectures_inside(data: bytes) -> list[int]:
    """Return the architecture of each cubin in a file of any kind, in the order in which they lie there.

    NVIDIA does not document the format. A cubin is an ELF file for machine 190; files of CUDA 12.6 and 13.0 showed
    where the flags have the architecture.
    """
    architectures = []
    at = data.find(b"\x7fELF")
    while at >= 0:
        header = data[at : at + 64]
        if len(header) == 64 and struct.unpack_from("<H", header, 18)[0] == EM_CUDA:
            (flags,) = struct.unpack_from("<I", header, 48)
            architectures.append(flags >> 8 & 0xFF if header[8] >= NEWER_FLAGS else flags & 0xFF)
        at = data.find(b"\x7fELF", at + 4)
    return architectures


def check_inside(path: Path, architectures: Sequence[int], pieces: int) -> None:
    """Check that a library has machine code for each architecture.

    TVM silently puts source text into the library where its CUDA runtime is not loaded.

    Args:
        path: The library.
        architectures: Compute capabilities, 10 * major + minor.
        pieces: The number of modules of device code, each of which must be there for all architectures.

    Raises:
        BuildError: Machine code is missing.
    """
    inside = architectures_inside(path.read_bytes())
    for sm in architectures:
        if inside.count(sm) < pieces:
            raise BuildError(
                f"{path.name} has {inside.count(sm)} of {pieces} modules of machine code for sm_{sm} inside; reinstall "
                "TVM, of the extra `tvm`, and build again"
            )
