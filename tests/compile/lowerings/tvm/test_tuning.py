"""Tuning logs are made on this machine and read by later builds; a damaged log is refused in one line."""

import dataclasses

import pytest
import yaml

from vmp_edge.cli import main
from vmp_edge.compile import target
from vmp_edge.compile.pipeline import Request, build
from vmp_edge.errors import BuildError, UsageError

pytest.importorskip("tvm", reason="needs apache-tvm, of the extra `tvm`")

from vmp_edge.compile.lowerings.tvm import tuning
from vmp_edge.compile.lowerings.tvm.gemm import REGISTERS, TILES, Gemm, Tile, Tiles

NATIVE = target.native()
DEFAULT = TILES[NATIVE.simd]


@pytest.fixture
def kind(tmp_path):
    """This machine's target with a log of its own."""
    return dataclasses.replace(NATIVE, tuning=tmp_path / "logs" / "tiles.yaml")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Try few tiles in one round each: which one is the fastest does not matter here."""
    monkeypatch.setattr(tuning, "ROUNDS", 1)
    monkeypatch.setattr(tuning, "VECTORS", 1)
    monkeypatch.setattr(tuning, "BLOCKS", (2,))
    monkeypatch.setattr(tuning, "REGISTERS", dict.fromkeys(TILES, 8))  # small tiles compile faster


def test_a_log_is_made_read_and_added_to(kind):
    tuning.tune(kind, [Gemm(40, 16, 8, DEFAULT), Gemm(4, 16, 8, DEFAULT), Gemm(40, 32, 8, DEFAULT, bias=True)])
    log = yaml.safe_load(kind.tuning.read_text())
    assert list(log["products"]) == ["40x16x8", "40x32x8"]  # four rows take no time
    entry = log["products"]["40x16x8"]
    assert entry["microseconds"][entry["tile"]] == min(entry["microseconds"].values())
    assert len(entry["microseconds"]) > 2
    before = tuning.load(kind).tuned
    tuning.tune(kind, [Gemm(17, 16, 8, DEFAULT, epsilon=1e-5, residual=True, row=20, first=3)])
    tiles = tuning.load(kind)
    assert tiles.tuned.items() > before.items()
    assert set(tiles.tuned) == {(40, 16, 8), (40, 32, 8), (17, 16, 8)}
    assert tiles.of(17, 16, 8).lanes == DEFAULT.lanes
    assert tiles.of(1, 2, 3) == DEFAULT
    assert [path.name for path in kind.tuning.parent.iterdir()] == ["tiles.yaml"]


@pytest.mark.parametrize("simd", TILES)
def test_tiles_fit_the_registers(simd, monkeypatch):
    timed = []
    monkeypatch.setattr(tuning, "VECTORS", 6)
    monkeypatch.setattr(tuning, "REGISTERS", REGISTERS)
    monkeypatch.setattr(tuning, "_time", lambda _, gemm, tiles: timed.extend(tiles) or dict.fromkeys(tiles, 1.0))
    kind = dataclasses.replace(NATIVE, simd=simd)
    assert set(tuning.time_tiles(kind, Gemm(100, 96, 8, TILES[simd]))) == set(timed)
    assert all(tile.rows * tile.vectors + tile.vectors + 1 <= REGISTERS[simd] for tile in timed)
    assert TILES[simd] in timed and len(timed) > 10


def test_the_shipped_logs_can_be_read():
    for path in tuning.FOLDER.glob("*.yaml"):
        kind = target.load(path.stem)
        tiles = tuning.load(kind)
        assert tiles.tuned and all(isinstance(tile, Tile) for tile in tiles.tuned.values())


def test_a_target_without_a_log_takes_the_default(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    assert tuning.load(NATIVE) == Tiles(DEFAULT)


GOOD = {"target": NATIVE.name, "products": {"4x4x4": {"tile": "2x1x1", "microseconds": {"2x1x1": 1.0}}}}
BAD = {
    "empty": "",
    "no yaml": "a: [",
    "binary": b"\xff\xfe\x00",
    "a list": "[1, 2]",
    "another target": yaml.safe_dump({**GOOD, "target": "toaster"}),
    "no products": yaml.safe_dump({"target": NATIVE.name}),
    "products in a list": yaml.safe_dump({**GOOD, "products": ["4x4x4"]}),
    "a size too few": yaml.safe_dump({**GOOD, "products": {"4x4": {"tile": "2x1x1"}}}),
    "no tile": yaml.safe_dump({**GOOD, "products": {"4x4x4": {}}}),
    "a tile of nothing": yaml.safe_dump({**GOOD, "products": {"4x4x4": {"tile": "0x1x1"}}}),
    "an enormous tile": yaml.safe_dump({**GOOD, "products": {"4x4x4": {"tile": "2x1000x1"}}}),
    "a tile in words": yaml.safe_dump({**GOOD, "products": {"4x4x4": {"tile": "big"}}}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_log_is_one_line(kind, content):
    kind.tuning.parent.mkdir()
    kind.tuning.write_bytes(content if isinstance(content, bytes) else content.encode())
    for use in (lambda: tuning.load(kind), lambda: tuning.tune(kind, [])):
        with pytest.raises(UsageError, match=r"tiles\.yaml: no tuning log for .*remove it, or tune again") as caught:
            use()
        assert "\n" not in str(caught.value)
    kind.tuning.write_text(yaml.safe_dump(GOOD))
    assert tuning.load(kind).of(4, 4, 4) == dataclasses.replace(DEFAULT, rows=2, vectors=1)


def test_a_log_that_cannot_be_written_says_what_to_do(kind):
    kind.tuning.parent.write_text("a file where the folder should be")
    with pytest.raises(BuildError, match=r"cannot be written .*give another with --tuning-log"):
        tuning.tune(kind, [])


def test_only_a_machine_that_runs_the_target_can_tune(checkpoint, tmp_path, capfd, monkeypatch):
    kinds = [kind for kind in map(target.load, target.names()) if "tvm" in kind.engines and kind.gpu is None]
    foreign = next(kind.name for kind in kinds if kind.machine not in ("host", NATIVE.machine))
    command = ["build", "--target", foreign, "--engine", "tvm", "--checkpoint", str(checkpoint), "--tune"]
    assert main([*command, "--output", str(tmp_path / "b")]) == 2
    assert f"this one cannot run {foreign}" in capfd.readouterr().err.splitlines()[-1]
    assert main(["build", "--target", "host", "--tune", "--output", str(tmp_path / "b")]) == 2
    assert "executorch has nothing to tune" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "b").exists()


def test_a_tuned_build(checkpoint, tmp_path, capfd):
    log = tmp_path / "tiles.yaml"
    options = ["--checkpoint", str(checkpoint), "--tuning-log", str(log), "--output", str(tmp_path / "b")]
    assert main(["build", "--target", "host", "--engine", "tvm", "--tune", *options]) == 0
    assert "tune the kernels ... " in capfd.readouterr().err
    assert tuning.load(dataclasses.replace(NATIVE, tuning=log)).tuned
    log.unlink()
    with pytest.raises(UsageError, match=r"tiles\.yaml: no tuning log"):
        build(Request("host", checkpoint=checkpoint, engine="tvm", tuning_log=log, output=tmp_path / "c"))
    assert not (tmp_path / "c").exists()
