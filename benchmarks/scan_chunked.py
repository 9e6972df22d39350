"""Measure what the scan's forms of ordinary operations cost and how exact they are, and write the table.

Operations and the elements that they write are counted while the bidirectional scan runs. All operations that compute
or copy count, slices included, because devices copy them; views do not count. Errors are those of scans computed in
float32 and in float16 throughout, against the float64 reference and relative to the largest result.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vmp_edge.ops import chunked, reference
from vmp_edge.ops.chunked import Form

RESULTS = Path(__file__).parent / "results" / "scan_chunked.md"
CHUNKS = (4, 8, 16, 32, 64, 128)
STEPS = (0.1, 2.0)  # largest step size after softplus; in trained models it is about 0.1
VIEWS = {"view", "_unsafe_view", "unsqueeze", "squeeze", "expand", "alias", "transpose", "t", "permute", "detach"}


class Shape(NamedTuple):
    """Sizes L, D and N of a scan; by default those of videomambapro-tiny at 8x224x224."""

    length: int
    channels: int = 384
    states: int = 16

    def inputs(self, largest_step: float, channels: int | None = None) -> dict[str, Tensor]:
        """Return inputs with step sizes that are log-uniform up to the largest, and decay rates of 1 .. N."""
        torch.manual_seed(0)
        d, n, length = channels or self.channels, self.states, self.length
        step = torch.exp(
            torch.empty(1, length, d, dtype=torch.float64).uniform_(math.log(1e-3), math.log(largest_step))
        )
        rates = -torch.arange(1, n + 1, dtype=torch.float32).repeat(d, 1)
        return {
            "x": torch.randn(1, length, d), "dt": (step + torch.log(-torch.expm1(-step))).float(),
            "A": rates, "A_b": 0.9 * rates, "B": torch.randn(1, length, n), "C": torch.randn(1, length, n),
            "D": torch.ones(d), "z": torch.randn(1, length, d), "dt_bias": torch.zeros(d),
        }  # fmt: skip


class Scan(nn.Module):
    """The bidirectional scan of VideoMambaPro, in a form of `chunked` or, for None, by the reference."""

    def __init__(self, form: Form | None) -> None:
        super().__init__()
        self.form = form

    def forward(self, **inputs: Tensor) -> Tensor:
        options = {"initial_state": "first_input", "mask_backward": True}
        if self.form is None:
            return reference.bi_selective_scan(**inputs, **options)
        return chunked.bi_selective_scan(**inputs, **options, form=self.form)


class Counter(TorchDispatchMode):
    """A mode that counts operations and the elements that they write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.written = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and func.overloadpacket.__name__ not in VIEWS:
            self.operations += 1
            self.written += result.numel()
        return result


def count(shape: Shape, form: Form | None) -> tuple[int, int]:
    """Count a form's operations, and the elements that they write."""
    inputs = {name: t.to("meta") for name, t in shape.inputs(0.1).items()}
    with Counter() as counter:
        Scan(form)(**inputs)
    return counter.operations, counter.written


def errors(shape: Shape, form: Form) -> list[float]:
    """Measure the largest difference over the largest result: in float32 for each of `STEPS`, then in float16."""
    values = []
    for dtype in (torch.float32, torch.float16):
        for largest_step in STEPS:
            inputs = {name: t.to(dtype) for name, t in shape.inputs(largest_step, channels=32).items()}
            exact = Scan(None)(**{name: t.double() for name, t in inputs.items()})
            y = Scan(form)(**inputs).double()
            values.append(float((y - exact).abs().max() / exact.abs().max()))
    return values


def rows(shape: Shape) -> list[str]:
    """Measure every form and format the table."""
    state = shape.length * shape.channels * shape.states
    lines = [
        "| form | chunk | operations | elements written, in L x D x N | float32, steps to 0.1 | to 2 | float16, to 0.1 "
        "| to 2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    operations, written = count(shape, None)
    lines.append(f"| step by step (the reference) | | {operations} | {written / state:.1f} | | | | |")
    forms = [("Hillis-Steele over all tokens", Form("hillis-steele", shape.length))]
    forms += [(name, Form(name, chunk)) for name in ("hillis-steele", "loop") for chunk in CHUNKS]
    forms.append(("loop, polynomial softplus", Form("loop", 16, "polynomial")))
    for name, form in forms:
        operations, written = count(shape, form)
        chunk = "" if form.chunk == shape.length else form.chunk
        numbers = " | ".join(f"{value:.1e}" for value in errors(shape, form))
        lines.append(f"| {name} | {chunk} | {operations} | {written / state:.1f} | {numbers} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Parse the command line, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1569, help="tokens (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="Markdown table to write (default: %(default)s)")
    args = parser.parse_args()
    shape = Shape(args.length)
    lines = [
        "# The scan made of ordinary operations",
        "",
        "Both directions of VideoMambaPro (residual start, masked backwards), B 1, "
        f"L {shape.length}, D {shape.channels}, N {shape.states}.",
        "Operations are those that compute or copy, slices included; views are not counted.",
        "Errors against the float64 reference on inputs of the same dtype, relative to the largest result, with D 32;",
        "in float16 every intermediate result is float16.",
        "",
        *rows(shape),
        "",
        f"torch {torch.__version__}. Made by `python benchmarks/scan_chunked.py {' '.join(sys.argv[1:])}`.".replace(
            " `.", "`."
        ),
        "",
    ]
    args.output.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
