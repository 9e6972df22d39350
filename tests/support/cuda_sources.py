"""The CUDA sources without a GPU: compiled as C++ against a stand-in for CUDA's headers, which runs the threads."""

import subprocess
from pathlib import Path

CUDA = Path(__file__).parents[2] / "runtimes" / "cuda"
INCLUDES = [CUDA / "include", CUDA / "src"]
_EMULATION = CUDA / "emulation"
_WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


def compile_emulated(sources: list[Path], library: Path) -> Path:
    """Compile CUDA sources to a shared library of this machine, in which launches run on the CPU."""
    flags = ["-x", "c++", "-std=c++17", "-O2", *_WARNINGS, "-shared", "-fPIC", "-fvisibility=hidden"]
    flags += ["-include", "cuda_runtime.h"]  # as nvcc does
    folders = [f"-I{folder}" for folder in (_EMULATION, *INCLUDES)]
    done = subprocess.run(["g++", *flags, *folders, *sources, "-o", library], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library
