"""The TVM engine: runs a bundle's ``model.so`` on CPU or GPU in TVM's runtime, without its compiler or PyTorch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.reading import Bundle
from vmp_edge.engines import check_cpu
from vmp_edge.errors import BundleError, MissingDependencyError, VmpError
from vmp_edge.installation import install_command
from vmp_edge.machine import default_threads, usable_cpu_count

from ..programs import ProgramEngine
from . import cuda
from .library import CUDART, runtime_library

ALIGNMENT = 64  # in bytes: generated code loads whole vectors
POOLED_ALLOCATOR = 2  # tvm::runtime::memory::AllocatorType::kPooled
ALL_CORES = 0  # TVM's affinity mode that prefers no kind of core
CPU = 1  # DLPack's device type


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Keep tvm_ffi from importing PyTorch, which it does for tensors that we do not use and which takes 200 MB."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


@functools.cache
def _runtime() -> ModuleType:
    """Load TVM's runtime and return the module tvm_ffi.

    Raises:
        MissingDependencyError: tvm_ffi or the runtime is not installed, or cannot be loaded.
    """
    # Let the threads move between cores: on shared and on asymmetric machines, pinned threads wait for each other.
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    try:
        with _without_torch():
            import tvm_ffi
        ctypes.CDLL(str(runtime_library()), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"TVM's runtime cannot be loaded ({error}); run: {install_command('tvm')}"
        ) from error
    module: ModuleType = tvm_ffi
    return module


_pools = threading.local()
_WANTED_THREADS = os.environ.get("TVM_NUM_THREADS", "")  # the user's; `_use_threads` sets another


def _default_threads() -> int:
    """Return the number of threads that the user asks TVM for, or else that of all engines."""
    return int(_WANTED_THREADS) if _WANTED_THREADS.isdecimal() and int(_WANTED_THREADS) else default_threads()


def _use_threads(count: int) -> None:
    """Set the size of TVM's thread pool. Each calling thread has a pool of its own."""
    if getattr(_pools, "threads", None) == count:
        return
    if not hasattr(_pools, "threads"):  # TVM reads the pool's largest size when it makes the pool
        os.environ["TVM_NUM_THREADS"] = str(max(count, usable_cpu_count()))
    _runtime().get_global_func("runtime.config_threadpool")(ALL_CORES, count)
    _pools.threads = count


class _Program:
    """The program in a bundle's library, with memory for its inputs.

    Args:
        bundle: The bundle that has the program.
        name: Name of the library in the bundle.
        shapes: Shapes of the inputs: one for a clip, or that of a step's frames and those of the states.
        threads: Number of CPU threads.
        on_gpu: Whether the program, which has one input then, runs on the GPU.
    """

    def __init__(
        self, bundle: Bundle, name: str, shapes: Sequence[tuple[int, ...]], threads: int, on_gpu: bool
    ) -> None:
        ffi = _runtime()
        self._inputs, self._threads = [aligned(*shape) for shape in shapes], threads
        file = bundle.take(name, copy=True)
        try:
            # What `ffi.load_module` calls for a path that ends in .so, which the file's path does not.
            library = ffi.get_global_func("ffi.Module.load_from_file.so")(file.path, "so")
            self._machine: Any = library["vm_load_executable"]()
            gpu = (cuda.DEVICE, 0, POOLED_ALLOCATOR) if on_gpu else ()
            self._machine["vm_initialization"](*gpu, CPU, 0, POOLED_ALLOCATOR)  # sizes are always computed on the CPU
            self._main: Any = self._machine["main"]
            self._tensors: list[Any] = [ffi.from_dlpack(given) for given in self._inputs]
            self._transfer = _Transfer(ffi, self._tensors[0]) if on_gpu else None
        except Exception as error:  # the C++ side names the class: there is no common one
            reason = one_line(error).replace(f"{file.path}: ", "")
            raise BundleError(f"{bundle.path / name}: cannot be loaded ({reason}); build the bundle again") from error
        finally:
            file.close()

    def run(self, *inputs: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        _use_threads(self._threads)
        for memory, given in zip(self._inputs, inputs, strict=True):
            np.copyto(memory, given)
        try:
            result = self._transfer.run(self._main) if self._transfer else self._main(*self._tensors)
            results = [result] if len(inputs) == 1 else result  # a program with states gives several
            return [np.from_dlpack(tensor).copy() for tensor in results]
        except Exception as error:
            raise VmpError(f"TVM: {one_line(error)}") from error

    def close(self) -> None:
        self._machine = self._main = self._transfer = None
        self._tensors = []


class TvmEngine(ProgramEngine):
    """The engine of a bundle's ``model.so``, and of its ``embedding.so`` if it has one.

    Args:
        bundle: A bundle whose engine is ``tvm``.
        threads: Number of CPU threads; None takes `TVM_NUM_THREADS`, or else `default_threads`.

    Raises:
        BundleError: The library cannot be loaded, or needs a CPU or GPU that this machine does not have.
        MissingDependencyError: TVM's runtime or the GPU's driver is not installed.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        check_cpu(bundle)
        _runtime()  # the GPU's libraries need it to be loaded first
        if bundle.manifest.gpu:
            _use_gpu(bundle)
        tubelet, side = bundle.manifest.tubelet, bundle.manifest.image_size
        states = tuple(bundle.manifest.states.values())
        steps = 1 if states else bundle.manifest.frames // tubelet
        common = threads or _default_threads(), bool(bundle.manifest.gpu)
        name = bundle.manifest.program
        if bundle.manifest.embedding is None:
            shapes = ((steps, 3 * tubelet, side, side), *states)
            super().__init__(bundle, _Program(bundle, name, shapes, *common), None)
            return
        embedding = _Program(bundle, bundle.manifest.embedding, [(1, 3, side, side)], *common)
        program = _Program(bundle, name, [(steps, *bundle.manifest.frame_tokens)], *common)
        super().__init__(bundle, program, embedding)


def _use_gpu(bundle: Bundle) -> None:
    """Check that the GPU and its driver fit the bundle, and load the bundle's CUDA runtime and TVM's.

    Raises:
        BundleError: The bundle does not list its CUDA runtime, has no machine code for this GPU, or is of a newer CUDA
            than the driver.
        MissingDependencyError: The machine has no GPU, no driver, or no CUDA runtime of TVM.
    """
    with bundle.take(CUDART, copy=True) as cudart:
        _check_gpu(bundle)
        cuda.load_runtime(cudart.path)


def _check_gpu(bundle: Bundle) -> None:
    gpu = cuda.find_gpu()
    architectures = tuple(bundle.manifest.gpu["architectures"])
    codes = ", ".join(f"sm_{sm}" for sm in architectures)
    if not gpu.runs(architectures):
        raise BundleError(
            f"{bundle.path} has machine code for {codes}, and {gpu.name} is sm_{gpu.architecture}: build it for "
            "another target (vmp-edge targets lists them)"
        )
    compiled = str(bundle.manifest.gpu["cuda"])
    if gpu.driver[0] < int(compiled.partition(".")[0]):
        version = ".".join(map(str, gpu.driver))
        raise BundleError(
            f"{bundle.path} is of CUDA {compiled}, and this driver's is {version}: update the driver, or build with "
            "--jetpack 6 or an older nvcc"
        )


class _Transfer:
    """Copies the program's input to the GPU and its result back.

    Args:
        ffi: The module tvm_ffi.
        source: The input on the CPU; each run reads the same memory.
    """

    def __init__(self, ffi: ModuleType, source: Any) -> None:
        self._allocate = ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        self._copy = ffi.get_global_func("runtime.TVMTensorCopyFromTo")
        self._ffi, self._source = ffi, source
        self._input = self._allocate(source.shape, source.dtype, ffi.device("cuda", 0), None)

    def run(self, main: Any) -> Any:
        """Run the program `main` on the GPU and return its result in CPU memory."""
        self._copy(self._source, self._input)
        gpu_result = main(self._input)
        result = self._allocate(gpu_result.shape, gpu_result.dtype, self._ffi.device("cpu", 0), None)
        self._copy(gpu_result, result)  # waits for the GPU
        return result


def aligned(*shape: int) -> npt.NDArray[np.float32]:
    """Return an uninitialised float32 array at an address that is a multiple of `ALIGNMENT`, as TVM requires."""
    size = int(np.prod(shape)) * 4
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def one_line(error: Exception) -> str:
    """Return the last line of an error's text. TVM puts a C++ stack trace before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
