"""One over the root mean square of each row, in TIR: what `graph.Normalise` multiplies by."""

from __future__ import annotations

import tvm
from tvm.script import tirx


def inverse_rms(rows: int, width: int, lanes: int, epsilon: float) -> tvm.tirx.PrimFunc:
    """The function of (x (rows, width), result (rows)), float32: rsqrt(mean(x * x) + epsilon).

    Args:
        rows: of x.
        width: numbers in a row.
        lanes: float32 numbers of a vector register; each lane adds up a share of the row.
        epsilon: added to the mean.
    """
    whole, rest = divmod(width, lanes)
    lines = [
        "@T.prim_func(private=True, s_tir=True)",
        f"def inverse_rms(X: T.Buffer(({rows}, {width}), 'float32'), Y: T.Buffer(({rows},), 'float32')):",
        "    T.func_attr({'op_pattern': 8, 'tirx.noalias': True})",
        f"    for row in T.parallel({rows}):",
        "        with T.sblock('row'):",
        f"            T.reads(X[row, 0:{width}])",
        "            T.writes(Y[row])",
        f"            squares = T.sblock_alloc_buffer(({lanes},), 'float32', scope='local')",
        "            total = T.sblock_alloc_buffer((1,), 'float32', scope='local')",
        f"            squares[T.Ramp(0, 1, {lanes})] = T.Broadcast(T.float32(0), {lanes})",
        "            total[0] = T.float32(0)",
    ]
    if whole:
        at, every = f"T.Ramp(i * {lanes}, 1, {lanes})", f"T.Ramp(0, 1, {lanes})"
        lines += [
            f"            for i in range({whole}):",
            f"                squares[{every}] = squares[{every}] + X[row, {at}] * X[row, {at}]",
        ]
    if rest:
        at = f"{whole * lanes} + i"
        lines += [
            f"            for i in range({rest}):",
            f"                total[0] = total[0] + X[row, {at}] * X[row, {at}]",
        ]
    lines += [
        f"            for i in range({lanes}):",
        "                total[0] = total[0] + squares[i]",
        f"            Y[row] = T.float32(1) / T.sqrt(total[0] * T.float32({1 / width!r}) + T.float32({epsilon!r}))",
    ]
    return tvm.script.from_source("\n".join(lines), extra_vars={"T": tirx})
