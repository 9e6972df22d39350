"""A new engine and a new precision need their own files and one line in a registry each, as CONTRIBUTING.md says."""

import importlib
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import vmp_edge
from vmp_edge import engines
from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration import quantisation
from vmp_edge.cli import main
from vmp_edge.compile import lowering, precision, target
from vmp_edge.compile.precision import Cosine, Precision, Quantiser

RECORD = """
from vmp_edge.engines import EngineRecord

RECORD = EngineRecord(
    name="toy",
    factory="vmp_edge.runtimes.toy.engine:ToyEngine",
    lowering="vmp_edge.compile.lowerings.toy",
    precisions=("fp32", "int8-toy"),
)
"""
ENGINE = """
import io

import numpy as np
import torch


class ToyEngine:
    def __init__(self, bundle, threads):
        self.program = torch.export.load(io.BytesIO(bundle.program.read_bytes())).module()
        self.tubelet = int(bundle.manifest.model["tubelet_size"])

    def run(self, video):
        from vmp_edge.compile.graph import fold_frames

        clips = [fold_frames(torch.from_numpy(np.ascontiguousarray(clip[None])), self.tubelet) for clip in video]
        with torch.no_grad():
            return np.concatenate([self.program(clip).numpy() for clip in clips])

    def close(self):
        pass
"""
LOWERING = """
import io

import torch

from vmp_edge.compile.lowering import Lowered, Lowering


def lower(exported, staging, target, precision):
    buffer = io.BytesIO()
    torch.export.save(exported.unprepared, buffer)
    staging.add("model.pt2", buffer.getvalue())
    return Lowered("model.pt2", {"torch": torch.__version__})


LOWERING = Lowering(lower)
"""
RECIPE = """
description: a toy
activations: dynamic
float: [patch, "*normalise.mean"]
"""
TARGET = """
description: a toy
machine: host
engine: toy
engines: [toy]
precisions: [fp32, int8-toy]
verified: {x86_64 Linux: run on a device}
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The files of a toy engine, a toy precision and a toy target, and a line in each registry."""
    for folder in ("runtimes/toy", "lowerings", "recipes", "targets"):
        (tmp_path / folder).mkdir(parents=True)
    files = {
        "runtimes/toy/__init__.py": RECORD,
        "runtimes/toy/engine.py": ENGINE,
        "lowerings/toy.py": LOWERING,
        "recipes/int8-toy.yaml": RECIPE,
        "targets/toy.yaml": TARGET,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(textwrap.dedent(text))
    for name, folder in (("runtimes", "runtimes"), ("compile.lowerings", "lowerings")):
        package = importlib.import_module(f"vmp_edge.{name}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    for path in quantisation.FOLDER.glob("*.yaml"):
        (tmp_path / "recipes" / path.name).write_bytes(path.read_bytes())
    recipes = importlib.import_module(quantisation.load.__module__)
    monkeypatch.setattr(recipes, "FOLDER", tmp_path / "recipes")
    monkeypatch.setattr(target, "FOLDER", tmp_path / "targets")
    # The registries' lines.
    monkeypatch.setattr(engines, "ENGINES", (*engines.ENGINES, "toy"))
    record = Precision("int8-toy", Cosine(0.9), 0.9, Quantiser.RECIPE)
    monkeypatch.setitem(precision.PRECISIONS, record.name, record)
    yield
    for name in [name for name in sys.modules if name.endswith(".toy") or ".toy." in name]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["fp32", "int8-toy"])
def test_a_toy_engine_and_a_toy_precision(toy, capfd, tmp_path, checkpoint, name):
    output = tmp_path / "bundle"
    command = ["build", "--target", "toy", "--checkpoint", checkpoint, "--precision", name, "--output", output]
    code = main([str(word) for word in command])
    assert code == 0, capfd.readouterr().err
    manifest = Bundle.open(output).manifest
    assert (manifest.target, manifest.engine, manifest.precision) == ("toy", "toy", name)
    assert ("least_cosine" in manifest.parity) == (name == "int8-toy")
    clip = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    model = vmp_edge.models.load_checkpoint(checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(vmp_edge.Preprocessing(32).clip(clip))).softmax(1)[0].numpy()
    with vmp_edge.load(output) as recognizer:
        scores = recognizer.predict(clip).scores
    np.testing.assert_allclose(scores, expected, atol=1e-4 if name == "fp32" else 0.1)


def test_each_engine_and_precision_has_one_whole_record():
    for name in engines.ENGINES:
        record = engines.record(name)
        assert record.name == name
        assert set(record.precisions) <= set(precision.PRECISIONS)
        assert record.precisions[0] == "fp32"
    assert all(name == record.name for name, record in precision.PRECISIONS.items())


def test_a_fault_inside_a_lowering_is_not_taken_for_a_missing_library(toy):
    broken = LOWERING.replace("import Lowered, Lowering", "import Lowered, NoSuchName")
    path = importlib.import_module("vmp_edge.compile.lowerings").__path__[-1]
    (Path(path) / "toy.py").write_text(broken)
    with pytest.raises(ImportError, match="NoSuchName"):
        lowering.find("toy")
