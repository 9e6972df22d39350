"""Tabulate registers and spills of every CUDA kernel on every architecture, as ptxas reports them.

This needs nvcc, but no GPU.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "runtimes" / "cuda"
OUTPUT = HERE / "results" / "cuda_registers.md"
TYPES = {"f": "fp32", "6__half": "fp16", "13__nv_bfloat16": "bf16"}  # as mangled

_KERNEL = re.compile(
    r"Compiling entry function '_ZN8vmp_cuda\d+(\w+?)_kernelI(f|6__half|13__nv_bfloat16)(?:Li(\d+)E)?(?:Li(\d+)E)?E"
)
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")

Usage = tuple[int, int]  # registers, bytes spilled


def architectures() -> list[int]:
    """Return the architectures in the tuning table, runtimes/cuda/src/tuning.h."""
    table = (SOURCES / "src" / "tuning.h").read_text()
    return [int(sm) for sm in re.findall(r"^    \{(\d+),", table, re.MULTILINE)]


def compile_for(nvcc: str, sm: int) -> dict[str, Usage]:
    """Compile for an architecture with the options of runtimes/cuda/CMakeLists.txt; return the usage by kernel."""
    options = ["-std=c++17", "-O3", "-ftz=true", f"-arch=sm_{sm}", "-cubin", "-Xptxas", "-v"]
    messages = ""
    for source in sorted((SOURCES / "src").glob("*.cu")):
        with tempfile.TemporaryDirectory() as folder:
            files = ["-I", str(SOURCES / "include"), str(source), "-o", str(Path(folder) / "cubin")]
            compilation = subprocess.run([nvcc, *options, *files], capture_output=True, text=True)
        if compilation.returncode:
            raise SystemExit(compilation.stderr)
        messages += compilation.stderr
    return parse(messages)


def parse(messages: str) -> dict[str, Usage]:
    """Read the usage of each kernel from the messages of ptxas."""
    usage: dict[str, Usage] = {}
    kernel, spilled = "", 0
    for line in messages.splitlines():
        if match := _KERNEL.search(line):
            kernel = label(*match.groups())
        elif match := _SPILLS.search(line):
            spilled = sum(map(int, match.groups()))
        elif match := _REGISTERS.search(line):
            usage[kernel] = (int(match[1]), spilled)
    return usage


def label(name: str, dtype: str, size: str | None, groups: str | None) -> str:
    """Return a kernel's name in the table.

    Args:
        name: The kernel's function.
        dtype: Its activations' type, a key of `TYPES`.
        size: States of a thread, or taps; None if the kernel has neither.
        groups: Threads that share a channel's states; None if the kernel does not share them.
    """
    spread = f", {size} states x {groups} threads" if groups else f", {size} taps" if size else ""
    return f"`{name}` {TYPES[dtype]}{spread}"


def report(usage: dict[int, dict[str, Usage]], compiler: str) -> str:
    """Format the whole Markdown file."""
    kernels = sorted({kernel for kernels in usage.values() for kernel in kernels})
    lines = [
        "# Registers of the CUDA kernels",
        "",
        "Registers of a thread, and bytes spilled to memory if there are any, by `ptxas -v`. The scan of both "
        "directions: blocks of 128 threads (`carry_states`: 64); the convolution: of 256.",
        f"Made by `python benchmarks/cuda_registers.py` with {compiler}. Compiled, not run.",
        "",
        f"| kernel | {' | '.join(f'sm_{sm}' for sm in usage)} |",
        f"|---|{'---|' * len(usage)}",
    ]
    for kernel in kernels:
        cells = [f"{registers}, spills {spilled}" if spilled else str(registers)
                 for registers, spilled in (kernels[kernel] for kernels in usage.values())]  # fmt: skip
        lines.append(f"| {kernel} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Compile for every architecture and write the table.

    Returns:
        The exit status: 1 if a kernel spills registers, or nvcc is not installed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--architectures",
        nargs="+",
        type=int,
        default=architectures(),
        help="compute capabilities, 87 for example (default: all in the tuning table)",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="Markdown table to write")
    arguments = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        print("CUDA registers: nvcc is not installed; install the CUDA toolkit, 13 or later", file=sys.stderr)
        return 1
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"V([\d.]+)", version)
    usage = {sm: compile_for(nvcc, sm) for sm in arguments.architectures}
    partial = arguments.output.with_suffix(".partial")
    partial.write_text(report(usage, f"nvcc {release[1] if release else 'unknown'}"))
    partial.replace(arguments.output)
    print(f"wrote {arguments.output}")
    return int(any(spilled for kernels in usage.values() for _, spilled in kernels.values()))


if __name__ == "__main__":
    sys.exit(main())
