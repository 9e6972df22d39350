"""Qualcomm's HTP: a small model becomes one context binary with the source model's numbers (`make test-npu`)."""

import os
import subprocess
import sys

import numpy as np
import pytest

if "VMP_EDGE_TEST_NPU" not in os.environ:
    pytest.skip("a heavy toolchain: run by `make test-npu`", allow_module_level=True)
pytest.importorskip("onnxruntime_qnn", reason="needs onnxruntime-qnn")

import torch
import yaml
from small_models import READOUTS

from vmp_edge.bundle.reading import Bundle
from vmp_edge.models import ModelOptions, VideoMamba

SMALL = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 2, "num_classes": 5}
# A build in a process of its own, as QNN stays loaded: here by ExecuTorch, there by ONNX Runtime.
BUILD = """
import sys
from pathlib import Path
from vmp_edge.compile.lowerings.delegates import prepare
from vmp_edge.compile.lowerings.delegates.contract import find
from vmp_edge.compile import graph, target
from vmp_edge.models import load_checkpoint
import numpy as np, torch, yaml
name, precision, soc, checkpoint, output = sys.argv[1:]
kind = target.choose(target.load(name), None, None, soc)
model = load_checkpoint(checkpoint)
torch.manual_seed(1)
videos = [torch.randn(1, 3, 2, 32, 32) for _ in range(4)]
frames = [graph.fold_frames(video, 1).contiguous() for video in videos]
plain = prepare(graph.export(model), kind, precision).program
made = find(kind).lower(plain, kind, precision)
with torch.no_grad():
    expected = [model(video)[0].tolist() for video in videos[:2]]
got = [made.run(one.numpy())[0].tolist() for one in frames[:2]]
Path(output).write_text(yaml.safe_dump({"got": got, "expected": expected, "bytes": len(made.program)}))
"""
EXP = """
import numpy as np, torch
from vmp_edge.compile import target
from vmp_edge.compile.emulation.qnn import open_session
from vmp_edge.compile.lowerings.delegates import htp
from vmp_edge.compile.lowerings.onnx import lowering as onnx
from vmp_edge.ops.chunked import Form
class Exp(torch.nn.Module):
    def forward(self, x):
        return torch.exp(x)
x = torch.linspace(-400, 0, 4096)[None]
program = htp.with_bounded_exponents(torch.export.export(Exp(), (x,), strict=False))
model = onnx.to_onnx(program, Form(), (["x"], ["y"]))
session = open_session(model.SerializeToString(), target.load("onnx-qnn").socs["SM8650"])
(y,) = session.run(None, {"x": x.numpy()})
np.testing.assert_allclose(y, torch.exp(x.half().double()).numpy(), atol=2e-3)
"""


def test_exponentials_of_what_is_far_below_zero():
    """Where the HTP's own are up to 131008."""
    subprocess.run([sys.executable, "-c", EXP], check=True)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "precision", "soc", "decibels"),
    [
        ("onnx-qnn", "fp16", "SM8650", 50),
        ("onnx-qnn", "fp16", "SM8750", 50),
        ("android-qnn", "fp16", "SM8750", 50),
    ],
)
def test_the_context_binary_agrees_with_the_source_model(tmp_path, checkpoint, name, precision, soc, decibels):
    output = tmp_path / "found.yaml"
    command = [sys.executable, "-c", BUILD, name, precision, soc, checkpoint, output]
    subprocess.run(command, check=True)
    found = yaml.safe_load(output.read_text())
    got, expected = np.array(found["got"]), np.array(found["expected"])
    assert 10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum()) >= decibels
    assert found["bytes"] < 2e6


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("options", READOUTS.values(), ids=READOUTS)
def test_what_reads_the_mean_of_tokens_agrees_with_the_source_model(tmp_path, options):
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, **options}))
    path, output = tmp_path / "small.pth", tmp_path / "found.yaml"
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, path)
    subprocess.run([sys.executable, "-c", BUILD, "onnx-qnn", "fp16", "SM8650", path, output], check=True)
    found = yaml.safe_load(output.read_text())
    got, expected = np.array(found["got"]), np.array(found["expected"])
    assert 10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum()) >= 50


# Scans of three layers, all of one length: two of both directions, and one of the last layer's.
SHARED = """
import sys
from dataclasses import replace
from vmp_edge.compile.lowerings.delegates import prepare, qnn
from vmp_edge.compile import graph, target
from vmp_edge.models import load_checkpoint
import numpy as np, torch
kind = target.choose(target.load("android-qnn"), None, None, "SM8650")
kind = replace(kind, options={"shared_scans": 2})
model = load_checkpoint(sys.argv[1])
compiled = []
once = qnn.check_whole
def counted(*given):
    found = once(*given)
    compiled.append(found[1].processed_bytes)
    return found
qnn.check_whole = counted
made = qnn.lower(prepare(graph.export(model), kind, "fp16").program, kind, "fp16")
assert len(compiled) == 4 + 2, len(compiled)  # what lies between scans, and two kinds of scan
assert all(made.program.count(part) == 1 for part in compiled)
torch.manual_seed(1)
video = torch.randn(1, 3, 2, 32, 32)
with torch.no_grad():
    expected = model(video).numpy()
got = made.run(graph.fold_frames(video, 1).contiguous().numpy())
decibels = 10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum())
assert decibels >= 50, decibels
"""


@pytest.mark.timeout(3600)
def test_a_shared_scan_is_compiled_and_stored_once(tmp_path):
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(**{**SMALL, "depth": 3}))
    path = tmp_path / "small.pth"
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, path)
    subprocess.run([sys.executable, "-c", SHARED, path], check=True)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["android-qnn", "onnx-qnn"])
def test_our_own_model_in_16a8w(tmp_path, name):
    """By the command line: a process that has compiled, emulated and drawn a report ends well."""
    output = tmp_path / "bundle"
    build = ["build", "--target", name, "--precision", "16a8w", "--output", output]
    subprocess.run([sys.executable, "-m", "vmp_edge", *build, "--parity-clips", "1"], check=True)
    manifest = Bundle.open(output, any_machine=True).manifest
    assert manifest.parity["snr"] >= 35
    assert manifest.accuracy["measured"]["agreement"] >= 0.98


RANGES = """
from dataclasses import replace
from vmp_edge.calibration import quantisation
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowerings import delegates
from vmp_edge.models import load_checkpoint
import sys, torch
kind = target.choose(target.load("android-qnn"), None, None, "SM8650")
plain = delegates.prepare(graph.export(load_checkpoint(sys.argv[1])), kind, "16a8w").program
recipe = quantisation.load("16a8w")
torch.manual_seed(1)
frames = [torch.randn_like(plain.example_inputs[0][0]) for _ in range(2)]
def scale(headroom):
    given = replace(recipe, headroom=headroom)
    program = quantisation.quantise(plain, given, frames, quantizer=delegates.quantiser(kind, given))
    return next(node.args[1] for node in program.graph.nodes if "quantize_per_tensor" in str(node.target))
assert abs(scale(1.5) / scale(1.0) - 1.5) < 1e-3
"""


def test_the_recipes_headroom_widens_the_ranges(checkpoint):
    subprocess.run([sys.executable, "-c", RANGES, checkpoint], check=True)


def test_one_qnn_in_a_process():
    script = (
        "import ctypes, onnxruntime_qnn; ctypes.CDLL(onnxruntime_qnn.get_qnn_htp_path())\n"
        "from vmp_edge.compile.lowerings.delegates.qnn import toolchain; toolchain.load()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "in a process of its own" in done.stderr.splitlines()[-1]
