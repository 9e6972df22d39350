"""Running a TVM bundle of another processor or of a GPU that is not here, to compare it with the source model."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle import Bundle
from vmp_edge.compile.cuda.emulation import compile_kernels
from vmp_edge.compile.tvm import TOOLCHAINS, cross_compiler
from vmp_edge.errors import MissingDependencyError, VmpError
from vmp_edge.manifest import host_machine
from vmp_edge.runtimes.building import cache_folder
from vmp_edge.runtimes.tvm.library import CUDART, build_cuda_driver, build_runner, package_folder

WHEELS = {
    "apache-tvm": ("tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_runtime_cuda.so"),
    "apache-tvm-ffi": ("tvm_ffi/lib/libtvm_ffi.so",),
}
PLATFORM = "manylinux_2_28"


class EmulatedEngine:
    """Runs a bundle's ``model.so`` by the C++ runner, in a process of its own for each call.

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
        if foreign and (machine not in TOOLCHAINS or shutil.which(f"qemu-{machine}") is None):
            raise MissingDependencyError(f"running it needs qemu-{machine} (Debian: apt install qemu-user)")
        names = ["an emulated GPU"] if kernels else []
        self.emulator = ", ".join([*names, *([f"qemu-{machine}"] if foreign else [])])
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
        self._command, self._environment = self._launcher(machine if foreign else None, compiler, search, environment)
        self._command += [str(runner), "cuda" if kernels else "cpu", ":".join(map(str, needed)), str(bundle.program)]
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        self._classes = len(bundle.manifest.labels)

    @staticmethod
    def _launcher(
        machine: str | None, compiler: str, search: list[Path], environment: dict[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """What a program is started by, with its libraries' folders and its environment."""
        if machine is None:
            return [], {**os.environ, **environment, "LD_LIBRARY_PATH": ":".join(map(str, search))}
        loader = subprocess.run([compiler, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True)
        root = Path(loader.stdout.strip()).resolve().parent.parent
        environment = {**environment, "LD_LIBRARY_PATH": ":".join(map(str, [*search, root / "lib"]))}
        settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
        return [f"qemu-{machine}", "-L", str(root), *settings], dict(os.environ)

    def run(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits (B, classes) of float32 (B, 3, T, S, S).

        Raises:
            VmpError: the program failed; the text is its last line.
        """
        batch, channels, frames, height, width = video.shape
        sizes = (frames // self._tubelet, self._tubelet * channels, height, width)
        with tempfile.TemporaryDirectory(prefix="vmp-edge-") as folder:
            source, result = Path(folder) / "in", Path(folder) / "out"
            np.ascontiguousarray(video.transpose(0, 2, 1, 3, 4), np.float32).tofile(source)
            command = [*self._command, str(source), str(result), str(self._classes), *map(str, sizes)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
            if done.returncode:
                reason = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
                raise VmpError(f"{self.emulator}: {reason}")
            return np.fromfile(result, np.float32).reshape(batch, self._classes)

    def close(self) -> None:
        """Nothing is held between calls."""


def runtime_libraries(machine: str) -> Path:
    """A folder with another machine's TVM runtime, its CUDA runtime and ``libtvm_ffi.so``, from the cache or from PyPI.

    Raises:
        MissingDependencyError: the wheels cannot be downloaded.
    """
    versions = {name: importlib.metadata.version(name) for name in WHEELS}
    folder = cache_folder() / f"tvm-runtime-{versions['apache-tvm']}-{versions['apache-tvm-ffi']}-{machine}-cuda"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tvm-runtime-", dir=folder.parent) as temporary:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--platform", f"{PLATFORM}_{machine}", "--retries", "1", "--timeout", "15"]
        pip += ["--dest", temporary, *(f"{name}=={version}" for name, version in versions.items())]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or len(wheels) != len(WHEELS):
            raise MissingDependencyError(f"running it needs TVM's wheels for {machine}, which pip cannot download")
        ready = Path(temporary) / "ready"
        ready.mkdir()
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as content:
                for member in {member for members in WHEELS.values() for member in members} & set(content.namelist()):
                    (ready / Path(member).name).write_bytes(content.read(member))
        if not folder.is_dir():  # somebody else may have been faster
            ready.rename(folder)
    return folder
