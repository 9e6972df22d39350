"""The ExecuTorch engine: runs a bundle's program by a plain C interface, without PyTorch."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.opened import OpenedFile
from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, UsageError, VmpError
from vmp_edge.machine import default_threads

from ..programs import ProgramEngine
from .library import LIBRARY, executorch_folder

ABI = 3
ERROR_SIZE = 512
SHARED_LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_backend_xnnpack.so",
)
FLOATS = ctypes.POINTER(ctypes.c_float)


class _Input(ctypes.Structure):
    """``vmp_program_input``."""

    _fields_ = (("data", FLOATS), ("sizes", ctypes.POINTER(ctypes.c_int32)), ("dims", ctypes.c_int32))

    @classmethod
    def of(cls, array: npt.NDArray[np.float32]) -> _Input:
        """Describe an array, whose memory and sizes must stay valid as long as this is in use."""
        return cls(array.ctypes.data_as(FLOATS), (ctypes.c_int32 * array.ndim)(*array.shape), array.ndim)


class _Output(ctypes.Structure):
    """``vmp_program_output``."""

    _fields_ = (("data", FLOATS), ("count", ctypes.c_int64))

    @classmethod
    def of(cls, array: npt.NDArray[np.float32]) -> _Output:
        """Describe an array, whose memory must stay valid as long as this is in use."""
        return cls(array.ctypes.data_as(FLOATS), array.size)


class _Library:
    """The only copy of libvmp_executorch.so in this process. A second copy would register the operators again."""

    loaded: _Library | None = None

    def __init__(self, file: OpenedFile, path: Path, threads: int) -> None:
        folder = executorch_folder() / "lib"
        try:
            for name in SHARED_LIBRARIES:
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            self.c: Any = ctypes.CDLL(file.path)
        except OSError as error:
            reason = str(error).removeprefix(f"{file.path}: ")
            raise BundleError(f"{path}: cannot be loaded on this machine ({reason}); build the bundle again") from error
        if self.c.vmp_program_abi() != ABI:
            raise BundleError(f"{path}: belongs to another version of vmp-edge; build the bundle again")
        self.c.vmp_program_create.restype = ctypes.c_void_p
        self.c.vmp_program_create.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int64]
        self.c.vmp_program_destroy.argtypes = [ctypes.c_void_p]
        self.c.vmp_program_run.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(_Input),
            ctypes.c_int32,
            ctypes.POINTER(_Output),
            ctypes.c_int32,
            ctypes.c_char_p,
            ctypes.c_int64,
        ]
        if self.c.vmp_program_set_threads(threads):
            raise UsageError(f"ExecuTorch cannot use {threads} threads")
        self.threads = threads

    @classmethod
    def get(cls, bundle: Bundle, threads: int | None) -> _Library:
        """Return the library of this process. At the first call, load the bundle's.

        Raises:
            BundleError: The bundle does not list the library, or it cannot be loaded.
            MissingDependencyError: executorch is not installed.
            UsageError: This process runs ExecuTorch on another number of threads already.
        """
        with bundle.take(LIBRARY, copy=True) as file:
            if cls.loaded is None:
                cls.loaded = cls(file, bundle.path / LIBRARY, threads or default_threads())
        if threads is not None and threads != cls.loaded.threads:
            raise UsageError(
                f"ExecuTorch runs on {cls.loaded.threads} threads in this process and cannot change to {threads}; "
                "use one number for all bundles of a process"
            )
        return cls.loaded


class _Program:
    """A ``.pte`` program.

    Args:
        library: The library that has the program's operators.
        bundle: The bundle that has the program.
        name: Name of the ``.pte`` file in the bundle.
        outputs: Number of elements of each result.
    """

    def __init__(self, library: _Library, bundle: Bundle, name: str, *outputs: int) -> None:
        self._library, self._outputs = library, outputs
        self._error = ctypes.create_string_buffer(ERROR_SIZE)
        with bundle.take(name) as file:  # the program maps the file into memory, which outlives the descriptor
            self._handle = library.c.vmp_program_create(file.path.encode(), 0, self._error, ERROR_SIZE)
        if not self._handle:
            raise BundleError(f"{bundle.path / name}: {self._reason()}")

    def run(self, *inputs: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        outputs = [np.empty((1, count), np.float32) for count in self._outputs]
        failed = self._library.c.vmp_program_run(
            self._handle,
            (_Input * len(inputs))(*map(_Input.of, inputs)),
            len(inputs),
            (_Output * len(outputs))(*map(_Output.of, outputs)),
            len(outputs),
            self._error,
            ERROR_SIZE,
        )
        if failed:
            raise VmpError(f"ExecuTorch: {self._reason()}")
        return outputs

    def close(self) -> None:
        if self._handle:
            self._library.c.vmp_program_destroy(self._handle)
            self._handle = None

    def _reason(self) -> str:
        return self._error.value.decode(errors="replace")


class ExecuTorchEngine(ProgramEngine):
    """The engine of a bundle's ``.pte`` program, or of two if the embedding is a program of its own.

    Args:
        bundle: A bundle whose engine is ``executorch``.
        threads: Number of CPU threads, the same for every program of a process. None takes the number that the
            process uses already, or else `default_threads`.

    Raises:
        BundleError: The program or its library cannot be loaded.
        MissingDependencyError: executorch is not installed.
        UsageError: This process runs ExecuTorch on another number of threads already.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        library, manifest = _Library.get(bundle, threads), bundle.manifest
        embedding: _Program | None = None
        if manifest.embedding is not None:
            tokens, channels = manifest.frame_tokens
            shares = tokens * channels * manifest.tubelet
            embedding = _Program(library, bundle, manifest.embedding, shares)
        states = [math.prod(shape) for shape in manifest.states.values()]
        program = _Program(library, bundle, manifest.program, manifest.outputs, *states)
        super().__init__(bundle, program, embedding)
