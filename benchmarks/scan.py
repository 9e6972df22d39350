"""Time the scan and the convolution: native kernels, a plain C loop, PyTorch; one thread, one run, one table.

Times are CPU times of the one thread, so that waiting for other programs does not count. Every repeat times all
contenders one after the other: if the machine is slow for a while, it is slow for all of them. The table has medians
and ratios to the plain C loop. All contenders get the same inputs, and their results are compared before the timing.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vmp_edge import ops
from vmp_edge.machine import cpu_model
from vmp_edge.ops import _native, reference

HERE = Path(__file__).resolve().parent
MODELS = {"Tiny": 384, "Small": 768, "Middle": 1152}  # channels of the scan: twice the model's width
STATES = 16
TAPS = 4
PATCHES = 14 * 14  # of a 224 pixel frame
REFERENCE_LIMIT = 1569 * 384  # the PyTorch loop is timed up to this many (step, channel) pairs
BAR = 12.0  # least speed of AVX-512 over the plain C loop, one direction, L 1569, D 384


@dataclass
class Shape:
    """A model's scan at a number of frames.

    Attributes:
        model: A key of `MODELS`.
        frames: Frames of a clip.
    """

    model: str
    frames: int

    @property
    def length(self) -> int:
        return 1 + self.frames * PATCHES

    @property
    def channels(self) -> int:
        return MODELS[self.model]

    def inputs(self) -> dict[str, Tensor]:
        """Return inputs like those of a trained model: slow and fast decays, small steps."""
        generator = torch.Generator().manual_seed(0)

        def normal(*sizes: int) -> Tensor:
            return torch.randn(sizes, generator=generator)

        L, D, N = self.length, self.channels, STATES
        rates = -torch.arange(1, N + 1, dtype=torch.float32).repeat(D, 1)
        return {
            "x": normal(1, L, D), "dt": normal(1, L, D), "A": rates, "A_b": rates * 1.1, "B": normal(1, L, N),
            "C": normal(1, L, N), "D": normal(D), "z": normal(1, L, D), "dt_bias": normal(D) - 4,
        }  # fmt: skip


def compile_plain_c(folder: Path) -> ctypes.CDLL:
    """Compile the plain C loop to a shared library and load it."""
    library = folder / "plain_scan.so"
    command = ["cc", "-O3", "-shared", "-fPIC", str(HERE / "plain_scan.c"), "-o", str(library), "-lm"]
    subprocess.run(command, check=True)
    plain = ctypes.CDLL(str(library))
    plain.plain_scan.argtypes = [ctypes.c_void_p] * 9 + [ctypes.c_long] * 3
    return plain


def run_plain_c(plain: ctypes.CDLL, inputs: dict[str, Tensor]) -> Tensor:
    """Scan one direction by the plain C loop."""
    y = torch.empty_like(inputs["x"])
    names = ("x", "dt", "A", "B", "C", "D", "z", "dt_bias")
    plain.plain_scan(*(inputs[name].data_ptr() for name in names), y.data_ptr(), *y.shape[1:], STATES)
    return y


def on_isa(isa: str, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the same call with an instruction set."""

    def run() -> Tensor:
        _native.set_isa(isa)
        return function()

    return run


Contenders = dict[str, Callable[[], Tensor]]


def scan_contenders(shape: Shape, plain: ctypes.CDLL, isas: list[str]) -> dict[str, Contenders]:
    """Return the contenders' calls, by job and by the contender's name."""
    bi_inputs = shape.inputs()
    inputs = {name: tensor for name, tensor in bi_inputs.items() if name != "A_b"}
    grad_y = torch.randn(inputs["x"].shape, generator=torch.Generator().manual_seed(1))

    def scan() -> Tensor:
        return ops.selective_scan(*inputs.values())

    def bi_scan() -> Tensor:
        return ops.bi_selective_scan(*bi_inputs.values())

    def bi_gradient() -> Tensor:
        gradients: list[Tensor] = torch.ops.vmp.bi_selective_scan_backward(grad_y, *bi_inputs.values())
        return gradients[0]

    jobs: dict[str, Contenders] = {
        "scan": {"plain C": lambda: run_plain_c(plain, inputs)},
        "both directions": {},
        "gradient of both": {},
    }
    if shape.length * shape.channels <= REFERENCE_LIMIT:
        jobs["scan"]["PyTorch"] = lambda: reference.selective_scan(*inputs.values())
        jobs["both directions"]["PyTorch"] = lambda: reference.bi_selective_scan(*bi_inputs.values())
    for isa in isas:
        for job, function in zip(jobs, (scan, bi_scan, bi_gradient), strict=True):
            jobs[job][isa] = on_isa(isa, function)
    return jobs


def conv_contenders(shape: Shape, isas: list[str]) -> Contenders:
    """Return the convolution's contenders: PyTorch's conv1d with its transposes, and the native kernels."""
    x = shape.inputs()["x"]
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(shape.channels, TAPS, generator=generator)
    bias = torch.randn(shape.channels, generator=generator)
    kernel = weight.unsqueeze(1)

    def torch_conv() -> Tensor:
        y = F.conv1d(x.transpose(1, 2), kernel, bias, padding=TAPS - 1, groups=shape.channels)
        return F.silu(y[..., : shape.length]).transpose(1, 2).contiguous()

    contenders: Contenders = {"PyTorch": torch_conv}
    for isa in isas:
        contenders[isa] = on_isa(isa, lambda: ops.causal_conv_silu(x, weight, bias))
    return contenders


def measure(contenders: Contenders, repeats: int) -> dict[str, float]:
    """Measure the median CPU seconds of each contender, in turns; those that take over a second get three turns."""
    results = {name: run() for name, run in contenders.items()}  # this also warms up
    first = next(iter(results))
    for name, result in results.items():
        torch.testing.assert_close(result, results[first], rtol=1e-3, atol=1e-3, msg=f"{name} differs from {first}")
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name, run in contenders.items():
            if repeat >= 3 and statistics.median(times[name]) > 1:
                continue
            start = time.thread_time()
            run()
            times[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def cell(seconds: float | None, yardstick: float | None) -> str:
    """Format milliseconds, and how many times faster than the yardstick they are."""
    if seconds is None:
        return "not run"
    text = f"{seconds * 1e3:.2f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"
    return text if yardstick is None or seconds == yardstick else f"{text} ({yardstick / seconds:.1f}x)"


def table(title: str, rows: list[tuple[Shape, dict[str, float]]], columns: list[str], yardstick: str | None) -> str:
    """Format one job as a Markdown table."""
    lines = [
        f"## {title}",
        "",
        f"| model | frames | L | D | {' | '.join(columns)} |",
        f"|{'---|' * (4 + len(columns))}",
    ]
    for shape, times in rows:
        base = times.get(yardstick) if yardstick else None
        cells = " | ".join(cell(times.get(name), base) for name in columns)
        lines.append(f"| {shape.model} | {shape.frames} | {shape.length} | {shape.channels} | {cells} |")
    return "\n".join([*lines, ""])


def machine() -> str:
    """Describe the CPU, the compiler and the versions in one line."""
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return f"{cpu_model()}, {platform.system()} {platform.machine()}; {compiler}; PyTorch {torch.__version__}"


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--frames", nargs="+", type=int, default=[8, 16, 64], help="numbers of frames of 224x224 (default: 8 16 64)"
    )
    parser.add_argument("--isas", nargs="+", default=None, help="instruction sets (default: all of this machine)")
    parser.add_argument("--repeats", type=int, default=15, help="repeats of each measurement (default: 15)")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "scan.md", help="Markdown table to write")
    return parser.parse_args()


def main() -> int:
    """Measure all contenders and write the table.

    Returns:
        The exit status: 1 if AVX-512 is slower than `BAR` demands.
    """
    arguments = parse_arguments()
    isas = arguments.isas or _native.isas()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    results: dict[str, list[tuple[Shape, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        plain = compile_plain_c(Path(folder))
        for model in arguments.models:
            for frames in arguments.frames:
                shape = Shape(model, frames)
                jobs = {**scan_contenders(shape, plain, isas), "convolution": conv_contenders(shape, isas)}
                for job, contenders in jobs.items():
                    times = measure(contenders, arguments.repeats)
                    results.setdefault(job, []).append((shape, times))
                    summary = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in times.items())
                    print(f"{model}, {frames} frames, {job}: {summary}", flush=True)
    text = report(results, isas)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    partial = arguments.output.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(arguments.output)
    print(f"wrote {arguments.output}")
    return check_bar(results)


def report(results: dict[str, list[tuple[Shape, dict[str, float]]]], isas: list[str]) -> str:
    """Format the whole Markdown file."""
    command = shlex.join(["python", "benchmarks/scan.py", *sys.argv[1:]])
    parts = [
        "# Scan and convolution, one thread\n",
        f"Milliseconds of CPU time, median of interleaved repeats, batch 1, {STATES} states, float32. "
        f"Made by `{command}` on {machine()}.\n",
        "Scans include softplus, skip term, gate and the allocation of the output. Its first touch and main memory "
        "make the largest shapes (output over 32 MB) slower for each element. `plain C` is `plain_scan.c` with `-O3` "
        "and `expf`; `PyTorch` is the reference loop, which is timed at the smallest shape only.\n",
        table("One direction (ratio to plain C)", results["scan"], ["plain C", "PyTorch", *isas], "plain C"),
        table("Both directions", results["both directions"], ["PyTorch", *isas], None),
        table("Gradient of both directions", results["gradient of both"], isas, None),
        table(
            f"Causal convolution of {TAPS} taps and SiLU (ratio to PyTorch's conv1d with its transposes)",
            results["convolution"], ["PyTorch", *isas], "PyTorch",
        ),
    ]  # fmt: skip
    return "\n".join(parts)


def check_bar(results: dict[str, list[tuple[Shape, dict[str, float]]]]) -> int:
    """Compare AVX-512 with the plain C loop at the shape of `BAR`; return 1 if it is too slow, otherwise 0."""
    for shape, times in results["scan"]:
        if (shape.model, shape.frames) == ("Tiny", 8) and "avx512" in times:
            ratio = times["plain C"] / times["avx512"]
            print(
                f"AVX-512 is {ratio:.1f} times the plain C loop at L {shape.length}, D {shape.channels}; bar: {BAR:g}"
            )
            return 0 if ratio >= BAR else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
