"""Find the fastest register tile of each matrix product on this machine, and keep it in the target's tuning log.

A target's log is ``targets/tuning/NAME.yaml``. Every build for the target reads it; without a log, or for a product
that the log does not have, the tile comes from `gemm.TILES`.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import yaml

from vmp_edge.errors import BuildError, UsageError
from vmp_edge.machine import cpu_model
from vmp_edge.progress import Bar

from ...target import FOLDER as TARGETS
from ...target import Target, runs_here
from .gemm import REGISTERS, TILES, Gemm, Tile, Tiles

FOLDER = TARGETS / "tuning"
LEAST_ROWS = 16  # products with fewer rows take no time and are not tuned
ROUNDS = 9
VECTORS = 6  # the largest number of vectors in a row of a tile that is tried
BLOCKS = (2, 4, 8, 16)
MOST = 64  # the largest number of rows, vectors or blocks that a log may have

Sizes = tuple[int, int, int]


def log_path(target: Target) -> Path:
    """Return the path of a target's log, which need not exist."""
    return target.tuning or FOLDER / f"{target.name}.yaml"


def load(target: Target) -> Tiles:
    """Load a target's tiles.

    Args:
        target: A target with a ``simd`` entry. The log in ``targets/tuning`` need not exist.

    Raises:
        UsageError: The log cannot be read, or is no log of this target.
    """
    assert target.simd is not None
    default, path = TILES[target.simd], log_path(target)
    if target.tuning is None and not path.exists():
        return Tiles(default)
    return Tiles(default, {sizes: tile for sizes, (tile, _) in _read(target, path).items()})


def _read(target: Target, path: Path) -> dict[Sizes, tuple[Tile, dict[str, Any]]]:
    """Read the log's products by their sizes: the tile of each, and its whole entry."""
    assert target.simd is not None
    try:
        log = yaml.safe_load(path.read_text(encoding="utf-8"))
        if log["target"] != target.name:
            raise ValueError(f"it is the log of the target {log['target']}")
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
        raise ValueError(f"the tile {name} is not possible")
    return replace(default, rows=rows, vectors=vectors, blocks=blocks)


def _name(tile: Tile) -> str:
    return f"{tile.rows}x{tile.vectors}x{tile.blocks}"


def check(target: Target) -> None:
    """Check that a target can be tuned on this machine.

    Raises:
        UsageError: This machine cannot run the target's code.
    """
    if target.simd is None or not runs_here(target):
        raise UsageError(f"--tune measures times on this machine, and this one cannot run {target.name}")


def tune(target: Target, products: Sequence[Gemm]) -> None:
    """Time tiles for the float32 products of a model on this machine, and add the results to the target's log.

    Args:
        target: A target that this machine can run.
        products: The products to tune. Other products in the log stay there.

    Raises:
        UsageError: This machine cannot run the target's code, or the existing log is damaged.
        BuildError: The log cannot be written.
    """
    check(target)
    path = log_path(target)
    entries = {sizes: entry for sizes, (_, entry) in _read(target, path).items()} if path.exists() else {}
    gemms = {(gemm.m, gemm.n, gemm.k): gemm for gemm in products if gemm.m >= LEAST_ROWS and gemm.kind == "gemm"}
    for sizes, gemm in Bar(gemms.items(), desc="time tiles", unit="product"):
        times = {_name(tile): round(seconds * 1e6, 1) for tile, seconds in time_tiles(target, gemm).items()}
        fastest = sorted(times, key=lambda name: times[name])
        entries[sizes] = {"tile": fastest[0], "microseconds": {name: times[name] for name in fastest}}
    by_name = {"x".join(map(str, sizes)): entry for sizes, entry in sorted(entries.items())}
    _write({"target": target.name, "cpu": cpu_model(), "tvm": tvm.__version__, "products": by_name}, path)


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
        raise BuildError(
            f"{path}: the log cannot be written ({error.strerror}); give another with --tuning-log"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def time_tiles(target: Target, gemm: Gemm) -> dict[Tile, float]:
    """Measure the median seconds of one thread for each tile that fits the registers.

    The two fastest tiles are then measured again, also with several blocks.
    """
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
    """Measure the median seconds of each tile. The tiles take turns, so that a slow moment hits all of them."""
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
    """Return random arguments for a product, its result included."""
    rng = np.random.default_rng(0)
    weight = gemm.pack(rng.standard_normal((gemm.n, gemm.k), dtype=np.float32))
    shapes = [(gemm.m, gemm.row or gemm.k), *([(gemm.n,)] if gemm.bias else [])]
    shapes += [(gemm.m, gemm.n)] * (1 + gemm.residual)
    first, *rest = [tvm.runtime.tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes]
    return [first, tvm.runtime.tensor(weight), *rest]
