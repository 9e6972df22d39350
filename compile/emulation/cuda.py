"""Compile CUDA C++ as C++ for a CPU, so that ``runtimes/cuda/emulation`` runs it instead of a GPU's machine code."""

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
    """Compile kernels to a library in which the emulated driver finds them.

    Args:
        sources: CUDA C++. The first source has its own includes; the others are those that TVM generated.
        compiler: The C++ compiler for the machine that runs the library.
        folder: Where the library is written.

    Returns:
        The path of the library.

    Raises:
        BuildError: A C++ compiler does not take the kernels.
    """
    handwritten, *generated = sources
    # TVM's sources start with lines about half precision that only nvcc takes
    bodies = [source[match.start() :] for source in generated if (match := KERNEL.search(source))]
    bodies = [body.replace("__shared__ alignas(64)", "alignas(64) __shared__") for body in bodies]  # as C++ has it
    kernels = dict.fromkeys(name for source in (handwritten, *bodies) for name in KERNEL.findall(source))
    lines = ['#include "kernels.h"', handwritten, *bodies, *(f"VMP_KERNEL({name})" for name in kernels)]
    source, library = folder / "kernels.cpp", folder / "libkernels.so"
    source.write_text("\n".join([*lines, ""]))
    folders = [source_folder("cuda") / "emulation", *include_folders()]
    flags = ["-std=c++17", "-O3", "-fno-math-errno", "-w", "-shared", "-fPIC"]
    flags += ["-march=native"] if compiler == "g++" else []  # for vectors, and half precision without library calls
    command = [compiler, *flags, "-fvisibility=hidden", *(f"-I{path}" for path in folders)]
    process = subprocess.run([*command, str(source), "-o", str(library)], capture_output=True, text=True, check=False)
    if process.returncode:
        raise BuildError(f"the kernels do not compile for the emulated GPU: {first_error(process.stderr)}")
    return library
