"""The ExecuTorch engine: a bundle's program through the plain C runner, without PyTorch."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle import Bundle
from vmp_edge.errors import BundleError, UsageError, VmpError
from vmp_edge.runtimes.executorch.library import LIBRARY, executorch_folder
from vmp_edge.runtimes.folding import embed_all, fold

ABI = 2
ERROR_SIZE = 512
SHARED_LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_backend_xnnpack.so",
)
FLOATS = ctypes.POINTER(ctypes.c_float)


class _Library:
    """The one copy of libvmp_executorch.so in this process: a second one would register its operators again."""

    loaded: _Library | None = None

    def __init__(self, path: Path, threads: int) -> None:
        folder = executorch_folder() / "lib"
        try:
            for name in SHARED_LIBRARIES:
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
            self.c: Any = ctypes.CDLL(str(path))
        except OSError as error:
            raise BundleError(f"{path}: cannot be loaded on this machine ({error}); build the bundle again") from error
        if self.c.vmp_program_abi() != ABI:
            raise BundleError(f"{path}: belongs to another version of vmp-edge; build the bundle again")
        self.c.vmp_program_create.restype = ctypes.c_void_p
        self.c.vmp_program_create.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int64]
        self.c.vmp_program_destroy.argtypes = [ctypes.c_void_p]
        self.c.vmp_program_run.argtypes = [
            ctypes.c_void_p,
            FLOATS,
            ctypes.POINTER(ctypes.c_int32),
            ctypes.c_int32,
            FLOATS,
            ctypes.c_int64,
            ctypes.c_char_p,
            ctypes.c_int64,
        ]
        if self.c.vmp_program_set_threads(threads):
            raise UsageError(f"ExecuTorch cannot use {threads} threads")
        self.threads = threads

    @classmethod
    def get(cls, path: Path, threads: int | None) -> _Library:
        """The process's library, loaded now if it is the first."""
        if cls.loaded is None:
            cls.loaded = cls(path, threads or len(os.sched_getaffinity(0)))
        elif threads is not None and threads != cls.loaded.threads:
            raise UsageError(
                f"ExecuTorch runs on {cls.loaded.threads} threads in this process and cannot change to {threads}; "
                "use one number for all bundles of a process"
            )
        return cls.loaded


class _Program:
    """A ``.pte`` program that takes one tensor and gives one."""

    def __init__(self, library: _Library, path: Path) -> None:
        self._library = library
        self._error = ctypes.create_string_buffer(ERROR_SIZE)
        self._handle = library.c.vmp_program_create(os.fsencode(path), 0, self._error, ERROR_SIZE)
        if not self._handle:
            raise BundleError(f"{path}: {self._reason()}")

    def execute(self, inputs: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """As `ExecuTorchEngine.execute`."""
        output = np.empty(count, np.float32)
        failed = self._library.c.vmp_program_run(
            self._handle,
            inputs.ctypes.data_as(FLOATS),
            (ctypes.c_int32 * inputs.ndim)(*inputs.shape),
            inputs.ndim,
            output.ctypes.data_as(FLOATS),
            count,
            self._error,
            ERROR_SIZE,
        )
        if failed:
            raise VmpError(f"ExecuTorch: {self._reason()}")
        return output

    def close(self) -> None:
        if self._handle:
            self._library.c.vmp_program_destroy(self._handle)
            self._handle = None

    def _reason(self) -> str:
        return self._error.value.decode(errors="replace")


class ExecuTorchEngine:
    """Runs a bundle's ``.pte`` program, or two where the embedding is one of its own.

    Args:
        bundle: a bundle whose engine is ``executorch``.
        threads: CPU threads, the same for every program of a process; None for all cores, or what it has already.

    Raises:
        BundleError: the program or its library cannot be loaded.
        MissingDependencyError: executorch is not installed.
        UsageError: this process runs ExecuTorch on another number of threads already.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._outputs = bundle.manifest.outputs
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        library = _Library.get(bundle.path / LIBRARY, threads)
        self._program = _Program(library, bundle.path / bundle.manifest.program)
        self._embedding: _Program | None = None
        if bundle.embedding is not None:
            tokens, channels = bundle.manifest.frame_tokens
            self._shares = tokens, self._tubelet, channels
            self._embedding = _Program(library, bundle.embedding)

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits of a batch of clips.

        Args:
            video: float32 (B, 3, T, H, W), normalised. Frames that lie frame by frame in memory, as the frame ring
                writes them, are read in place.

        Returns:
            float32 (B, classes).

        Raises:
            VmpError: the program failed.
        """
        inputs = fold(video, self._tubelet) if self._embedding is None else embed_all(video, self._tubelet, self.embed)
        return self.run_tokens(inputs)

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `vmp_edge.engines.FrameEngine`."""
        assert self._embedding is not None
        return self._embedding.execute(frame[None], math.prod(self._shares)).reshape(self._shares)

    def run_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `vmp_edge.engines.FrameEngine`."""
        return np.stack([self.execute(one, self._outputs) for one in tokens])

    def execute(self, inputs: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Run the program on its one input, as it takes it.

        Args:
            inputs: float32, C-contiguous, of the program's shape.
            count: how many numbers the program gives.

        Returns:
            float32 (count,).

        Raises:
            VmpError: the program failed.
        """
        return self._program.execute(inputs, count)

    def close(self) -> None:
        """Free the programs; `run` must not be called afterwards."""
        self._program.close()
        if self._embedding is not None:
            self._embedding.close()
