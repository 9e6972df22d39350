"""Time the bidirectional scan on a GPU: our kernels, mamba_ssm (two calls with flips) and the limits of the machine.

All contenders get the same inputs, and their results are compared before they are timed. Each repeat times them one
after the other. There are two limits. One is the time of the exponentials that the recurrence needs: one for each step,
channel, state and direction, at 16 per clock and SM. The other is the time of reading the inputs and writing the output
at the bandwidth of a plain copy in the same run.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vmp_edge import ops
from vmp_edge.ops import _cuda_kernels

HERE = Path(__file__).resolve().parent
CHANNELS = 384  # VideoMamba Tiny
STATES = 16
BATCHES = (1, 8, 32)
LENGTHS = (1569, 12545)
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
EXPONENTIALS_PER_CLOCK = 16  # of one SM
BAR = 2.0  # least speed over mamba_ssm

Contenders = dict[str, Callable[[], Tensor]]


def inputs_of(batch: int, length: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return inputs like those of a trained model: slow and fast decays, small steps."""
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, device="cuda")

    rates = -torch.arange(1, STATES + 1, dtype=torch.float32, device="cuda").repeat(CHANNELS, 1)
    activation, projection = (batch, length, CHANNELS), (batch, length, STATES)
    return {
        "x": normal(*activation).to(dtype), "dt": normal(*activation).to(dtype), "A": rates, "A_b": rates * 1.1,
        "B": normal(*projection).to(dtype), "C": normal(*projection).to(dtype), "D": normal(CHANNELS),
        "z": normal(*activation).to(dtype), "dt_bias": normal(CHANNELS) - 4,
    }  # fmt: skip


def mamba_scan(inputs: dict[str, Tensor]) -> Callable[[], Tensor] | None:
    """Return a call of mamba_ssm's selective scan, or None if mamba_ssm is not installed.

    Like VideoMamba, it scans in mamba_ssm's own layout, once forwards and once with everything flipped.
    """
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError:
        return None
    x, dt, z, B, C = (inputs[name].transpose(1, 2).contiguous() for name in ("x", "dt", "z", "B", "C"))
    common = {"D": inputs["D"], "delta_bias": inputs["dt_bias"], "delta_softplus": True}

    def run() -> Tensor:
        forward = selective_scan_fn(x, dt, inputs["A"], B, C, z=z, **common)
        flipped = [tensor.flip(-1) for tensor in (x, dt, B, C, z)]
        backward = selective_scan_fn(*flipped[:2], inputs["A_b"], *flipped[2:4], z=flipped[4], **common)
        y: Tensor = forward + backward.flip(-1)
        return y

    return run


def milliseconds(run: Callable[[], object]) -> float:
    """Measure the GPU time of one call, as the mean of ten."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    calls = 10
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def measure(contenders: Contenders, repeats: int) -> dict[str, float]:
    """Measure the median milliseconds of each contender, in turns."""
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            times[name].append(milliseconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def in_cuda_graph(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the same call as a CUDA graph, which saves the time for launching each kernel."""
    run()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = run()

    def replay() -> Tensor:
        graph.replay()
        return y

    return replay


def bytes_per_millisecond(repeats: int) -> float:
    """Measure the bandwidth of a plain copy of 1 GiB; the bytes read and the bytes written both count."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / measure({"copy": lambda: target.copy_(source)}, repeats)["copy"]


def exponential_limit(batch: int, length: int) -> float:
    """Return the milliseconds for one exponential for each step, channel, state and direction."""
    properties = torch.cuda.get_device_properties(0)
    hertz = float(getattr(properties, "clock_rate", 0)) * 1e3 or float("nan")
    count = 2 * batch * length * CHANNELS * STATES
    return 1e3 * count / (properties.multi_processor_count * EXPONENTIALS_PER_CLOCK * hertz)


def row(batch: int, length: int, dtype: str, bandwidth: float, repeats: int) -> tuple[str, float | None]:
    """Measure one line of the table.

    Returns:
        The line, and how many times faster than mamba_ssm our kernels are, or None if mamba_ssm is not installed.
    """
    inputs = inputs_of(batch, length, DTYPES[dtype])

    def ours() -> Tensor:
        return ops.bi_selective_scan(*inputs.values())

    contenders: Contenders = {"ours": ours, "graph": in_cuda_graph(ours)}
    if mamba := mamba_scan(inputs):
        torch.testing.assert_close(mamba().transpose(1, 2).float(), ours().float(), rtol=2e-2, atol=2e-1)
        contenders |= {"mamba_ssm": mamba}
    times = measure(contenders, repeats)
    ratio = times["mamba_ssm"] / times["ours"] if mamba else None
    size = sum(tensor.nbytes for tensor in inputs.values()) + inputs["x"].nbytes
    mamba_cell = f"{times['mamba_ssm']:.3f} ({ratio:.1f}x)" if ratio else "not installed"
    cells = [batch, length, dtype, f"{times['ours']:.3f}", f"{times['graph']:.3f}", mamba_cell,
             f"{exponential_limit(batch, length):.3f}", f"{size / bandwidth:.3f}"]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |", ratio


def refusal() -> str | None:
    """Say in one line why this machine cannot measure, or return None if it can."""
    if not torch.cuda.is_available():
        return "the CUDA scan's benchmark needs an NVIDIA GPU and a PyTorch with CUDA; there is none here"
    if not _cuda_kernels.supports(torch.device("cuda", 0)):
        return "the CUDA scan is not built, or not for this GPU; with the CUDA toolkit: pip install -e . --no-deps"
    return None


def main() -> int:
    """Measure and write the table.

    Returns:
        The exit status: 1 if this machine cannot measure, or if our kernels are slower than `BAR` demands.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=15, help="repeats of each measurement (default: 15)")
    parser.add_argument(
        "--output", type=Path, default=HERE / "results" / "scan_cuda.md", help="Markdown table to write"
    )
    arguments = parser.parse_args()
    if reason := refusal():
        print(reason, file=sys.stderr)
        return 1
    torch.set_grad_enabled(False)
    bandwidth = bytes_per_millisecond(arguments.repeats)
    lines, ratios = [], []
    for dtype in arguments.dtypes:
        for length in LENGTHS:
            for batch in BATCHES:
                line, ratio = row(batch, length, dtype, bandwidth, arguments.repeats)
                print(line, flush=True)
                lines.append(line)
                ratios.append(ratio)
    command = shlex.join(["python", "benchmarks/scan_cuda.py", *sys.argv[1:]])
    text = "\n".join([
        "# The bidirectional scan on a GPU", "",
        f"GPU milliseconds, median of interleaved repeats, {CHANNELS} channels, {STATES} states. Made by `{command}` "
        f"on {torch.cuda.get_device_name()}, PyTorch {torch.__version__}. Limits: {STATES} exponentials for each step, "
        f"channel and direction; every input read and the output written once at {bandwidth / 1e6:.0f} GB/s, a copy's "
        "rate.", "",
        "| batch | L | dtype | ours | in a CUDA graph | mamba_ssm | limit: exp | limit: bytes |",
        "|---|---|---|---|---|---|---|---|", *lines, "",
    ])  # fmt: skip
    partial = arguments.output.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(arguments.output)
    print(f"wrote {arguments.output}")
    measured_ratios = [ratio for ratio in ratios if ratio is not None]
    return int(bool(measured_ratios) and min(measured_ratios) < BAR)


if __name__ == "__main__":
    sys.exit(main())
