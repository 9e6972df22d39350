"""Tiny trials of what engines need: each loads a library and lets it compute. `vmp-edge doctor` runs them in processes.

Each trial returns a few words on what it found, or raises what went wrong, of whatever class.
"""

from __future__ import annotations

import ctypes
import importlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

# An ONNX model of one operator: y = x + x, float32 (2,).
_TWICE = (
    b'\x08\x07:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n\x00\x10\r"
)
_X = np.array([1.5, -2.0], np.float32)


def executorch() -> str:
    """Load ExecuTorch's libraries as the engine does, without PyTorch."""
    from .executorch.engine import SHARED_LIBRARIES
    from .executorch.library import executorch_folder

    folder = executorch_folder() / "lib"
    for name in SHARED_LIBRARIES:
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    return "its libraries load"


def torch() -> str:
    """Add numbers in PyTorch, and import the engine."""
    import torch

    _expect(torch.add(*2 * [torch.from_numpy(_X)]).numpy())
    importlib.import_module("vmp_edge.runtimes.torch.engine")
    return "computes"


def tvm() -> str:
    """Load TVM's runtime as the engine does, and ask it for its functions."""
    from .tvm.engine import _runtime

    _runtime().get_global_func("runtime.config_threadpool")
    return "its runtime loads"


def onnxruntime() -> str:
    """Run a model of one operator."""
    import onnxruntime

    session = onnxruntime.InferenceSession(_TWICE, providers=["CPUExecutionProvider"])
    _expect(session.run(None, {"x": _X})[0])
    importlib.import_module("vmp_edge.runtimes.onnxruntime.engine")
    return "computes"


def openvino() -> str:
    """Compile and run a model of one operator."""
    import openvino

    core = openvino.Core()
    _expect(np.array(core.compile_model(core.read_model(_TWICE), "CPU")(_X)[0]))
    importlib.import_module("vmp_edge.runtimes.openvino.engine")
    return "computes"


def native() -> str:
    """Load the native scan library, and list the instruction sets that it has kernels for and that run here."""
    folders = importlib.import_module("vmp_edge.runtimes.native").__path__
    path = next((path for folder in folders if (path := Path(folder) / "libvmp_ops.so").is_file()), None)
    if path is None:
        raise FileNotFoundError("libvmp_ops.so is not there")
    library = ctypes.CDLL(str(path))
    library.vmp_ops_isa_at.restype = ctypes.c_char_p
    names: list[str] = []
    while name := library.vmp_ops_isa_at(len(names)):
        names.append(name.decode())
    cuda = ", and CUDA kernels" if path.with_name("libvmp_cuda.so").is_file() else ""
    return f"kernels for {', '.join(names)}{cuda}"


def encoder() -> str:
    """Find an encoder of H.264, which browsers play: PyAV's, or one of the `ffmpeg` on the PATH."""
    try:
        import av

        av.codec.Codec("libx264", "w")
        return "libx264 by PyAV"
    except Exception:  # PyAV is not installed, is broken, or has no such encoder
        if (program := shutil.which("ffmpeg")) is None:
            raise
    command = [program, "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "color=s=64x64:d=0.1"]
    process: Any = subprocess.run([*command, "-c:v", "libx264", "-f", "null", "-"], capture_output=True, check=False)
    if process.returncode:
        raise FileNotFoundError(f"{program} has no libx264")
    return f"libx264 by {program}"


def _expect(result: Any) -> None:
    if not np.array_equal(result, _X + _X):
        raise ArithmeticError(f"it adds wrongly: {result}")
