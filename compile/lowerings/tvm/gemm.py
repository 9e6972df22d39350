"""Matrix products in TIR: generated, register-tiled, over weights that were packed at build time.

TVM's wheel has no usable CPU schedule for a matrix product (a default one is some 70 times slower). What is generated
here keeps a tile of the result in vector registers while it walks along K: for each k one row of the packed panel is
loaded, and each row's scalar is broadcast against it. Rows are spread over threads, a block of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tvm
from tvm.script import tirx

from ...graph.pt2e import Weight


@dataclass(frozen=True)
class Tile:
    """How many numbers of the result are in registers at once.

    Attributes:
        lanes: float32 numbers of a vector register.
        rows: of the tile; ``rows * vectors`` accumulators plus ``vectors`` registers for the weights must fit.
        vectors: vector registers that a row of the tile takes.
        blocks: tiles, one below the other, that take a panel of the weights in turn before the next panel is read.
    """

    lanes: int
    rows: int
    vectors: int
    blocks: int = 1

    @property
    def columns(self) -> int:
        """Numbers in a row of the tile."""
        return self.lanes * self.vectors


# By instruction set, untuned. AVX-512 and NEON have 32 vector registers, AVX2 has 16.
TILES = {"avx512": Tile(16, 14, 2), "avx2": Tile(8, 6, 2), "neon": Tile(4, 8, 3)}
REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32}


@dataclass(frozen=True)
class Tiles:
    """The tile of each product: `tuned` where its (M, N, K) is known, else `default`."""

    default: Tile
    tuned: Mapping[tuple[int, int, int], Tile] = field(default_factory=dict)

    def of(self, m: int, n: int, k: int) -> Tile:
        """Of result (M, N) from A (M, K)."""
        return self.tuned.get((m, n, k), self.default)


@dataclass(frozen=True)
class Gemm:
    """result (M, N) = normalise(A (M, K)) @ W^T + bias + residual: norm, bias and residual each optional.

    W is float32, or int8 with a scale for each of its rows, and then a fourth of the size.

    Attributes:
        m, n, k: sizes.
        tile: the register tile.
        row: numbers in a row of the array that A is a part of; None where that is all of it.
        first: of the columns of that array that are A's.
        epsilon: each row of A is multiplied by rsqrt(mean(row * row) + epsilon), as `graph.Normalise` does; None: not.
        bias: whether (N) is added to each row.
        residual: whether (M, N) is added.
        scaled: whether W is int8; it is widened where it is read, and each column of the result gets its scale.
    """

    m: int
    n: int
    k: int
    tile: Tile
    row: int | None = None
    first: int = 0
    epsilon: float | None = None
    bias: bool = False
    residual: bool = False
    scaled: bool = False
    sum: ClassVar[str] = "float32"  # the accumulators' dtype

    @property
    def kind(self) -> str:
        """What the name begins with."""
        return "gemm_int8_weights" if self.scaled else "gemm"

    @property
    def name(self) -> str:
        """Of the function, unique among the products of a model."""
        words = [self.kind, f"{self.m}x{self.n}x{self.k}"]
        words += [f"from{self.first}of{self.row}"] if self.row else []
        words += ["normalised"] if self.epsilon is not None else []
        return "_".join(words + [word for word in ("bias", "residual") if getattr(self, word)])

    @property
    def panels(self) -> int:
        """Of the packed weights, each of a tile's columns."""
        return -(-self.n // self.tile.columns)

    def pack(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A weight (N, K) as the function reads it: (panels, K, columns), zeros beyond N."""
        padded = np.zeros((self.panels * self.tile.columns, self.k), weight.dtype)
        padded[: self.n] = weight
        return np.ascontiguousarray(padded.reshape(self.panels, self.tile.columns, self.k).transpose(0, 2, 1))

    def constants(self, weight: Weight) -> list[npt.NDArray[Any]]:
        """What the function takes between A and the bias, of a weight (N, K)."""
        return [self.pack(weight.values), *([weight.scales] if weight.scales is not None else [])]

    def function(self) -> tvm.tirx.PrimFunc:
        """The function of (array with A, packed W[, scales][, bias][, residual], result)."""
        return tvm.script.from_source("\n".join(self._source()), extra_vars={"T": tirx})

    def _weights(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shapes and dtypes of `constants`."""
        shape = (self.panels, self.k, self.tile.columns)
        return {"W": (shape, "int8"), "C": ((self.n,), "float32")} if self.scaled else {"W": (shape, "float32")}

    def _source(self) -> Iterator[str]:
        tile = self.tile
        buffers = {"A": ((self.m, self.row or self.k), "float32"), **self._weights()}
        buffers |= {"B": ((self.n,), "float32")} if self.bias else {}
        buffers |= {"R": ((self.m, self.n), "float32")} if self.residual else {}
        buffers |= {"Y": ((self.m, self.n), "float32")}
        arguments = ", ".join(f"{name}: T.Buffer({shape}, '{dtype}')" for name, (shape, dtype) in buffers.items())
        yield "@T.prim_func(private=True, s_tir=True)"
        yield f"def gemm({arguments}):"
        # 8 is an opaque function, which no pass fuses; without the other each store is a load again
        yield "    T.func_attr({'op_pattern': 8, 'tirx.noalias': True})"
        span = tile.rows * tile.blocks
        tasks, rest = divmod(self.m, span)
        below, left = divmod(rest, tile.rows)
        if tasks:
            yield f"    for task in T.parallel({tasks}):"
            yield from self._rows("task", f"task * {span}", tile.rows, tile.blocks, "        ")
        if below:
            yield from self._rows("below", str(tasks * span), tile.rows, below, "    ")
        if left:
            yield from self._rows("left", str(self.m - left), left, 1, "    ")

    def _rows(self, name: str, row: str, rows: int, blocks: int, indent: str) -> Iterator[str]:
        """All panels of some blocks of rows: the whole ones in a loop, what is left of the last one by itself."""
        panels, rest = divmod(self.n, self.tile.columns)
        all_rows = rows * blocks
        shared = list(self._prepare(name, row, all_rows))
        if shared:  # a block around the tiles, for what they share
            yield f"{indent}with T.sblock('{name}'):"
            indent += "    "
            yield f"{indent}T.reads({self._reads(row, all_rows, f'0:{self.panels}', '0', self.n)})"
            yield f"{indent}T.writes(Y[{row}:{row} + {all_rows}, 0:{self.n}])"
            yield from (indent + line for line in shared)
        within = indent + "    "
        if panels:
            yield f"{indent}for panel, block in T.grid({panels}, {blocks}):"
            yield from self._tile(f"{name}_panel", row, rows, "panel", self.tile.columns, within)
        if rest:
            yield f"{indent}for block in range({blocks}):"
            yield from self._tile(f"{name}_last", row, rows, str(panels), rest, within)

    def _reads(self, row: str, rows: int, panels: str, first: str, columns: int) -> str:
        """The arguments that some rows and columns of the result need, as a block lists them."""
        span = f"{first}:{first} + {columns}"
        reads = [self._read_rows(row, rows)]
        for name, (shape, _) in self._weights().items():
            first_axis = panels if shape[0] == self.panels and name != "C" else span
            reads.append(f"{name}[{', '.join([first_axis, *(f'0:{size}' for size in shape[1:])])}]")
        reads += [f"B[{span}]"] if self.bias else []
        reads += [f"R[{row}:{row} + {rows}, {span}]"] if self.residual else []
        return ", ".join(reads)

    def _read_rows(self, row: str, rows: int) -> str:
        return f"A[{row}:{row} + {rows}, {self.first}:{self.first + self.k}]"

    def _prepare(self, name: str, row: str, rows: int) -> Iterator[str]:
        """What the tiles of some rows share: the scales of normalised ones."""
        if self.epsilon is not None:
            yield f"S = T.sblock_alloc_buffer(({rows},), 'float32', scope='local')"
            yield f"for i in range({rows}):"
            yield f"    with T.sblock('{name}_scales'):"
            yield f"        T.reads({self._read_rows(row, rows)})"
            yield "        T.writes(S[i])"
            yield from (f"        {line}" for line in self._norm(row))

    def _walk(self, row: str, body: Callable[[str, str, str, int], Iterable[str]]) -> Iterator[str]:
        """A loop over the vectors of row `i`, then one over what is left.

        Args:
            row: that `i` counts from.
            body: lines of a loop, from the numbers, their places in a vector and in the row, and how many they are.
        """
        lanes = self.tile.lanes
        whole, rest = divmod(self.k, lanes)
        if whole:
            yield f"for k in range({whole}):"
            at = f"A[{row} + i, T.Ramp({self.first} + k * {lanes}, 1, {lanes})]"
            places = f"T.Ramp(0, 1, {lanes})", f"T.Ramp(k * {lanes}, 1, {lanes})"
            yield from (f"    {line}" for line in body(at, *places, lanes))
        if rest:
            yield f"for k in range({rest}):"
            at = f"A[{row} + i, {self.first + whole * lanes} + k]"
            yield from (f"    {line}" for line in body(at, "k", f"{whole * lanes} + k", 1))

    def _across(self, buffer: str, combine: str) -> Iterator[str]:
        """Combine a vector's lanes by halves, until two are left."""
        half = self.tile.lanes // 2
        while half > 1:
            low, high = f"{buffer}[T.Ramp(0, 1, {half})]", f"{buffer}[T.Ramp({half}, 1, {half})]"
            yield f"{low} = {combine.format(low, high)}"
            half //= 2

    def _norm(self, row: str) -> Iterator[str]:
        """S[i]: one over the root mean square of row `i`, whose squares are added up in vectors, then by halves."""
        lanes = self.tile.lanes
        yield f"squares = T.sblock_alloc_buffer(({lanes},), 'float32', scope='local')"
        yield f"squares[T.Ramp(0, 1, {lanes})] = T.Broadcast(T.float32(0), {lanes})"
        yield from self._walk(row, lambda x, lane, *_: [f"squares[{lane}] = squares[{lane}] + {x} * {x}"])
        yield from self._across("squares", "{} + {}")
        mean = f"(squares[0] + squares[1]) * T.float32({1 / self.k!r})"
        yield f"S[i] = T.float32(1) / T.sqrt({mean} + T.float32({self.epsilon!r}))"

    def _tile(self, name: str, first_row: str, rows: int, panel: str, columns: int, indent: str) -> Iterator[str]:
        """The `block`-th tile. An accumulator buffer a row: larger ones (over 1024 bytes) would come from the heap."""
        lanes = self.tile.lanes
        vectors = -(-columns // lanes)
        first, row = f"{panel} * {self.tile.columns}", f"{first_row} + block * {rows}"
        yield f"{indent}with T.sblock('{name}'):"
        indent += "    "
        reads = [self._reads(row, rows, panel, first, columns), *self._shared(rows)]
        yield f"{indent}T.reads({', '.join(reads)})"
        yield f"{indent}T.writes(Y[{row}:{row} + {rows}, {first}:{first} + {columns}])"
        for i in range(rows):
            yield f"{indent}acc{i} = T.sblock_alloc_buffer(({vectors * lanes},), '{self.sum}', scope='local')"
        yield from (indent + line for line in self._products(row, rows, panel, vectors))
        for i in range(rows):
            yield from self._store(i, f"{row} + {i}", f"block * {rows} + {i}", first, columns, indent)

    def _shared(self, rows: int) -> list[str]:
        """What a tile reads of what `_prepare` made."""
        return [f"S[block * {rows}:block * {rows} + {rows}]"] if self.epsilon is not None else []

    def _products(self, row: str, rows: int, panel: str, vectors: int) -> Iterator[str]:
        """The sums of a tile."""
        lanes = self.tile.lanes
        places = [f"T.Ramp({j * lanes}, 1, {lanes})" for j in range(vectors)]
        for i in range(rows):
            yield from (f"acc{i}[{at}] = T.Broadcast(T.float32(0), {lanes})" for at in places)
        yield f"for k in range({self.k}):"
        for i in range(rows):
            for at in places:
                weight = f"W[{panel}, k, {at}]"
                weight = f"T.Cast('float32x{lanes}', {weight})" if self.scaled else weight
                product = f"T.Broadcast(A[{row} + {i}, {self.first} + k], {lanes}) * {weight}"
                yield f"    acc{i}[{at}] = acc{i}[{at}] + {product}"

    def _store(self, i: int, row: str, shared: str, first: str, columns: int, indent: str) -> Iterator[str]:
        """A row of a tile: whole vectors, then single numbers.

        Args:
            i: of the tile's rows.
            row: of the result.
            shared: of what `_prepare` made.
            first, columns: which part of the row.
            indent: before each line.
        """
        lanes = self.tile.lanes
        whole = columns // lanes
        for j in range(whole):
            at = f"T.Ramp({first} + {j * lanes}, 1, {lanes})"
            value = self._epilogue(f"acc{i}[T.Ramp({j * lanes}, 1, {lanes})]", row, at, shared, lanes)
            yield f"{indent}Y[{row}, {at}] = {value}"
        if columns % lanes:
            yield f"{indent}for j in range({columns % lanes}):"
            at = f"{first} + {whole * lanes} + j"
            value = self._epilogue(f"acc{i}[{whole * lanes} + j]", row, at, shared, 1)
            yield f"{indent}    Y[{row}, {at}] = {value}"

    def _epilogue(self, value: str, row: str, at: str, shared: str, lanes: int) -> str:
        value += f" * {broadcast(f'S[{shared}]', lanes)}" if self.epsilon is not None else ""
        value += f" * C[{at}]" if self.scaled else ""
        return value + self._added(row, at)

    def _added(self, row: str, at: str) -> str:
        return (f" + B[{at}]" if self.bias else "") + (f" + R[{row}, {at}]" if self.residual else "")


def broadcast(value: str, lanes: int) -> str:
    """A number for all lanes of a vector; itself for one."""
    return f"T.Broadcast({value}, {lanes})" if lanes > 1 else value
