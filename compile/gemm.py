"""Matrix products in TIR: generated, register-tiled, over weights that were packed at build time.

TVM's wheel has no usable CPU schedule for a matrix product (a default one is some 70 times slower). What is generated
here keeps a tile of the result in vector registers while it walks along K: for each k one row of the packed panel is
loaded, and each row's scalar is broadcast against it. Rows are spread over threads, a block of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    """

    lanes: int
    rows: int
    vectors: int

    @property
    def columns(self) -> int:
        """Numbers in a row of the tile."""
        return self.lanes * self.vectors


# By instruction set: AVX-512 and NEON have 32 vector registers, AVX2 has 16.
TILES = {"avx512": Tile(16, 14, 2), "avx2": Tile(8, 6, 2), "neon": Tile(4, 8, 3)}


@dataclass(frozen=True)
class Gemm:
    """result (M, N) = scale * (A (M, K) @ W^T) + bias + residual, each of the last three optional.

    Attributes:
        m, n, k: sizes.
        tile: the register tile.
        scale: whether each row is multiplied by a number of its own, (M).
        bias: whether (N) is added to each row.
        residual: whether (M, N) is added.
    """

    m: int
    n: int
    k: int
    tile: Tile
    scale: bool = False
    bias: bool = False
    residual: bool = False

    @property
    def name(self) -> str:
        """Of the function, unique among the products of a model."""
        extras = [word for word in ("scale", "bias", "residual") if getattr(self, word)]
        return "_".join(["gemm", f"{self.m}x{self.n}x{self.k}", *extras])

    def pack(self, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A weight (N, K) as the function reads it: (panels, K, columns), zeros beyond N."""
        panels = -(-self.n // self.tile.columns)
        padded = np.zeros((panels * self.tile.columns, self.k), np.float32)
        padded[: self.n] = weight
        return np.ascontiguousarray(padded.reshape(panels, self.tile.columns, self.k).transpose(0, 2, 1))

    def function(self) -> tvm.tirx.PrimFunc:
        """The function of (A, packed W[, scale][, bias][, residual], result), all float32."""
        return tvm.script.from_source("\n".join(self._source()), extra_vars={"T": tirx})

    def _source(self) -> Iterator[str]:
        tile, panels = self.tile, -(-self.n // self.tile.columns)
        buffers = {"A": (self.m, self.k), "W": (panels, self.k, tile.columns)}
        buffers |= {"S": (self.m,)} if self.scale else {}
        buffers |= {"B": (self.n,)} if self.bias else {}
        buffers |= {"R": (self.m, self.n)} if self.residual else {}
        arguments = ", ".join(
            f"{name}: T.Buffer({shape}, 'float32')" for name, shape in (buffers | {"Y": (self.m, self.n)}).items()
        )
        yield "@T.prim_func(private=True, s_tir=True)"
        yield f"def gemm({arguments}):"
        # 8 is an opaque function, which no pass fuses; without the other each store is a load again
        yield "    T.func_attr({'op_pattern': 8, 'tirx.noalias': True})"
        blocks, rest = divmod(self.m, tile.rows)
        if blocks:
            yield f"    for block in T.parallel({blocks}):"
            yield from self._row_block("block", f"block * {tile.rows}", tile.rows, "        ")
        if rest:
            yield from self._row_block("rest", str(blocks * tile.rows), rest, "    ")

    def _row_block(self, name: str, row: str, rows: int, indent: str) -> Iterator[str]:
        """All panels of some rows: the whole ones in a loop, what is left of the last one by itself."""
        panels, rest = divmod(self.n, self.tile.columns)
        if panels:
            yield f"{indent}for panel in range({panels}):"
            yield from self._tile(f"{name}_panel", row, rows, "panel", self.tile.columns, indent + "    ")
        if rest:
            yield from self._tile(f"{name}_last", row, rows, str(panels), rest, indent)

    def _tile(self, name: str, row: str, rows: int, panel: str, columns: int, indent: str) -> Iterator[str]:
        """One tile. An accumulator buffer a row: larger ones (over 1024 bytes) would be taken from the heap."""
        lanes = self.tile.lanes
        vectors = -(-columns // lanes)
        first = f"{panel} * {self.tile.columns}"
        yield f"{indent}with T.sblock('{name}'):"
        indent += "    "
        reads = [f"A[{row}:{row} + {rows}, 0:{self.k}]", f"W[{panel}, 0:{self.k}, 0:{self.tile.columns}]"]
        reads += [f"S[{row}:{row} + {rows}]"] if self.scale else []
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
                product = f"T.Broadcast(A[{row} + {i}, k], {lanes}) * W[{panel}, k, {at}]"
                yield f"{indent}    acc{i}[{at}] = acc{i}[{at}] + {product}"
        for i in range(rows):
            yield from self._store(f"{row} + {i}", f"acc{i}", first, columns, indent)

    def _store(self, row: str, accumulator: str, first: str, columns: int, indent: str) -> Iterator[str]:
        """A row of a tile: whole vectors, then single numbers."""
        lanes = self.tile.lanes
        whole = columns // lanes
        for j in range(whole):
            at = f"T.Ramp({first} + {j * lanes}, 1, {lanes})"
            scale = f"T.Broadcast(S[{row}], {lanes})"
            value = self._epilogue(f"{accumulator}[T.Ramp({j * lanes}, 1, {lanes})]", row, at, scale)
            yield f"{indent}Y[{row}, {at}] = {value}"
        if columns % lanes:
            yield f"{indent}for j in range({columns % lanes}):"
            at = f"{first} + {whole * lanes} + j"
            value = self._epilogue(f"{accumulator}[{whole * lanes} + j]", row, at, f"S[{row}]")
            yield f"{indent}    Y[{row}, {at}] = {value}"

    def _epilogue(self, value: str, row: str, at: str, scale: str) -> str:
        value += f" * {scale}" if self.scale else ""
        value += f" + B[{at}]" if self.bias else ""
        value += f" + R[{row}, {at}]" if self.residual else ""
        return value
