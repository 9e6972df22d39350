"""CUDA C++ compiled as C++ for a CPU: what ``runtimes/cuda/emulation`` runs instead of a GPU's machine code."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vmp_edge.errors import BuildError
from vmp_edge.runtimes.building import source_folder

from ..lowerings.tvm.cuda.toolchain import first_error, include_folders

KERNEL = re.compile(r'^extern "C" __global__ void __launch_bounds__\([^)]*\) (\w+)\(', re.MULTILINE)


def compile_kernels(sources: Sequence[str], compiler: str, folder: Path) -> Path:
    """A library that the emulated driver finds kernels in.

    Args:
        sources: CUDA C++, of which the first has includes of its own, and those after it are TVM's.
        compiler: the C++ compiler of the machine that runs it.
        folder: gets the library.

    Raises:
        BuildError: the kernels are not such that a C++ compiler takes them.
    """
    written, *generated = sources
    # TVM's start with lines for nvcc alone, about half precision
    bodies = [source[match.start() :] for source in generated if (match := KERNEL.search(source))]
    kernels = dict.fromkeys(name for source in (written, *bodies) for name in KERNEL.findall(source))
    lines = ['#include "kernels.h"', written, *bodies, *(f"VMP_KERNEL({name})" for name in kernels)]
    source, library = folder / "kernels.cpp", folder / "libkernels.so"
    source.write_text("\n".join([*lines, ""]))
    folders = [source_folder("cuda") / "emulation", *include_folders()]
    flags = ["-std=c++17", "-O3", "-fno-math-errno", "-w", "-shared", "-fPIC"]
    flags += ["-march=native"] if compiler == "g++" else []  # vectors, and half precision that is not a library's
    command = [compiler, *flags, "-fvisibility=hidden", *(f"-I{path}" for path in folders)]
    done = subprocess.run([*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"the kernels do not compile for the emulated GPU: {first_error(done.stderr)}")
    return library
