"""Time a model's matrix products: TVM's code with the default tile, with the tuned tile and in int8, beside PyTorch.

One thread. The variants of a product run in turns, so that a slow moment affects all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tvm
from model import cpu_name

import vmp_edge
from vmp_edge.compile import graph, target
from vmp_edge.compile.graph.pt2e import Activations, Dynamic, Static, Weight
from vmp_edge.compile.lowerings.tvm import tuning
from vmp_edge.compile.lowerings.tvm.cpu import products
from vmp_edge.compile.lowerings.tvm.gemm import Gemm
from vmp_edge.compile.lowerings.tvm.gemm_int8 import DOTS, Int8Gemm

RESULTS = Path(__file__).parent / "results" / "gemm.md"


def contenders(gemm: Gemm, kind: target.Target) -> dict[str, Callable[[], Any]]:
    """Return a function for each variant of a product, without the operations that are fused into it."""
    assert kind.simd is not None
    tiles, dot = tuning.load(kind), DOTS[kind.simd]
    bare = Gemm(gemm.m, gemm.n, gemm.k, tiles.default)
    tuned = dataclasses.replace(bare, tile=tiles.of(gemm.m, gemm.n, gemm.k))
    static = Int8Gemm(gemm.m, gemm.n, gemm.k, dot.tile, dot=dot)
    a, weight = torch.randn(gemm.m, gemm.k), torch.randn(gemm.n, gemm.k)
    expected = F.linear(a, weight)
    calls: dict[str, Callable[[], Any]] = {"PyTorch": lambda: F.linear(a, weight)}
    variants: dict[str, tuple[Gemm, Weight]] = {
        "default": (bare, Weight(weight.numpy())),
        "tuned": (tuned, Weight(weight.numpy())),
        "int8": (static, quantise_rows(weight.numpy(), Static(float(a.abs().max()) / 127, 0))),
        "int8-dynamic": (dataclasses.replace(static, dynamic=True), quantise_rows(weight.numpy(), Dynamic())),
        "int8-weight-only": (dataclasses.replace(tuned, scaled=True), quantise_rows(weight.numpy(), None)),
    }
    for name, (variant, constants) in variants.items():
        calls[name], result = compile_product(variant, kind, a.numpy(), constants)
        calls[name]()
        error = float((torch.from_numpy(result.numpy()) - expected).norm() / expected.norm())
        assert error < (1e-5 if constants.scales is None else 0.05), f"{name}: {error}"
    return calls


def quantise_rows(weight: np.ndarray, activations: Activations | None) -> Weight:
    """Quantise a weight to int8, each row with the scale of its largest number."""
    scales = np.abs(weight).max(1) / 127
    return Weight(np.rint(weight / scales[:, None]).astype(np.int8), scales, activations)


def compile_product(gemm: Gemm, kind: target.Target, a: np.ndarray, weight: Weight) -> tuple[Callable[[], Any], Any]:
    """Compile a product; return a function that computes it, and the tensor that gets the result."""
    machine = tvm.target.Target({"kind": "llvm", **(kind.llvm or {})})
    function = gemm.function().with_attr("global_symbol", "product")
    call = tvm.compile(tvm.IRModule({"product": function}), target=machine)["product"]
    result = tvm.runtime.tensor(np.zeros((gemm.m, gemm.n), np.float32))
    arguments = [tvm.runtime.tensor(array) for array in (a, *gemm.constants(weight))]
    return lambda: call(*arguments, result), result


def measure(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median CPU seconds of each function; they run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, run in calls.items():
            start = time.thread_time()
            run()
            seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Parse the command line, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="videomambapro-tiny", help="a preset (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=41, help="repetitions of each variant (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kind = target.native("int8")
    assert kind.simd is not None
    gemms = products(graph.export(vmp_edge.models.create(args.model)), tuning.load(kind), DOTS[kind.simd])
    rows = []
    for gemm in sorted((gemm for gemm in gemms if gemm.m > 1), key=lambda gemm: -gemm.n * gemm.k):
        times = measure(contenders(gemm, kind), args.repeats)
        work = 2e-9 * gemm.m * gemm.n * gemm.k
        cells = [f"{seconds * 1e3:.2f} ({work / seconds:.0f})" for seconds in times.values()]
        over = times["PyTorch"] / times["tuned"], times["tuned"] / times["int8"], times["tuned"] / times["int8-dynamic"]
        ratios = [f"{ratio:.2f}" for ratio in over]
        rows.append(f"| {gemm.m} x {gemm.n} x {gemm.k} | {' | '.join([*cells, *ratios])} |")
    lines = [
        "# Matrix products",
        "",
        f"The products of {args.model}, (M, N) from K, one thread: ms, and 10^9 operations per second in brackets.",
        "Medians of one run in CPU time of the thread; ratios within the run. PyTorch allocates its result; the other",
        "variants write into one buffer. PyTorch and the first two generated variants compute in float32. The int8",
        "variants take and give float32; quantising is part of their time.",
        "",
        "| M x N x K | PyTorch | generated, default tile | tuned tile | int8 | int8-dynamic | int8-weight-only "
        "| tuned over PyTorch | int8 over tuned | int8-dynamic over tuned |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"{cpu_name()}; target {kind.name}, torch {torch.__version__}, apache-tvm {tvm.__version__}. Made by "
        f"`{' '.join(['python benchmarks/gemm.py', *sys.argv[1:]])}`.",
        "",
    ]
    args.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
