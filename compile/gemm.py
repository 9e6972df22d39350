"""Matrix products in TIR: generated, register-tiled, over weights that were packed at build time.

TVM's wheel has no usable CPU schedule for a matrix product (a default one is some 70 times slower). What is generated
here keeps a tile of the result in vector registers while it walks along K: for each k one row of the packed panel is
loaded, and each row's scalar is broadcast against it. Rows are spread over threads, a block of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import tvm
from tvm.script import tirx


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

    Attributes:
        m, n, k: sizes.
        tile: the register tile.
        row: numbers in a row of the array that A is a part of; None where that is all of it.
        first: of the columns of that array that are A's.
        epsilon: each row of A is multiplied by rsqrt(mean(row * row) + epsilon), as `graph.Normalise` does; None: not.
        bias: whether (N) is added to each row.
        residual: whether (M, N) is added.
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

    @property
    def name(self) -> str:
        """Of the function, unique among the products of a model."""
        words = ["gemm", f"{self.m}x{self.n}x{self.k}"]
        words += [f"from{self.first}of{self.row}"] if self.row else []
        words += ["normalised"] if self.epsilon is not None else []
        return "_".join(words + [word for word in ("bias", "residual") if getattr(self, word)])

    def pack(self, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A weight (N, K) as the function reads it: (panels, K, columns), zeros beyond N."""
        panels = -(-self.n // self.tile.columns)
        padded = np.zeros((panels * self.tile.columns, self.k), np.float32)
        padded[: self.n] = weight
        return np.ascontiguousarray(padded.reshape(panels, self.tile.columns, self.k).transpose(0, 2, 1))

    def function(self) -> tvm.tirx.PrimFunc:
        """The function of (array with A, packed W[, bias][, residual], result), all float32."""
        return tvm.script.from_source("\n".join(self._source()), extra_vars={"T": tirx})

    def _source(self) -> Iterator[str]:
        tile, panels = self.tile, -(-self.n // self.tile.columns)
        buffers = {"A": (self.m, self.row or self.k), "W": (panels, self.k, tile.columns)}
        buffers |= {"B": (self.n,)} if self.bias else {}
        buffers |= {"R": (self.m, self.n)} if self.residual else {}
        arguments = ", ".join(
            f"{name}: T.Buffer({shape}, 'float32')" for name, shape in (buffers | {"Y": (self.m, self.n)}).items()
        )
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
        if self.epsilon is not None:  # a block around the tiles, for what they share
            reads = [self._read("A", row, all_rows), f"W[0:{panels + bool(rest)}, 0:{self.k}, 0:{self.tile.columns}]"]
            reads += [f"B[0:{self.n}]"] if self.bias else []
            reads += [f"R[{row}:{row} + {all_rows}, 0:{self.n}]"] if self.residual else []
            yield f"{indent}with T.sblock('{name}'):"
            indent += "    "
            yield f"{indent}T.reads({', '.join(reads)})"
            yield f"{indent}T.writes(Y[{row}:{row} + {all_rows}, 0:{self.n}])"
            yield f"{indent}S = T.sblock_alloc_buffer(({all_rows},), 'float32', scope='local')"
            yield from self._scales(f"{name}_scales", row, all_rows, indent)
        within = indent + "    "
        if panels:
            yield f"{indent}for panel, block in T.grid({panels}, {blocks}):"
            yield from self._tile(f"{name}_panel", row, rows, "panel", self.tile.columns, within)
        if rest:
            yield f"{indent}for block in range({blocks}):"
            yield from self._tile(f"{name}_last", row, rows, str(panels), rest, within)

    def _read(self, array: str, row: str, rows: int) -> str:
        return f"{array}[{row}:{row} + {rows}, {self.first}:{self.first + self.k}]"

    def _scales(self, name: str, row: str, rows: int, indent: str) -> Iterator[str]:
        """S: one over the root mean square of each row, whose squares are added up in vectors, then by halves."""
        lanes = self.tile.lanes
        whole, rest = divmod(self.k, lanes)
        every = f"T.Ramp(0, 1, {lanes})"
        yield f"{indent}for i in range({rows}):"
        indent += "    "
        yield f"{indent}with T.sblock('{name}'):"
        indent += "    "
        yield f"{indent}T.reads({self._read('A', row, rows)})"
        yield f"{indent}T.writes(S[i])"
        yield f"{indent}squares = T.sblock_alloc_buffer(({lanes},), 'float32', scope='local')"
        yield f"{indent}squares[{every}] = T.Broadcast(T.float32(0), {lanes})"
        if whole:
            at = f"A[{row} + i, T.Ramp({self.first} + k * {lanes}, 1, {lanes})]"
            yield f"{indent}for k in range({whole}):"
            yield f"{indent}    squares[{every}] = squares[{every}] + {at} * {at}"
        if rest:
            at = f"A[{row} + i, {self.first + whole * lanes} + k]"
            yield f"{indent}for k in range({rest}):"
            yield f"{indent}    squares[k] = squares[k] + {at} * {at}"
        half = lanes // 2
        while half > 1:
            low, high = f"T.Ramp(0, 1, {half})", f"T.Ramp({half}, 1, {half})"
            yield f"{indent}squares[{low}] = squares[{low}] + squares[{high}]"
            half //= 2
        mean = f"(squares[0] + squares[1]) * T.float32({1 / self.k!r})"
        yield f"{indent}S[i] = T.float32(1) / T.sqrt({mean} + T.float32({self.epsilon!r}))"

    def _tile(self, name: str, first_row: str, rows: int, panel: str, columns: int, indent: str) -> Iterator[str]:
        """The `block`-th tile. An accumulator buffer a row: larger ones (over 1024 bytes) would come from the heap."""
        lanes = self.tile.lanes
        vectors = -(-columns // lanes)
        first, row = f"{panel} * {self.tile.columns}", f"{first_row} + block * {rows}"
        yield f"{indent}with T.sblock('{name}'):"
        indent += "    "
        reads = [self._read("A", row, rows), f"W[{panel}, 0:{self.k}, 0:{self.tile.columns}]"]
        reads += [f"S[block * {rows}:block * {rows} + {rows}]"] if self.epsilon is not None else []
        reads += [f"B[{first}:{first} + {columns}]"] if self.bias else []
        reads += [f"R[{row}:{row} + {rows}, {first}:{first} + {columns}]"] if self.residual else []
        yield f"{indent}T.reads({', '.join(reads)})"
        yield f"{indent}T.writes(Y[{row}:{row} + {rows}, {first}:{first} + {columns}])"
        for i in range(rows):
            yield f"{indent}acc{i} = T.sblock_alloc_buffer(({vectors * lanes},), 'float32', scope='local')"
        places = [f"T.Ramp({j * lanes}, 1, {lanes})" for j in range(vectors)]
        for i in range(rows):
            yield from (f"{indent}acc{i}[{at}] = T.Broadcast(T.float32(0), {lanes})" for at in places)
        yield f"{indent}for k in range({self.k}):"
        for i in range(rows):
            for at in places:
                product = f"T.Broadcast(A[{row} + {i}, {self.first} + k], {lanes}) * W[{panel}, k, {at}]"
                yield f"{indent}    acc{i}[{at}] = acc{i}[{at}] + {product}"
        for i in range(rows):
            yield from self._store(i, f"{row} + {i}", f"S[block * {rows} + {i}]", first, columns, indent)

    def _store(self, i: int, row: str, scale: str, first: str, columns: int, indent: str) -> Iterator[str]:
        """A row of a tile: whole vectors, then single numbers."""
        lanes = self.tile.lanes
        whole = columns // lanes
        for j in range(whole):
            at = f"T.Ramp({first} + {j * lanes}, 1, {lanes})"
            value = self._epilogue(
                f"acc{i}[T.Ramp({j * lanes}, 1, {lanes})]", row, at, f"T.Broadcast({scale}, {lanes})"
            )
            yield f"{indent}Y[{row}, {at}] = {value}"
        if columns % lanes:
            yield f"{indent}for j in range({columns % lanes}):"
            at = f"{first} + {whole * lanes} + j"
            value = self._epilogue(f"acc{i}[{whole * lanes} + j]", row, at, scale)
            yield f"{indent}    Y[{row}, {at}] = {value}"

    def _epilogue(self, value: str, row: str, at: str, scale: str) -> str:
        value += f" * {scale}" if self.epsilon is not None else ""
        value += f" + B[{at}]" if self.bias else ""
        value += f" + R[{row}, {at}]" if self.residual else ""
        return value
