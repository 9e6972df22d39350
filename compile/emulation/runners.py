"""Running a bundle of another processor, or of a GPU that is not here, to compare it with the source model."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import MissingDependencyError, VmpError
from vmp_edge.machine import host_machine
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library, executorch_folder
from vmp_edge.runtimes.executorch.library import build_runner as build_executorch_runner
from vmp_edge.runtimes.folding import add_up, fold
from vmp_edge.runtimes.tvm.library import CUDART, build_cuda_driver, build_runner, package_folder

from ..cross import TOOLCHAINS, cmake_toolchain, cross_compiler, executorch_library, executorch_sdk, from_wheels
from .cuda import compile_kernels

WHEELS = {
    "apache-tvm": ("tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_cuda.so"),
    "apache-tvm-ffi": ("tvm_ffi/lib/libtvm_ffi.so",),
}
CPU = "cortex-a76"  # for XNNPACK: qemu's own choice can have SME, with which int8 results are wrong (ExecuTorch 1.5.1)


class RunnerEngine:
    """Runs a bundle's program by the C++ runner, in a process of its own for each call.

    Args:
        bundle: the bundle.
        emulator: what it runs under, for people.
        command: the runner with its first arguments, the device and the libraries.
        environment: of the process.
    """

    def __init__(self, bundle: Bundle, emulator: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.emulator = emulator
        self._bundle = bundle
        self._command, self._environment = list(command), environment
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        self._outputs = bundle.manifest.outputs

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (B, classes) of float32 (B, 3, T, S, S).

        Raises:
            VmpError: the program failed; the text is its last line.
        """
        inputs = fold(video, self._tubelet)
        if self._bundle.embedding is not None:
            inputs = self._embedded(self._bundle.embedding, video)
        return self._execute(self._bundle.program, inputs, self._outputs)

    def _embedded(self, program: Path, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The tokens (B, T / tubelet, P, C), of one call for all frames."""
        count, channels = self._bundle.manifest.frame_tokens
        frames = fold(video, 1)
        batch, steps, *frame = frames.shape
        shares = self._execute(program, frames.reshape(-1, 1, *frame), count * self._tubelet * channels)
        return add_up(shares.reshape(batch, steps, count, self._tubelet, channels), self._tubelet)

    def _execute(self, program: Path, inputs: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
        """What a program gives (B, count) of inputs (B, ...)."""
        with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
            source, result = Path(folder) / "in", Path(folder) / "out"
            inputs.tofile(source)
            command = [*self._command, str(program), str(source), str(result), str(count), *map(str, inputs.shape[1:])]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
            if done.returncode:
                reason = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
                raise VmpError(f"{self.emulator}: {reason}")
            return np.fromfile(result, np.float32).reshape(len(inputs), count)

    def close(self) -> None:
        """Nothing is held between calls."""


class EmulatedEngine(RunnerEngine):
    """Runs a TVM bundle's ``model.so``.

    Args:
        bundle: a bundle whose engine is ``tvm``, for another machine or for a GPU.
        kernels: CUDA C++ of its GPU code, which is run on the CPU instead.

    Raises:
        MissingDependencyError: the emulator, the compiler or TVM's runtime for that machine cannot be had.
        BuildError: the runner, or the kernels, cannot be built.
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
        libraries = runtime_libraries(machine) if foreign else None
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
    """Runs a CPU bundle's ``model.pte`` on Linux of a machine that is not here, or of one like the target.

    Args:
        bundle: the bundle; its own library is used, if it has one.
        machine: whose Linux.

    Raises:
        MissingDependencyError: the emulator, the compiler or ExecuTorch for that machine cannot be had.
        BuildError: the runner, or the library, cannot be built.
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


def require_emulator(machine: str) -> None:
    """Whether there is one for another machine.

    Raises:
        MissingDependencyError: there is none.
    """
    if machine not in TOOLCHAINS or shutil.which(f"qemu-{machine}") is None:
        raise MissingDependencyError(f"running it needs qemu-{machine} (Debian: apt install qemu-user)")


def launcher(
    machine: str | None, compiler: str, search: list[Path], environment: Mapping[str, str], cpu: str | None = None
) -> tuple[list[str], dict[str, str]]:
    """What a program is started by, with its libraries' folders, and the environment that it is started in.

    Args:
        machine: that is emulated; None where it is this one.
        compiler: of that machine; its C library is beside it.
        search: folders of shared libraries.
        environment: that the program sees besides.
        cpu: that is emulated; None takes all that the emulator has.
    """
    if machine is None:
        return [], {**os.environ, **environment, "LD_LIBRARY_PATH": ":".join(map(str, search))}
    loader = subprocess.run([compiler, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True)
    root = Path(loader.stdout.strip()).resolve().parent.parent
    environment = {**environment, "LD_LIBRARY_PATH": ":".join(map(str, [*search, root / "lib"]))}
    settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
    chosen = [] if cpu is None else ["-cpu", cpu]
    return [f"qemu-{machine}", "-L", str(root), *chosen, *settings], dict(os.environ)


def runtime_libraries(machine: str) -> Path:
    """A folder with another machine's TVM runtime, its CUDA runtime and ``libtvm_ffi.so``, from the cache or from PyPI.

    Raises:
        MissingDependencyError: the wheels cannot be downloaded.
    """
    versions = {name: importlib.metadata.version(name) for name in WHEELS}
    wanted = {member for members in WHEELS.values() for member in members}
    name = f"tvm-runtime-{versions['apache-tvm']}-{versions['apache-tvm-ffi']}-{machine}-cuda"
    return from_wheels(machine, versions, name, lambda m: Path(m).name if m in wanted else None, "running it")
