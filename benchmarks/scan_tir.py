"""Time the bidirectional scan as generated TIR beside the native kernel, one thread, one run, and write the table.

The TVM engine could use either. The generated scan is written like the native kernel as far as TIR can express it: a
task for each block of channels, all states of a block in registers, softplus kept for the second direction, a
polynomial for exp. TIR cannot express the table in a register that makes the native exp shorter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
import tvm_ffi
from model import cpu_name
from scan import Shape
from tvm.script import tirx

from vmp_edge.compile import target
from vmp_edge.compile.cross import cross_compiler
from vmp_edge.compile.lowerings.tvm.gemm import TILES
from vmp_edge.compile.lowerings.tvm.lowering import link_library
from vmp_edge.machine import host_machine
from vmp_edge.ops import _native, reference
from vmp_edge.runtimes.tvm.library import build_operators

RESULTS = Path(__file__).parent / "results" / "scan_tir.md"
EXP2 = (1.0, 0.693147004, 0.240222424, 0.0555073358, 0.00967151299, 0.00132647273)
LOG1P = (1.0, 0.333332092, 0.200107634, 0.140009016, 0.140059978)  # atanh(s) / s in s * s
LOG2_E = 1.4426950408889634
ARRAYS = ("x", "dt", "A", "A_b", "B", "C", "D", "z", "dt_bias", "y")


class Lines:
    """TVMScript statements on vectors of `lanes` channels."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes

    def splat(self, value: float | str) -> str:
        """Put a number, or an element of an array, into every lane."""
        return f"T.Broadcast({f'T.float32({value!r})' if isinstance(value, float) else value}, {self.lanes})"

    def exp2(self, name: str, value: str) -> Iterator[str]:
        """Write name = 2^value for values up to 127; results that would be subnormal become 2^-126."""
        magic = self.splat(12582912.0)  # 1.5 * 2^23: the last bits of the sum are the whole number
        yield f"{name}_v = T.max({value}, {self.splat(-126.0)})"
        yield f"{name}_k = {name}_v + {magic}"
        yield f"{name}_r = {name}_v - ({name}_k - {magic})"
        bits = f"T.reinterpret('int32x{self.lanes}', {name}_k)"
        shifted = f"T.shift_left({bits}, T.Broadcast(T.int32(23), {self.lanes}))"
        power = f"T.reinterpret('int32x{self.lanes}', {self.polynomial(EXP2, f'{name}_r')})"
        yield f"{name} = T.reinterpret('float32x{self.lanes}', {power} + {shifted})"

    def softplus(self, name: str, value: str) -> Iterator[str]:
        """Write name = max(value, 0) + log(1 + exp(-|value|))."""
        yield f"{name}_in = {value}"
        zero = self.splat(0.0)
        yield f"{name}_size = T.max({name}_in, {zero} - {name}_in)"
        yield from self.exp2(f"{name}_e", f"{name}_size * {self.splat(-LOG2_E)}")
        yield f"{name}_s = {name}_e / ({name}_e + {self.splat(2.0)})"
        yield f"{name}_q = {name}_s * {name}_s"
        yield f"{name} = T.max({name}_in, {zero}) + ({name}_s + {name}_s) * {self.polynomial(LOG1P, f'{name}_q')}"

    def polynomial(self, coefficients: tuple[float, ...], x: str) -> str:
        """Write a polynomial by Horner's rule."""
        result = self.splat(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = f"({result} * {x} + {self.splat(coefficient)})"
        return result


def scan_source(length: int, channels: int, states: int, lanes: int, first_input: bool, mask: bool) -> Iterator[str]:
    """Write the scan as a TIR function of `ARRAYS`.

    A and A_b are (states, channels) and multiplied by log2(e). The number of channels is a multiple of that of lanes.
    """
    v = Lines(lanes)
    wide, narrow = (length, channels), (length, states)
    shapes = {"A": (states, channels), "A_b": (states, channels), "B": narrow, "C": narrow}
    shapes |= {"D": (channels,), "dt_bias": (channels,)}
    arguments = ", ".join(f"{name}: T.Buffer({shapes.get(name, wide)}, 'float32')" for name in ARRAYS)
    block = f"T.Ramp(block * {lanes}, 1, {lanes})"
    lane_range = f"T.Ramp(0, 1, {lanes})"
    yield "@T.prim_func(private=True, s_tir=True)"
    yield f"def scan({arguments}):"
    yield "    T.func_attr({'op_pattern': 8, 'tirx.noalias': True})"
    yield f"    for block in T.parallel({channels // lanes}):"
    yield "        with T.sblock('scan'):"
    extents = {name: ", ".join(f"0:{size}" for size in shapes.get(name, wide)) for name in ARRAYS}
    yield f"            T.reads({', '.join(f'{name}[{extents[name]}]' for name in ARRAYS[:-1])})"
    yield f"            T.writes(y[{extents['y']}])"
    yield f"            kept = T.sblock_alloc_buffer(({length}, {lanes}), 'float32')"
    for n in range(states):
        yield f"            h{n} = T.sblock_alloc_buffer(({lanes},), 'float32', scope='local')"
    for reverse, rates in enumerate(("A", "A_b")):
        first = length - 1 if reverse else 0
        start = f"x[{first}, {block}]" if first_input else v.splat(0.0)
        yield from (f"            h{n}[{lane_range}] = {start}" for n in range(states))
        yield f"            for step{reverse} in range({length}):"
        t = f"{length - 1} - step{reverse}" if reverse else f"step{reverse}"
        lines = _step(v, t, states, rates, bool(reverse), bool(reverse) and mask, f"step{reverse}", block, lane_range)
        yield from (f"                {line}" for line in lines)


def _step(
    v: Lines, t: str, states: int, rates: str, last: bool, masked: bool, step: str, block: str, lane_range: str
) -> Iterator[str]:
    """Write one step of one direction; the `last` direction adds its result to the first one's and gates the sum."""
    tag = "b" if last else "a"
    if last:
        yield f"delta_b = kept[{t}, {lane_range}]"
    else:
        yield from v.softplus("delta_a", f"dt[{t}, {block}] + dt_bias[{block}]")
        yield f"kept[{t}, {lane_range}] = delta_a"
    yield f"u_{tag} = delta_{tag} * x[{t}, {block}]"
    sums: list[str] = []
    for n in range(states):
        name = f"{tag}{n}"
        yield from v.exp2(f"power_{name}", f"delta_{tag} * {rates}[{n}, {block}]")
        yield f"decayed_{name} = power_{name} * h{n}[{lane_range}]"
        yield f"state_{name} = decayed_{name} + u_{tag} * {v.splat(f'B[{t}, {n}]')}"
        yield f"h{n}[{lane_range}] = state_{name}"
        term = f"{'decayed' if masked else 'state'}_{name} * {v.splat(f'C[{t}, {n}]')}"
        yield f"sum_{name} = {sums[n - 2]} + {term}" if n > 1 else f"sum_{name} = {term}"
        sums.append(f"sum_{name}")
    total = " + ".join(sums[-2:])
    if not last:
        yield f"y[{t}, {block}] = {total} + {v.splat(2.0)} * D[{block}] * x[{t}, {block}]"
        return
    unless_first = f"T.if_then_else({step} == 0, T.float32(0), T.float32(1))"
    yield f"total_b = y[{t}, {block}] + " + (f"({total}) * {v.splat(unless_first)}" if masked else total)
    yield f"gate = z[{t}, {block}]"
    yield from v.exp2("closed", f"T.min(gate * {v.splat(-LOG2_E)}, {v.splat(126.0)})")
    yield f"y[{t}, {block}] = total_b * gate / ({v.splat(1.0)} + closed)"


def compile_scan(shape: tuple[int, int, int], first_input: bool = False, mask: bool = False) -> Callable[..., Any]:
    """Compile the generated scan of (length, channels, states) for this CPU."""
    kind = target.native()
    assert kind.llvm is not None and kind.simd is not None
    source = "\n".join(scan_source(*shape, TILES[kind.simd].lanes, first_input, mask))
    function = tvm.script.from_source(source, extra_vars={"T": tirx}).with_attr("global_symbol", "scan")
    module = tvm.compile(tvm.IRModule({"scan": function}), target=tvm.target.Target({"kind": "llvm", **kind.llvm}))
    return module["scan"]


def as_tir(inputs: dict[str, torch.Tensor]) -> list[Any]:
    """Return the inputs of one batch item as the generated scan takes them, and an array for its result."""
    arrays = []
    for name in ARRAYS[:-1]:
        array = inputs[name]
        array = (array * LOG2_E).T if name in ("A", "A_b") else array.flatten(0, array.dim() - 2)
        arrays.append(
            tvm.runtime.tensor(np.ascontiguousarray(array.reshape(-1) if name in ("D", "dt_bias") else array))
        )
    return [*arrays, tvm.runtime.tensor(np.zeros(inputs["x"].shape[1:], np.float32))]


def check() -> float:
    """Return the largest difference from the reference over all options, relative to the largest result."""
    largest = 0.0
    shape = Shape("Tiny", 1)
    inputs = {name: t[:, :65] if t.dim() == 3 else t for name, t in shape.inputs().items()}
    for first_input in (False, True):
        for mask in (False, True):
            scan = compile_scan((65, shape.channels, 16), first_input, mask)
            arguments = as_tir(inputs)
            scan(*arguments)
            start = "first_input" if first_input else "zero"
            wide = {name: t.double() for name, t in inputs.items()}
            exact = reference.bi_selective_scan(**wide, initial_state=start, mask_backward=mask)[0].numpy()
            largest = max(largest, float(np.abs(arguments[-1].numpy() - exact).max() / np.abs(exact).max()))
    return largest


def native_scan(folder: Path) -> Callable[..., Any]:
    """Build a library of the operator that is linked into bundles, and return the operator."""
    path = folder / "operators.so"
    link_library(cross_compiler(host_machine()), str(path), [], build_operators())
    function: Callable[..., Any] = tvm_ffi.load_module(str(path))["vmp_bi_selective_scan"]
    return function


def measure(repeats: int) -> dict[str, float]:
    """Measure the median CPU seconds of each scan on one thread, in turns; the result arrays are allocated before."""
    shape = Shape("Tiny", 8)
    inputs = shape.inputs()
    generated, arguments = compile_scan((shape.length, shape.channels, 16)), as_tir(inputs)
    tensors = [tvm.runtime.tensor(tensor.numpy()) for tensor in inputs.values()]
    y = tvm.runtime.tensor(np.zeros(inputs["x"].shape, np.float32))
    with tempfile.TemporaryDirectory() as folder:
        native = native_scan(Path(folder))
        contenders = {
            "generated TIR": lambda: generated(*arguments),
            f"native, {_native.isa()}": lambda: native(*tensors, 0, 0, 0, 0, 0, 0, 0, y),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name, run in contenders.items():
                start = time.thread_time()
                run()
                seconds[name].append(time.thread_time() - start)
    np.testing.assert_allclose(y.numpy()[0], arguments[-1].numpy(), atol=1e-4, rtol=1e-4)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Check the generated scan, measure both, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=31, help="turns of each scan (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="Markdown table to write (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    difference = check()
    if not difference < 1e-5:
        sys.exit(f"the generated scan differs from the reference by {difference:.1e}; at most 1e-5 is allowed")
    times = measure(args.repeats)
    rows = [f"| {name} | {t * 1e3:.2f} | {times['generated TIR'] / t:.2f} |" for name, t in times.items()]
    lines = [
        "# The scan as generated TIR",
        "",
        "Both directions, B 1, L 1569, D 384, N 16, float32, one thread. Medians of one run, in CPU time of the",
        f"thread; ratios within it. The generated scan is at most {difference:.0e} from the reference, relative to the",
        "largest result, over initial states and masks.",
        "",
        "| scan | ms | speed over TIR |",
        "|---|---|---|",
        *rows,
        "",
        f"{cpu_name()}; target {target.native().name}, apache-tvm {tvm.__version__}. Made by "
        f"`{' '.join(['python benchmarks/scan_tir.py', *sys.argv[1:]])}`.",
        "",
    ]
    args.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
