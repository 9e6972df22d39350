"""Running a TVM bundle of another processor under qemu's user emulation, to compare it with the source model."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vmp_edge.bundle import Bundle
from vmp_edge.compile.tvm import TOOLCHAINS, cross_compiler
from vmp_edge.errors import MissingDependencyError, VmpError
from vmp_edge.runtimes.building import cache_folder
from vmp_edge.runtimes.tvm.library import build_runner

WHEELS = {"apache-tvm": "tvm/lib/libtvm_runtime.so", "apache-tvm-ffi": "tvm_ffi/lib/libtvm_ffi.so"}
PLATFORM = "manylinux_2_28"


class EmulatedEngine:
    """Runs a bundle's ``model.so`` by the C++ runner, in an emulated process of its own for each call.

    Args:
        bundle: a bundle whose engine is ``tvm``, for another machine.

    Raises:
        MissingDependencyError: the emulator, the compiler or TVM's runtime for that machine cannot be had.
        BuildError: the runner cannot be built.
    """

    def __init__(self, bundle: Bundle) -> None:
        machine = bundle.manifest.machine
        self.emulator = f"qemu-{machine}"
        if machine not in TOOLCHAINS or shutil.which(self.emulator) is None:
            raise MissingDependencyError(f"running it needs {self.emulator} (Debian: apt install qemu-user)")
        libraries = runtime_libraries(machine)
        compiler = cross_compiler(machine)
        runner = build_runner(TOOLCHAINS[machine], libraries)
        loader = subprocess.run([compiler, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True)
        root = Path(loader.stdout.strip()).resolve().parent.parent
        self._command = [self.emulator, "-L", str(root), "-E", f"LD_LIBRARY_PATH={libraries}:{root / 'lib'}"]
        self._command += [str(runner), str(libraries / "libtvm_runtime.so"), str(bundle.program)]
        self._tubelet = int(bundle.manifest.model["tubelet_size"])
        self._classes = len(bundle.manifest.labels)

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
            command = [*self._command, str(source), str(result), *map(str, sizes)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
                raise VmpError(f"{self.emulator}: {reason}")
            return np.fromfile(result, np.float32).reshape(batch, self._classes)

    def close(self) -> None:
        """Nothing is held between calls."""


def runtime_libraries(machine: str) -> Path:
    """A folder with another machine's ``libtvm_runtime.so`` and ``libtvm_ffi.so``, from the cache or from PyPI.

    Raises:
        MissingDependencyError: the wheels cannot be downloaded.
    """
    versions = {name: importlib.metadata.version(name) for name in WHEELS}
    folder = cache_folder() / f"tvm-runtime-{versions['apache-tvm']}-{versions['apache-tvm-ffi']}-{machine}"
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
                for member in set(WHEELS.values()) & set(content.namelist()):
                    (ready / Path(member).name).write_bytes(content.read(member))
        if not folder.is_dir():  # somebody else may have been faster
            ready.rename(folder)
    return folder
