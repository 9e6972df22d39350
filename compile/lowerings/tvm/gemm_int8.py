"""Generate int8 matrix products for CPUs in TIR; they quantise the activations themselves, a block of rows at a time.

As in `gemm`, a tile of the result stays in registers. One instruction multiplies a few neighbours along K and adds the
products up in each of a register's int32 lanes: ``vpdpbusd`` (AVX-512 VNNI: unsigned times signed), ``sdot`` (Arm), or
``vpmaddwd`` (AVX2: int16, to which the weights are widened where they are read). Only a block of rows is quantised at a
time, in a thread's own memory and small enough for its cache: there is never an array of all quantised rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...graph.pt2e import LEAST, MOST, Static, Weight
from .gemm import Gemm, Tile, broadcast


@dataclass(frozen=True)
class Dot:
    """The instruction of an instruction set that multiplies whole numbers.

    Attributes:
        tile: The register tile, measured by ``benchmarks/gemm.py`` where the instruction set can run.
        intrinsic: LLVM's name of the instruction.
        together: The number of products that are added up in a lane.
        dtype: The dtype of the activations.
        shift: The number that is added to an int8 activation to make it a `dtype`.
        adds: True if the instruction adds to the lanes, (lanes, activations, weights) -> lanes; False if we must add.
    """

    tile: Tile
    intrinsic: str
    together: int
    dtype: str
    shift: int = 0
    adds: bool = True

    @property
    def weights(self) -> str:
        """The dtype of the weights that the instruction takes."""
        return "int8" if self.adds else self.dtype


# The instruction of each instruction set; the keys are those of `gemm.TILES`.
DOTS = {
    "avx512": Dot(Tile(16, 12, 2, 4), "llvm.x86.avx512.vpdpbusd.512", 4, "uint8", shift=-LEAST),
    "avx2": Dot(Tile(8, 6, 2, 4), "llvm.x86.avx2.pmadd.wd", 2, "int16", adds=False),
    "neon": Dot(Tile(4, 8, 3), "llvm.aarch64.neon.sdot.v4i32.v16i8", 4, "int8"),
}


@dataclass(frozen=True)
class Int8Gemm(Gemm):
    """A product like `Gemm`, of int8 weights with a scale for each row, and of activations that become int8, too.

    With a = (q - z) * s, the sum of q * w over k starts at -z times the sum of w, and each result is s times the
    column's scale times the sum. The sum is exact: 66000 products of 255 * 127 fit int32.

    Attributes:
        dot: The instruction.
        dynamic: True if each row has its own s and z, as with `pt2e.Dynamic`; False if they are arguments.
    """

    dot: Dot = DOTS["avx512"]
    dynamic: bool = False
    sum: ClassVar[str] = "int32"

    @property
    def kind(self) -> str:
        """The kind of product, with which the function's name begins."""
        return "gemm_int8_dynamic" if self.dynamic else "gemm_int8"

    @property
    def steps(self) -> int:
        """The number of instructions along K."""
        return -(-self.k // self.dot.together)

    @property
    def width(self) -> int:
        """The length of a quantised row: K, filled up to whole steps."""
        return self.steps * self.dot.together

    def pack(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a weight (N, K) in the function's layout: (panels, steps, columns * together), with zeros added."""
        columns, together = self.tile.columns, self.dot.together
        padded = np.zeros((self.panels * columns, self.width), np.int8)
        padded[: self.n, : self.k] = weight
        by_step = padded.reshape(self.panels, columns, self.steps, together).transpose(0, 2, 1, 3)
        return np.ascontiguousarray(by_step).reshape(self.panels, self.steps, columns * together)

    def constants(self, weight: Weight) -> list[npt.NDArray[Any]]:
        """Return the packed weight, its sums over K and its scales, and the numbers of a static range."""
        assert weight.scales is not None
        sums = np.zeros(self.panels * self.tile.columns, np.int32)
        sums[: self.n] = weight.values.astype(np.int32).sum(1)
        shape, packed = (self.panels, self.tile.columns), self.pack(weight.values)
        if self.dynamic:
            return [packed, sums.reshape(shape), weight.scales]
        static, shift = weight.activations, self.dot.shift
        assert isinstance(static, Static)
        zero = static.zero_point + shift
        range_ = np.array([1 / static.scale, zero, static.least + shift, static.most + shift], np.float32)
        return [packed, (-zero * sums).reshape(shape), weight.scales * np.float32(static.scale), range_]

    def _weights(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the shapes and dtypes of `constants`: weight W, sums O, scales C and static range P."""
        columns = self.tile.columns
        return {
            "W": ((self.panels, self.steps, columns * self.dot.together), "int8"),
            "O": ((self.panels, columns), "int32"),
            "C": ((self.n,), "float32"),
            **({} if self.dynamic else {"P": ((4,), "float32")}),
        }

    def _prepare(self, name: str, row: str, rows: int) -> Iterator[str]:
        """Write Q, the quantised rows, and for dynamic ranges D, the scales, and Z, the negated zero points of Q."""
        for buffer in self._row_buffers():
            dtype = "int32" if buffer == "Z" else "float32"
            yield f"{buffer} = T.sblock_alloc_buffer(({rows},), '{dtype}', scope='local')"
        yield f"Q = T.sblock_alloc_buffer(({rows}, {self.width}), '{self.dot.dtype}')"
        yield f"for i in range({rows}):"
        yield f"    with T.sblock('{name}_quantised'):"
        yield f"        T.reads({', '.join([self._read_rows(row, rows), *([] if self.dynamic else ['P[0:4]'])])})"
        numbers = [f"{buffer}[i]" for buffer in self._row_buffers()]
        yield f"        T.writes({', '.join([*numbers, f'Q[i, 0:{self.width}]'])})"
        lines = [] if self.epsilon is None else list(self._norm(row))
        lines += self._range(row) if self.dynamic else []
        yield from (f"        {line}" for line in [*lines, *self._quantise(row)])

    def _row_buffers(self) -> list[str]:
        """Return the buffers of `_prepare` that have one number for each row."""
        return (["S"] if self.epsilon is not None else []) + (["D", "Z"] if self.dynamic else [])

    def _range(self, row: str) -> Iterator[str]:
        """Write D[i] and Z[i], as PyTorch's ``quantized_decomposed.choose_qparams_per_token_asymmetric`` gives them."""
        lanes = self.tile.lanes
        for buffer in ("least", "most"):
            yield f"{buffer} = T.sblock_alloc_buffer(({lanes},), 'float32', scope='local')"
            yield f"{buffer}[T.Ramp(0, 1, {lanes})] = T.Broadcast(T.float32(0), {lanes})"
        yield from self._walk(
            row,
            lambda x, lane, *_: [
                f"least[{lane}] = T.min(least[{lane}], {x})",
                f"most[{lane}] = T.max(most[{lane}], {x})",
            ],
        )
        yield from self._across("least", "T.min({}, {})")
        yield from self._across("most", "T.max({}, {})")
        norm = " * S[i]" if self.epsilon is not None else ""
        least, most = f"T.min(least[0], least[1]){norm}", f"T.max(most[0], most[1]){norm}"
        smallest = float(np.finfo(np.float32).eps)
        yield f"D[i] = T.max(({most} - {least}) / T.float32({MOST - LEAST}), T.float32({smallest!r}))"
        zero = f"T.nearbyint(T.float32({LEAST}) - {least} / D[i])"
        zero = f"T.min(T.max({zero}, T.float32({LEAST})), T.float32({MOST}))"
        yield f"Z[i] = T.int32({-self.dot.shift}) - T.Cast('int32', {zero})"

    def _quantise(self, row: str) -> Iterator[str]:
        """Write Q[i], rounded to the nearest, ties to even, and filled up with zeros."""
        shift = self.dot.shift
        least, most = (
            (f"T.float32({LEAST + shift})", f"T.float32({MOST + shift})") if self.dynamic else ("P[2]", "P[3]")
        )
        inverse, zero = ("T.float32(1) / D[i]", "T.Cast('float32', -Z[i])") if self.dynamic else ("P[0]", "P[1]")
        yield "scheme = T.sblock_alloc_buffer((2,), 'float32', scope='local')"
        yield f"scheme[0] = {inverse}"
        yield f"scheme[1] = {zero}"

        def lines(x: str, _: str, at: str, lanes: int) -> list[str]:
            x += f" * {broadcast('S[i]', lanes)}" if self.epsilon is not None else ""
            scaled, z = f"{x} * {broadcast('scheme[0]', lanes)}", broadcast("scheme[1]", lanes)
            # like PyTorch, which adds a token's zero point before the rounding and a tensor's after it
            q = f"T.nearbyint({scaled} + {z})" if self.dynamic else f"T.nearbyint({scaled}) + {z}"
            q = f"T.min(T.max({q}, {broadcast(least, lanes)}), {broadcast(most, lanes)})"
            width = f"x{lanes}" if lanes > 1 else ""
            return [f"Q[i, {at}] = T.Cast('{self.dot.dtype}{width}', T.Cast('int32{width}', {q}))"]

        yield from self._walk(row, lines)
        if self.width > self.k:
            yield f"for k in range({self.width - self.k}):"
            yield f"    Q[i, {self.k} + k] = T.{self.dot.dtype}(0)"

    def _prepared_regions(self, rows: int) -> list[str]:
        """Return the regions that a tile reads of the buffers of `_prepare`."""
        span = f"block * {rows}:block * {rows} + {rows}"
        numbers = [f"{buffer}[{span}]" for buffer in self._row_buffers()]
        return [*numbers, f"Q[{span}, 0:{self.width}]"]

    def _products(self, row: str, rows: int, panel: str, vectors: int) -> Iterator[str]:
        """Write the sums of a tile, which start at O or at Z * O."""
        lanes, together, dtype = self.tile.lanes, self.dot.together, self.dot.weights
        places = [f"T.Ramp({j * lanes}, 1, {lanes})" for j in range(vectors)]
        for i in range(rows):
            start = f"T.Broadcast(Z[block * {rows} + {i}], {lanes}) * " if self.dynamic else ""
            yield from (f"acc{i}[{at}] = {start}O[{panel}, {at}]" for at in places)
        wide = lanes * together
        yield f"for k in range({self.steps}):"
        for i in range(rows):
            word = f"T.reinterpret('int32', Q[block * {rows} + {i}, T.Ramp(k * {together}, 1, {together})])"
            a = f"T.reinterpret('{dtype}x{wide}', T.Broadcast({word}, {lanes}))"
            for j, at in enumerate(places):
                w = f"W[{panel}, k, T.Ramp({j * wide}, 1, {wide})]"
                w = w if dtype == "int8" else f"T.Cast('{dtype}x{wide}', {w})"
                arguments = f"acc{i}[{at}], {a}, {w}" if self.dot.adds else f"{a}, {w}"
                call = f"T.call_llvm_pure_intrin('int32x{lanes}', '{self.dot.intrinsic}', {arguments})"
                yield f"    acc{i}[{at}] = {call}" if self.dot.adds else f"    acc{i}[{at}] = acc{i}[{at}] + {call}"

    def _epilogue(self, value: str, row: str, at: str, shared: str, lanes: int) -> str:
        """Return the expression of the result for a sum: scaled, with bias and residual."""
        width = f"x{lanes}" if lanes > 1 else ""
        value = f"T.Cast('float32{width}', {value}) * C[{at}]"
        value += f" * {broadcast(f'D[{shared}]', lanes)}" if self.dynamic else ""
        return value + self._addends(row, at)
