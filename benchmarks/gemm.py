"""Time a model's matrix products: generated, with the default tile and with the tuned one, beside PyTorch's linear.

One thread; every product takes its turn in each of the three ways, so that a slow moment hits all of them.
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

import torch
import torch.nn.functional as F
import tvm
from model import cpu_name

import vmp_edge
from vmp_edge.compile import graph, target, tuning
from vmp_edge.compile.cpu import products
from vmp_edge.compile.gemm import Gemm

RESULTS = Path(__file__).parent / "results" / "gemm.md"


def contenders(gemm: Gemm, kind: target.Target) -> dict[str, Callable[[], Any]]:
    """The product by itself, without what is fused into it, in each way."""
    tiles = tuning.load(kind)
    bare = Gemm(gemm.m, gemm.n, gemm.k, tiles.default)
    tuned = dataclasses.replace(bare, tile=tiles.of(gemm.m, gemm.n, gemm.k))
    a, weight = torch.randn(gemm.m, gemm.k), torch.randn(gemm.n, gemm.k)
    calls: dict[str, Callable[[], Any]] = {"PyTorch": lambda: F.linear(a, weight)}
    expected, y = F.linear(a, weight), tvm.runtime.tensor(torch.zeros(gemm.m, gemm.n).numpy())
    for name, variant in (("default", bare), ("tuned", tuned)):
        function = variant.function().with_attr("global_symbol", "product")
        machine = tvm.target.Target({"kind": "llvm", **(kind.llvm or {})})
        compiled = tvm.compile(tvm.IRModule({"product": function}), target=machine)["product"]
        arguments = [tvm.runtime.tensor(array) for array in (a.numpy(), variant.pack(weight.numpy()))]
        calls[name] = lambda compiled=compiled, arguments=arguments: compiled(*arguments, y)
        calls[name]()
        torch.testing.assert_close(torch.from_numpy(y.numpy()), expected, atol=1e-3, rtol=1e-3)
    return calls


def measure(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, run in calls.items():
            start = time.thread_time()
            run()
            seconds[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="videomambapro-tiny", help="a preset (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=41, help="turns that each gets (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the table (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kind = target.native()
    found = products(graph.export(vmp_edge.models.create(args.model)), tuning.load(kind))
    rows = []
    for gemm in sorted((gemm for gemm in found if gemm.m > 1), key=lambda gemm: -gemm.n * gemm.k):
        times = measure(contenders(gemm, kind), args.repeats)
        work = 2e-9 * gemm.m * gemm.n * gemm.k
        cells = [f"{seconds * 1e3:.2f} ({work / seconds:.0f})" for seconds in times.values()]
        rows.append(
            f"| {gemm.m} x {gemm.n} x {gemm.k} | {' | '.join(cells)} | {times['PyTorch'] / times['tuned']:.2f} |"
        )
    lines = [
        "# Matrix products",
        "",
        f"Those of {args.model}, (M, N) from K, float32, one thread: ms, and GFLOPS in brackets. Medians of one run,",
        "in CPU time of the thread; ratios within it. PyTorch allocates its result, the others write over one.",
        "",
        "| M x N x K | PyTorch | generated, default tile | generated, tuned tile | tuned over PyTorch |",
        "|---|---|---|---|---|",
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
