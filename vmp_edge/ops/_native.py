"""The native CPU library for ctypes: its structs, its functions, and where its file is. Imports no tensor library."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path

from .._checkout import checkout
from ..errors import MissingDependencyError, UsageError
from ..installation import PACKAGE, install_command

ABI = 4
MAX_TAPS = 16
_FILE = "libvmp_ops.so"


class View(Structure):
    """The structs vmp_input and vmp_output of vmp_ops.h, which have the same fields."""

    _fields_ = [("data", c_void_p), ("batch_stride", c_int64), ("row_stride", c_int64)]


class Threads(Structure):
    """The struct vmp_threads of vmp_ops.h."""

    _fields_ = [("num_threads", c_int32), ("parallel_for", c_void_p), ("pool", c_void_p)]


class OpenMP(Structure):
    """The struct vmp_openmp of vmp_ops.h."""

    _fields_ = [("parallel", c_void_p), ("num_threads", c_uint32)]


class Scan(Structure):
    """The struct vmp_scan of vmp_ops.h."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "length", "channels", "states")),
        *((name, View) for name in ("x", "dt", "B", "C", "z")),
        *((name, c_void_p) for name in ("A", "A_b", "D", "dt_bias")),
        *((name, c_int32) for name in ("reverse", "first_input", "mask")),
        *((name, c_void_p) for name in ("state", "last_state")),
    ]


class ScanGrads(Structure):
    """The struct vmp_scan_grads of vmp_ops.h."""

    _fields_ = [
        *((name, View) for name in ("x", "dt", "z")),
        *((name, c_void_p) for name in ("B", "C", "A", "A_b", "D", "dt_bias", "state", "grad_last_state")),
    ]


class Conv(Structure):
    """The struct vmp_conv of vmp_ops.h."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "length", "channels", "taps")),
        ("x", View),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("reverse", c_int32),
        ("state", c_void_p),
        ("last_state", c_void_p),
    ]


class ConvGrads(Structure):
    """The struct vmp_conv_grads of vmp_ops.h."""

    _fields_ = [("x", View), *((name, c_void_p) for name in ("weight", "bias", "state", "grad_last_state"))]


_SIGNATURES = {
    "vmp_selective_scan": (POINTER(Scan), View, POINTER(Threads)),
    "vmp_bi_selective_scan": (POINTER(Scan), View, POINTER(Threads)),
    "vmp_causal_conv_silu": (POINTER(Conv), View, POINTER(Threads)),
    "vmp_selective_scan_backward": (POINTER(Scan), View, POINTER(ScanGrads), POINTER(Threads)),
    "vmp_bi_selective_scan_backward": (POINTER(Scan), View, POINTER(ScanGrads), POINTER(Threads)),
    "vmp_causal_conv_silu_backward": (POINTER(Conv), View, POINTER(ConvGrads), POINTER(Threads)),
    "vmp_exp": (c_void_p, c_void_p, c_int64),
    "vmp_decay": (c_void_p, c_float, c_void_p, c_int64),
    "vmp_softplus": (c_void_p, c_void_p, c_int64),
    "vmp_silu": (c_void_p, c_void_p, c_int64),
    "vmp_ops_set_isa": (c_char_p,),
}


def library_path() -> Path:
    """Return the native library's file: ``$VMP_OPS_LIBRARY`` if that is set, otherwise next to the installed package.

    A checkout that is not installed has no such file: it is built, once.

    Raises:
        MissingDependencyError: There is no such file, or a tool to build it is missing.
        BuildError: The file cannot be built.
    """
    candidates = _candidates()
    for path in candidates:
        if path.is_file():
            return path
    if "VMP_OPS_LIBRARY" not in os.environ and checkout(PACKAGE) is not None:
        from vmp_edge.runtimes.native.library import build_library

        return build_library()
    places = ", ".join(map(str, candidates))
    raise MissingDependencyError(f"the native scan library is not at {places}; build it with: {install_command()}")


def _candidates() -> list[Path]:
    if override := os.environ.get("VMP_OPS_LIBRARY"):
        return [Path(override)]
    package = importlib.import_module("vmp_edge.runtimes.native")
    return [Path(folder) / _FILE for folder in package.__path__]


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library and declare the types of its functions.

    Raises:
        MissingDependencyError: The library is absent, not for this machine, or of another version.
    """
    path = library_path()
    rebuild = f"rebuild it with: {install_command()}"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingDependencyError(f"the native scan library {path} cannot be loaded ({error}); {rebuild}") from error
    if library.vmp_ops_abi() != ABI:
        raise MissingDependencyError(f"{path} is of version {library.vmp_ops_abi()}, not {ABI}; {rebuild}")
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int
    for name, argument in (("vmp_ops_error", c_int), ("vmp_ops_isa_at", c_int)):
        function = getattr(library, name)
        function.argtypes = (argument,)
        function.restype = c_char_p
    library.vmp_ops_isa.restype = c_char_p
    return library


def threads(count: int, gomp_parallel: int | None) -> Threads:
    """Describe the threads that a call may use.

    Args:
        count: The number of threads.
        gomp_parallel: Address of the GOMP_parallel of an OpenMP runtime to use; None for the library's own pool.
    """
    if gomp_parallel is None or count == 1:
        return Threads(count)
    team = OpenMP(gomp_parallel, count)
    struct = Threads(count, ctypes.cast(load().vmp_parallel_for_openmp, c_void_p), ctypes.addressof(team))
    struct.team = team  # keeps the team alive as long as the struct that points to it
    return struct


def check(code: int) -> None:
    """Turn a status code of the library into an exception.

    Raises:
        UsageError: ``VMP_OPS_ISA`` names an instruction set that this machine or build does not have.
        MemoryError: There is not enough memory for the kernel's scratch space.
        RuntimeError: Anything else. Callers check their arguments first, so this is a bug.
    """
    if code == 0:
        return
    text = load().vmp_ops_error(code).decode()
    if code == 2:
        raise MemoryError(text)
    if code == 3:
        raise UsageError(f"{text}; usable here: {', '.join(isas())}")
    raise RuntimeError(text)


def isas() -> list[str]:
    """Return the instruction sets that are usable on this machine, best first."""
    library = load()
    names: list[str] = []
    while name := library.vmp_ops_isa_at(len(names)):
        names.append(name.decode())
    return names


def isa() -> str:
    """Return the instruction set in use.

    Raises:
        UsageError: ``VMP_OPS_ISA`` names an instruction set that cannot be used.
    """
    name = load().vmp_ops_isa()
    if name is None:
        check(3)
    return str(name.decode())


def set_isa(name: str | None) -> None:
    """Use an instruction set for the whole process; None goes back to the default.

    Raises:
        UsageError: The instruction set is unknown or cannot be used here.
    """
    if load().vmp_ops_set_isa(None if name is None else name.encode()):
        raise UsageError(f"instruction set {name!r} cannot be used; usable here: {', '.join(isas())}")
