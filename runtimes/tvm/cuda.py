"""Load TVM's CUDA runtime into this process, and describe the machine's GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from vmp_edge.errors import MissingDependencyError

from .library import cuda_library

DRIVER = "libcuda.so.1"
_loaded = False  # whether `load_runtime` has succeeded in this process
DEVICE = 2  # DLPack's device type of CUDA
_MAJOR, _MINOR, _PROCESSORS = 75, 76, 16  # CUdevice_attribute


@dataclass(frozen=True)
class Gpu:
    """The first GPU of this machine.

    Attributes:
        name: NVIDIA's name of the GPU.
        architecture: Compute capability, 10 * major + minor.
        processors: Number of streaming multiprocessors.
        driver: CUDA version that the driver supports, (major, minor).
    """

    name: str
    architecture: int
    processors: int
    driver: tuple[int, int]

    def runs(self, architectures: tuple[int, ...]) -> bool:
        """Return whether the GPU runs code for one of the architectures: one of its major version, and not newer."""
        return any(sm // 10 == self.architecture // 10 and sm <= self.architecture for sm in architectures)


def load_driver() -> ctypes.CDLL:
    """Load NVIDIA's driver library.

    Raises:
        MissingDependencyError: The driver is not installed.
    """
    try:
        return ctypes.CDLL(DRIVER, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingDependencyError(
            f"no NVIDIA driver ({DRIVER} cannot be loaded): install it; on Jetson, JetPack brings it"
        ) from error


def find_gpu() -> Gpu:
    """Describe the first GPU of this machine.

    Raises:
        MissingDependencyError: The machine has no GPU or no driver.
    """
    driver = load_driver()
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise MissingDependencyError("the NVIDIA driver finds no GPU: nvidia-smi says why (tegrastats on Jetson)")
    driver.cuDriverGetVersion(ctypes.byref(version))
    name = ctypes.create_string_buffer(128)
    driver.cuDeviceGetName(name, len(name), 0)
    value = ctypes.c_int()

    def attribute(which: int) -> int:
        driver.cuDeviceGetAttribute(ctypes.byref(value), which, 0)
        return value.value

    return Gpu(
        name.value.decode(errors="replace"),
        10 * attribute(_MAJOR) + attribute(_MINOR),
        attribute(_PROCESSORS),
        (version.value // 1000, version.value % 1000 // 10),
    )


def load_runtime(cudart: str) -> None:
    """Load TVM's CUDA runtime, and first the CUDA runtime library that it depends on. Once for a process is enough.

    Args:
        cudart: Path of a ``libcudart.so.13``, a bundle's or one that was just built. If the process has loaded another
            library of that name, such as PyTorch's or another bundle's, TVM uses the other one.

    Raises:
        MissingDependencyError: A library or the driver cannot be loaded.
    """
    global _loaded
    if _loaded:
        return
    load_driver()
    try:
        for library in (cudart, str(cuda_library())):
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingDependencyError(f"TVM's CUDA runtime cannot be loaded ({error}); reinstall apache-tvm") from error
    _loaded = True
