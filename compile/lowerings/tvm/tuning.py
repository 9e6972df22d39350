"""Tuning: the fastest register tile of each matrix product, measured on this machine and kept in a log.

A target's log lies in ``targets/tuning/NAME.yaml`` and is read by every build for it; without one, or for a product
that it does not have, the tiles of `vmp_edge.compile.lowerings.tvm.gemm.TILES` are used.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import yaml

from vmp_edge.errors import BuildError, UsageError

from ...target import FOLDER as TARGETS
from ...target import Target, runs_here
from .gemm import REGISTERS, TILES, Gemm, Tile, Tiles

FOLDER = TARGETS / "tuning"
LEAST_ROWS = 16  # products with fewer take no time
ROUNDS = 9
VECTORS = 6  # the most that a row of a tile takes
BLOCKS = (2, 4, 8, 16)
MOST = 64  # of rows, vectors or blocks in a log's tile

Sizes = tuple[int, int, int]


def log_of(target: Target) -> Path:
    """Where a target's log is, or would be."""
    return target.tuning or FOLDER / f"{target.name}.yaml"


def load(target: Target) -> Tiles:
    """A target's tiles.

    Args:
        target: a target with a ``simd`` entry. Its own log need not exist.

    Raises:
        UsageError: the file cannot be read, or is no log of this target.
    """
    assert target.simd is not None
    default, path = TILES[target.simd], log_of(target)
    if target.tuning is None and not path.exists():
        return Tiles(default)
    return Tiles(default, {sizes: tile for sizes, (tile, _) in _read(target, path).items()})


def _read(target: Target, path: Path) -> dict[Sizes, tuple[Tile, dict[str, Any]]]:
    """The log's products: each one's tile, and its whole entry."""
    assert target.simd is not None
    try:
        log = yaml.safe_load(path.read_text(encoding="utf-8"))
        if log["target"] != target.name:
            raise ValueError(f"it is of the target {log['target']}")
        return {
            _sizes(name): (_tile(TILES[target.simd], entry["tile"]), entry) for name, entry in log["products"].items()
        }
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: no tuning log for {target.name} ({reason}); remove it, or tune again") from error


def _sizes(name: str) -> Sizes:
    m, n, k = map(int, name.split("x"))
    return m, n, k


def _tile(default: Tile, name: str) -> Tile:
    rows, vectors, blocks = map(int, name.split("x"))
    if not all(1 <= value <= MOST for value in (rows, vectors, blocks)):
        raise ValueError(f"a tile of {name}")
    return replace(default, rows=rows, vectors=vectors, blocks=blocks)


def _name(tile: Tile) -> str:
    return f"{tile.rows}x{tile.vectors}x{tile.blocks}"


def check(target: Target) -> None:
    """Whether a target can be tuned here.

    Raises:
        UsageError: it cannot.
    """
    if target.simd is None or not runs_here(target):
        raise UsageError(f"--tune times on the machine that it runs on, and this one cannot run {target.name}")


def tune(target: Target, products: Sequence[Gemm]) -> None:
    """Time tiles for the float32 products of a model on this machine, and add the results to the target's log.

    Args:
        target: a target that this machine can run.
        products: what to tune; the log's other products stay in it.

    Raises:
        UsageError: this machine cannot run the target's code, or the log that is there is no log.
        BuildError: the log cannot be written.
    """
    from tqdm import tqdm

    check(target)
    path = log_of(target)
    entries = {sizes: entry for sizes, (_, entry) in _read(target, path).items()} if path.exists() else {}
    wanted = {(gemm.m, gemm.n, gemm.k): gemm for gemm in products if gemm.m >= LEAST_ROWS and gemm.kind == "gemm"}
    for sizes, gemm in tqdm(wanted.items(), desc="tuning", unit="product", file=sys.stderr):
        tried = {_name(tile): round(seconds * 1e6, 1) for tile, seconds in time_tiles(target, gemm).items()}
        fastest = sorted(tried, key=lambda name: tried[name])
        entries[sizes] = {"tile": fastest[0], "microseconds": {name: tried[name] for name in fastest}}
    named = {"x".join(map(str, sizes)): entry for sizes, entry in sorted(entries.items())}
    _write({"target": target.name, "cpu": _cpu(), "tvm": tvm.__version__, "products": named}, path)


def _write(log: dict[str, Any], path: Path) -> None:
    text = (
        "# Written by `vmp-edge build --tune`. A tile is rows x vectors x blocks, see compile/lowerings/tvm/gemm.py.\n"
    )
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text + yaml.safe_dump(log, sort_keys=False, width=1000), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise BuildError(f"{path}: cannot be written ({error.strerror}); give another with --tuning-log") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def time_tiles(target: Target, gemm: Gemm) -> dict[Tile, float]:
    """Median seconds of one thread for each tile that fits the registers, then for the best two in several blocks."""
    assert target.simd is not None
    default, registers = TILES[target.simd], REGISTERS[target.simd]
    columns = -(-gemm.n // default.lanes)
    shapes = [
        replace(default, rows=rows, vectors=vectors)
        for vectors in range(1, min(VECTORS, columns) + 1)
        for rows in range((registers - 1) // vectors - 1, 1, -1)[:3]
    ]
    times = _time(target, gemm, list(dict.fromkeys([default, *shapes])))
    best = sorted(times, key=lambda tile: times[tile])[:2]
    deeper = [replace(tile, blocks=blocks) for tile in best for blocks in BLOCKS]
    return _time(target, gemm, [*best, *deeper]) | {tile: times[tile] for tile in times if tile not in best}


def _time(target: Target, gemm: Gemm, tiles: Sequence[Tile]) -> dict[Tile, float]:
    """Median seconds of each; all take turns, so that a slow moment hits all of them."""
    variants = {f"tile_{_name(tile)}": replace(gemm, tile=tile) for tile in tiles}
    functions = {name: v.function().with_attr("global_symbol", name) for name, v in variants.items()}
    library = tvm.compile(tvm.IRModule(functions), target=tvm.target.Target({"kind": "llvm", **(target.llvm or {})}))
    arguments = {name: _arguments(variant) for name, variant in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name in variants:
            start = time.thread_time()
            library[name](*arguments[name])
            seconds[name].append(time.thread_time() - start)
    return {tile: statistics.median(seconds[f"tile_{_name(tile)}"]) for tile in tiles}


def _arguments(gemm: Gemm) -> list[Any]:
    rng = np.random.default_rng(0)
    weight = gemm.pack(rng.standard_normal((gemm.n, gemm.k), dtype=np.float32))
    shapes = [(gemm.m, gemm.row or gemm.k), *([(gemm.n,)] if gemm.bias else [])]
    shapes += [(gemm.m, gemm.n)] * (1 + gemm.residual)
    first, *others = [tvm.runtime.tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]
    return [first, tvm.runtime.tensor(weight), *others]


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
