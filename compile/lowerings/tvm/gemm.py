"""Generate matrix products for CPUs in TIR: register-tiled, over weights that are packed at build time.

TVM's wheel has no usable CPU schedule for a matrix product (a default one is some 70 times slower). The functions that
are generated here keep a tile of the result in vector registers while they walk along K: for each k they load one row
of the packed panel and multiply it with the broadcast number of each row of A. Threads share the rows, a block at a
time.
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
    """The part of the result that is in registers at once.

    Attributes:
        lanes: The number of float32 numbers in a vector register.
        rows: The rows of the tile; ``rows * vectors`` accumulators and ``vectors`` registers of weights must fit.
        vectors: The number of vector registers that a row of the tile takes.
        blocks: The number of tiles, one below the other, that use a panel of the weights before the next one is read.
    """

    lanes: int
    rows: int
    vectors: int
    blocks: int = 1

    @property
    def columns(self) -> int:
        """The number of numbers in a row of the tile."""
        return self.lanes * self.vectors


# The untuned tile and the number of vector registers of each instruction set.
TILES = {"avx512": Tile(16, 14, 2), "avx2": Tile(8, 6, 2), "neon": Tile(4, 8, 3)}
REGISTERS = {"avx512": 32, "avx2": 16, "neon": 32}


@dataclass(frozen=True)
class Tiles:
    """The tile of each product.

    Attributes:
        default: The tile of products that were not tuned.
        tuned: The tiles of tuned products by their sizes (M, N, K).
    """

    default: Tile
    tuned: Mapping[tuple[int, int, int], Tile] = field(default_factory=dict)

    def of(self, m: int, n: int, k: int) -> Tile:
        """Return the tile of the product with the result (M, N) of A (M, K)."""
        return self.tuned.get((m, n, k), self.default)


@dataclass(frozen=True)
class Gemm:
    """A product: result (M, N) = normalise(A (M, K)) @ W^T + bias + residual, with norm, bias and residual optional.

    W (N, K) is float32, or int8 with a scale for each of its rows, which takes a fourth of the memory.

    Attributes:
        m, n, k: The sizes.
        tile: The register tile.
        row: The length of a row of the array whose columns A is; None if A is the whole array.
        first: The index of A's first column in that array.
        epsilon: If not None, each row of A is multiplied by rsqrt(mean(row * row) + epsilon), as in `graph.Normalise`.
        bias: True if a bias (N) is added to each row.
        residual: True if a residual (M, N) is added.
        scaled: True if W is int8: it is widened where it is read, and each column of the result gets its scale.
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
    sum: ClassVar[str] = "float32"  # the dtype of the accumulators

    @property
    def kind(self) -> str:
        """The kind of product, with which the function's name begins."""
        return "gemm_int8_weights" if self.scaled else "gemm"

    @property
    def name(self) -> str:
        """The function's name, unique among the products of a model."""
        words = [self.kind, f"{self.m}x{self.n}x{self.k}"]
        words += [f"from{self.first}of{self.row}"] if self.row else []
        words += ["normalised"] if self.epsilon is not None else []
        return "_".join(words + [word for word in ("bias", "residual") if getattr(self, word)])

    @property
    def panels(self) -> int:
        """The number of panels of packed weights, each as wide as a tile."""
        return -(-self.n // self.tile.columns)

    def pack(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a weight (N, K) in the function's layout: (panels, K, columns), with zeros beyond N."""
        padded = np.zeros((self.panels * self.tile.columns, self.k), weight.dtype)
        padded[: self.n] = weight
        return np.ascontiguousarray(padded.reshape(self.panels, self.tile.columns, self.k).transpose(0, 2, 1))

    def constants(self, weight: Weight) -> list[npt.NDArray[Any]]:
        """Return the arguments that the function takes between A and the bias, for a weight (N, K)."""
        return [self.pack(weight.values), *([weight.scales] if weight.scales is not None else [])]

    def function(self) -> tvm.tirx.PrimFunc:
        """Return the TIR function with the arguments (array with A, packed W[, scales][, bias][, residual], result)."""
        return tvm.script.from_source("\n".join(self._source()), extra_vars={"T": tirx})

    def _weights(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the shapes and dtypes of `constants` by their names in the function."""
        shape = (self.panels, self.k, self.tile.columns)
        return {"W": (shape, "int8"), "C": ((self.n,), "float32")} if self.scaled else {"W": (shape, "float32")}

    def _source(self) -> Iterator[str]:
        """Write the function's lines in TVMScript."""
        tile = self.tile
        buffers = {"A": ((self.m, self.row or self.k), "float32"), **self._weights()}
        buffers |= {"B": ((self.n,), "float32")} if self.bias else {}
        buffers |= {"R": ((self.m, self.n), "float32")} if self.residual else {}
        buffers |= {"Y": ((self.m, self.n), "float32")}
        arguments = ", ".join(f"{name}: T.Buffer({shape}, '{dtype}')" for name, (shape, dtype) in buffers.items())
        yield "@T.prim_func(private=True, s_tir=True)"
        yield f"def gemm({arguments}):"
        # 8 marks an opaque function, which no pass fuses; without noalias each number stored would be loaded again
        yield "    T.func_attr({'op_pattern': 8, 'tirx.noalias': True})"
        span = tile.rows * tile.blocks
        tasks, rest = divmod(self.m, span)
        more_blocks, last_rows = divmod(rest, tile.rows)
        if tasks:
            yield f"    for task in T.parallel({tasks}):"
            yield from self._rows("task", f"task * {span}", tile.rows, tile.blocks, "        ")
        if more_blocks:
            yield from self._rows("below", str(tasks * span), tile.rows, more_blocks, "    ")
        if last_rows:
            yield from self._rows("left", str(self.m - last_rows), last_rows, 1, "    ")

    def _rows(self, name: str, row: str, rows: int, blocks: int, indent: str) -> Iterator[str]:
        """Write the panels of some blocks of rows: the whole ones in a loop, the rest of the last one by itself."""
        panels, rest = divmod(self.n, self.tile.columns)
        all_rows = rows * blocks
        preparation = list(self._prepare(name, row, all_rows))
        if preparation:  # a block around the tiles, for the buffers that they share
            yield f"{indent}with T.sblock('{name}'):"
            indent += "    "
            yield f"{indent}T.reads({self._reads(row, all_rows, f'0:{self.panels}', '0', self.n)})"
            yield f"{indent}T.writes(Y[{row}:{row} + {all_rows}, 0:{self.n}])"
            yield from (indent + line for line in preparation)
        within = indent + "    "
        if panels:
            yield f"{indent}for panel, block in T.grid({panels}, {blocks}):"
            yield from self._tile(f"{name}_panel", row, rows, "panel", self.tile.columns, within)
        if rest:
            yield f"{indent}for block in range({blocks}):"
            yield from self._tile(f"{name}_last", row, rows, str(panels), rest, within)

    def _reads(self, row: str, rows: int, panels: str, first: str, columns: int) -> str:
        """Return the regions of the arguments that some rows and columns of the result need, as a block lists them."""
        span = f"{first}:{first} + {columns}"
        reads = [self._read_rows(row, rows)]
        for name, (shape, _) in self._weights().items():
            first_axis = panels if shape[0] == self.panels and name != "C" else span
            reads.append(f"{name}[{', '.join([first_axis, *(f'0:{size}' for size in shape[1:])])}]")
        reads += [f"B[{span}]"] if self.bias else []
        reads += [f"R[{row}:{row} + {rows}, {span}]"] if self.residual else []
        return ", ".join(reads)

    def _read_rows(self, row: str, rows: int) -> str:
        """Return the region of some rows of A."""
        return f"A[{row}:{row} + {rows}, {self.first}:{self.first + self.k}]"

    def _prepare(self, name: str, row: str, rows: int) -> Iterator[str]:
        """Write what the tiles of some rows share: S, the scales of normalised rows."""
        if self.epsilon is not None:
            yield f"S = T.sblock_alloc_buffer(({rows},), 'float32', scope='local')"
            yield f"for i in range({rows}):"
            yield f"    with T.sblock('{name}_scales'):"
            yield f"        T.reads({self._read_rows(row, rows)})"
            yield "        T.writes(S[i])"
            yield from (f"        {line}" for line in self._norm(row))

    def _walk(self, row: str, body: Callable[[str, str, str, int], Iterable[str]]) -> Iterator[str]:
        """Write a loop over the whole vectors of row `i`, then one over the numbers that are left.

        Args:
            row: The row that `i` counts from.
            body: Gives the lines of a loop, from the numbers, their places in a vector and in the row, and their count.
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
        """Write the combination of a vector's lanes by halves, until two are left."""
        half = self.tile.lanes // 2
        while half > 1:
            low, high = f"{buffer}[T.Ramp(0, 1, {half})]", f"{buffer}[T.Ramp({half}, 1, {half})]"
            yield f"{low} = {combine.format(low, high)}"
            half //= 2

    def _norm(self, row: str) -> Iterator[str]:
        """Write S[i] = 1 / root mean square of row `i`, whose squares are added up in vectors, then by halves."""
        lanes = self.tile.lanes
        yield f"squares = T.sblock_alloc_buffer(({lanes},), 'float32', scope='local')"
        yield f"squares[T.Ramp(0, 1, {lanes})] = T.Broadcast(T.float32(0), {lanes})"
        yield from self._walk(row, lambda x, lane, *_: [f"squares[{lane}] = squares[{lane}] + {x} * {x}"])
        yield from self._across("squares", "{} + {}")
        mean = f"(squares[0] + squares[1]) * T.float32({1 / self.k!r})"
        yield f"S[i] = T.float32(1) / T.sqrt({mean} + T.float32({self.epsilon!r}))"

    def _tile(self, name: str, first_row: str, rows: int, panel: str, columns: int, indent: str) -> Iterator[str]:
        """Write the `block`-th tile.

        Each row has an accumulator buffer of its own: buffers of more than 1024 bytes would come from the heap.
        """
        lanes = self.tile.lanes
        vectors = -(-columns // lanes)
        first, row = f"{panel} * {self.tile.columns}", f"{first_row} + block * {rows}"
        yield f"{indent}with T.sblock('{name}'):"
        indent += "    "
        reads = [self._reads(row, rows, panel, first, columns), *self._prepared_regions(rows)]
        yield f"{indent}T.reads({', '.join(reads)})"
        yield f"{indent}T.writes(Y[{row}:{row} + {rows}, {first}:{first} + {columns}])"
        for i in range(rows):
            yield f"{indent}acc{i} = T.sblock_alloc_buffer(({vectors * lanes},), '{self.sum}', scope='local')"
        yield from (indent + line for line in self._products(row, rows, panel, vectors))
        for i in range(rows):
            yield from self._store(i, f"{row} + {i}", f"block * {rows} + {i}", first, columns, indent)

    def _prepared_regions(self, rows: int) -> list[str]:
        """Return the regions that a tile reads of the buffers of `_prepare`."""
        return [f"S[block * {rows}:block * {rows} + {rows}]"] if self.epsilon is not None else []

    def _products(self, row: str, rows: int, panel: str, vectors: int) -> Iterator[str]:
        """Write the sums of a tile."""
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
        """Write the stores of a row of a tile: whole vectors, then single numbers.

        Args:
            i: The index of the row in the tile.
            row: The index of the row in the result.
            shared: The index of the row in the buffers of `_prepare`.
            first, columns: The first column and the number of columns.
            indent: The indentation of each line.
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
        """Return the expression of the result for a sum: scaled, with bias and residual."""
        value += f" * {broadcast(f'S[{shared}]', lanes)}" if self.epsilon is not None else ""
        value += f" * C[{at}]" if self.scaled else ""
        return value + self._addends(row, at)

    def _addends(self, row: str, at: str) -> str:
        """Return the end of an expression that adds the bias and the residual."""
        return (f" + B[{at}]" if self.bias else "") + (f" + R[{row}, {at}]" if self.residual else "")


def broadcast(value: str, lanes: int) -> str:
    """Return the expression of a number in all lanes of a vector, or of the number itself for one lane."""
    return f"T.Broadcast({value}, {lanes})" if lanes > 1 else value
