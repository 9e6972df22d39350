"""The CUDA library for ctypes: its structs, its functions, and where its file is. Imports no tensor library."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from ctypes import POINTER, Structure, c_char_p, c_int, c_int32, c_int64, c_void_p
from pathlib import Path

from ..errors import MissingDependencyError
from ..installation import install_command
from ._native import View

ABI = 3
MAX_STATES = 64
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
_FILE = "libvmp_cuda.so"


class Scan(Structure):
    """The struct vmp_cuda_scan of vmp_cuda.h."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "length", "channels", "states")),
        *((name, View) for name in ("x", "dt", "B", "C", "z")),
        *((name, c_void_p) for name in ("A", "A_b", "D", "dt_bias")),
        *((name, c_int32) for name in ("dtype", "reverse", "first_input", "mask")),
        *((name, c_void_p) for name in ("state", "last_state")),
    ]


class Conv(Structure):
    """The struct vmp_cuda_conv of vmp_cuda.h."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "length", "channels", "taps")),
        ("x", View),
        *((name, c_void_p) for name in ("weight", "bias")),
        *((name, c_int32) for name in ("dtype", "reverse")),
        *((name, c_void_p) for name in ("state", "last_state")),
    ]


_SIGNATURES = {
    "vmp_cuda_supported": (),
    "vmp_cuda_scan_workspace": (POINTER(Scan), POINTER(c_int64)),
    "vmp_cuda_selective_scan": (POINTER(Scan), View, c_void_p, c_int64, c_void_p),
    "vmp_cuda_causal_conv_silu": (POINTER(Conv), View, c_void_p),
}


def library_path() -> Path | None:
    """Return the CUDA library's file, or None if it was not built.

    The file is ``$VMP_CUDA_LIBRARY`` if that is set, otherwise next to the installed package.
    """
    override = os.environ.get("VMP_CUDA_LIBRARY")
    folders = importlib.import_module("vmp_edge.runtimes.native").__path__
    candidates = [Path(override)] if override else [Path(folder) / _FILE for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


def open_library(path: Path) -> ctypes.CDLL:
    """Load a library with the interface of vmp_cuda.h and declare the types of its functions.

    Raises:
        MissingDependencyError: The library cannot be loaded, or is of another version.
    """
    rebuild = f"rebuild it with: {install_command()}"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingDependencyError(f"the CUDA library {path} cannot be loaded ({error}); {rebuild}") from error
    if library.vmp_cuda_abi() != ABI:
        raise MissingDependencyError(f"{path} is of version {library.vmp_cuda_abi()}, not {ABI}; {rebuild}")
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int
    library.vmp_cuda_error.argtypes = (c_int,)
    library.vmp_cuda_error.restype = c_char_p
    return library


@functools.cache
def load() -> ctypes.CDLL | None:
    """Load the CUDA library of the installed package, or return None if it was not built.

    Raises:
        MissingDependencyError: The library is there but cannot be loaded, or is of another version.
    """
    path = library_path()
    return None if path is None else open_library(path)


def check(library: ctypes.CDLL, code: int) -> None:
    """Turn a status code of the library into an exception.

    Raises:
        RuntimeError: The code is not success. Callers check their arguments first, so this is a bug or a fault of the
            device.
    """
    if code:
        raise RuntimeError(f"a CUDA kernel failed: {library.vmp_cuda_error(code).decode()}")


def workspace_bytes(library: ctypes.CDLL, scan: Scan) -> int:
    """Return how many bytes of device memory the scan needs besides its inputs and output."""
    count = c_int64()
    check(library, library.vmp_cuda_scan_workspace(scan, count))
    return count.value
