"""Engines that run bundles of TVM and ExecuTorch by the C++ runner, under an emulator where the target needs one."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import VmpError
from vmp_edge.machine import host_machine
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library, executorch_folder
from vmp_edge.runtimes.executorch.library import build_runner as build_executorch_runner
from vmp_edge.runtimes.folding import add_up, fold
from vmp_edge.runtimes.tvm.library import CUDART, build_cuda_driver, build_runner, package_folder

from ..cross import TOOLCHAINS, cmake_toolchain, cross_compiler, executorch_library, executorch_sdk, tvm_runtime
from .cuda import compile_kernels
from .qemu import launcher, require_emulator

CPU = "cortex-a76"  # for XNNPACK: qemu's own choice can have SME, with which int8 results are wrong (ExecuTorch 1.5.1)


class RunnerEngine:
    """An engine that runs a bundle's program by the C++ runner, in a new process for each call.

    Args:
        bundle: The bundle.
        emulator: The name of the emulator, for people.
        command: The runner with its first arguments: the device and the libraries.
        environment: The environment of the process.
    """

    def __init__(self, bundle: Bundle, emulator: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.emulator = emulator
        self._bundle = bundle
        self._command, self._environment = list(command), environment
        self._tubelet = bundle.manifest.tubelet
        self._outputs = bundle.manifest.outputs

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the logits (B, classes) of a video, float32 (B, 3, T, S, S).

        Raises:
            VmpError: The program failed; the text has its last line.
        """
        inputs = fold(video, self._tubelet)
        if self._bundle.embedding is not None:
            inputs = self._embed(self._bundle.embedding, video)
        return self._execute(self._bundle.program, inputs, self._outputs)

    def _embed(self, program: Path, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the tokens (B, T / tubelet, P, C) by one call of the embedding for all frames."""
        count, channels = self._bundle.manifest.frame_tokens
        frames = fold(video, 1)
        batch, steps, *frame = frames.shape
        shares = self._execute(program, frames.reshape(-1, 1, *frame), count * self._tubelet * channels)
        return add_up(shares.reshape(batch, steps, count, self._tubelet, channels), self._tubelet)

    def _execute(self, program: Path, inputs: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """Run a program on inputs (B, ...) and return its outputs (B, count)."""
        with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
            source, result = Path(folder) / "in", Path(folder) / "out"
            inputs.tofile(source)
            command = [*self._command, str(program), str(source), str(result), str(count), *map(str, inputs.shape[1:])]
            process = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
            if process.returncode:
                reason = (process.stderr.splitlines() or [f"exit code {process.returncode}"])[-1]
                raise VmpError(f"{self.emulator}: {reason}")
            return np.fromfile(result, np.float32).reshape(len(inputs), count)

    def close(self) -> None:
        """Release nothing: each call of `run` has its own process."""


class EmulatedTvm(RunnerEngine):
    """An engine that runs a TVM bundle's ``model.so`` for another machine or for a GPU.

    Args:
        bundle: A bundle whose engine is ``tvm``.
        kernels: The CUDA C++ sources of its GPU code, which is run on the CPU instead.

    Raises:
        MissingDependencyError: The emulator, the compiler or TVM's runtime for that machine cannot be had.
        BuildError: The runner, or the kernels, cannot be built.
    """

    def __init__(self, bundle: Bundle, kernels: Sequence[str] = ()) -> None:
        machine = bundle.manifest.machine
        foreign = machine != host_machine()
        if foreign:
            require_emulator(machine)
        names = ["an emulated GPU"] if kernels else []
        emulator = ", ".join([*names, *([f"qemu-{machine}"] if foreign else [])])
        compiler = cross_compiler(machine)
        toolchain = TOOLCHAINS[machine] if foreign else None
        libraries = tvm_runtime(machine) if foreign else None
        runner = build_runner(toolchain, libraries)
        tvm_folder = libraries or package_folder("tvm") / "lib"
        search = [tvm_folder, libraries or package_folder("tvm_ffi") / "lib"]
        needed = [tvm_folder / "libtvm_runtime.so"]
        environment = {}
        if kernels:
            self._folder = tempfile.TemporaryDirectory(prefix="vmp-edge-")
            environment["VMP_CUDA_KERNELS"] = str(compile_kernels(kernels, compiler, Path(self._folder.name)))
            search.append(build_cuda_driver(toolchain).parent)
            needed += [bundle.path / CUDART, tvm_folder / "libtvm_runtime_cuda.so"]
        command, environment = launcher(machine if foreign else None, compiler, search, environment)
        command += [str(runner), "cuda" if kernels else "cpu", ":".join(map(str, needed))]
        super().__init__(bundle, emulator, command, environment)


class EmulatedExecuTorch(RunnerEngine):
    """An engine that runs a CPU bundle's ``model.pte`` on the Linux of another machine, or on this one in its place.

    Args:
        bundle: The bundle. If it has a library of its own, that one is used.
        machine: The processor of the Linux.

    Raises:
        MissingDependencyError: The emulator, the compiler or ExecuTorch for that machine cannot be had.
        BuildError: The runner, or the library, cannot be built.
    """

    def __init__(self, bundle: Bundle, machine: str) -> None:
        foreign = machine != host_machine()
        if foreign:
            require_emulator(machine)
        compiler = cross_compiler(machine)
        sdk = executorch_sdk(machine) if foreign else executorch_folder()
        runner = build_executorch_runner(cmake_toolchain(machine), sdk)
        library = bundle.path / LIBRARY
        if not library.is_file():
            library = executorch_library(machine) if foreign else build_library()
        search = [library.parent, sdk / "lib"]
        command, environment = launcher(machine if foreign else None, compiler, search, {}, CPU)
        emulator = f"qemu-{machine}, {CPU}" if foreign else f"{machine} Linux"
        super().__init__(bundle, emulator, [*command, str(runner), "cpu", ""], environment)
