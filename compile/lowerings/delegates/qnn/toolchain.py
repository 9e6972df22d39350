"""Load Qualcomm's compiler and emulator for ExecuTorch: the libraries of the onnxruntime-qnn wheel.

ExecuTorch is built for an older QNN than the wheel's: the library of ``htp.c`` stands between them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.files import whole
from vmp_edge.machine import host_machine
from vmp_edge.runtimes.building import cache_folder

HTP, SYSTEM = "libQnnHtp.so", "libQnnSystem.so"  # the names by which ExecuTorch asks the loader for them
SOURCE = Path(__file__).parent / "htp.c"
FLAGS = ("-std=c11", "-O2", "-shared", "-fPIC", f"-Wl,-soname,{HTP}")


@functools.cache
def load() -> None:
    """Load QNN into this process, in which it stays; ExecuTorch then finds it by its name.

    Raises:
        MissingDependencyError: onnxruntime-qnn has no such libraries for this machine, or there is no C compiler.
        BuildError: The C compiler failed, or another QNN is loaded.
    """
    libraries = Path(importlib.import_module("onnxruntime_qnn").LIB_DIR_FULL_PATH)
    if host_machine() != "x86_64" or not (libraries / SYSTEM).is_file():
        raise MissingDependencyError("Qualcomm's compiler runs on x86-64 Linux alone: build on such a machine")
    if _is_loaded(HTP):
        raise BuildError("this process uses QNN by ONNX Runtime: build for ExecuTorch in a process of its own")
    with contextlib.suppress(ImportError):
        importlib.import_module("matplotlib.pyplot")  # a build's report needs it; loaded after QNN it crashes
    os.environ["QNN_SDK_ROOT"] = ""  # if it is set, ExecuTorch does not download an SDK
    adapter = ctypes.CDLL(str(build()), ctypes.RTLD_GLOBAL)
    adapter.vmp_qnn_open.restype = ctypes.c_char_p
    if message := adapter.vmp_qnn_open(os.fsencode(libraries / HTP)):
        raise BuildError(f"{libraries / HTP}: {message.decode(errors='replace')}")
    ctypes.CDLL(str(libraries / SYSTEM), ctypes.RTLD_GLOBAL)


def _is_loaded(name: str) -> bool:
    """Return whether this process has loaded a library."""
    try:
        ctypes.CDLL(name, os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return True


def build() -> Path:
    """Return the library between ExecuTorch and Qualcomm's library, from the cache or compiled now.

    Raises:
        MissingDependencyError: There is no C compiler.
        BuildError: The C compiler failed.
    """
    content = SOURCE.read_bytes() + " ".join(FLAGS).encode()
    finished = cache_folder() / f"qnn-{hashlib.sha256(content).hexdigest()[:16]}" / HTP
    if finished.is_file():
        return finished
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        raise MissingDependencyError("this target needs a C compiler (Debian: apt install gcc)")
    finished.parent.mkdir(parents=True, exist_ok=True)
    with whole(finished) as place:
        command = [*compiler, *FLAGS, str(SOURCE), "-o", str(place), "-ldl"]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            raise BuildError(f"{SOURCE.name} cannot be compiled: {' '.join(process.stderr.split())[:300]}")
    return finished
