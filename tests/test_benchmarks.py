"""What the benchmarks compare does the same arithmetic."""

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch

from vmp_edge.models import create
from vmp_edge.ops import reference

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("scan_input", ["projection", "conv"])
def test_published_arithmetic_equals_the_source_model(scan_input):
    spec = importlib.util.spec_from_file_location("published", FOLDER / "published.py")
    published = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(published)
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}
    model = create("videomambapro-tiny", scan_input=scan_input, **sizes)
    for block in model.blocks():
        block.mixer.D.data += torch.randn_like(block.mixer.D)
    video = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(published.published_forward(model, video), model(video), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first_input", [False, True])
def test_the_generated_scan_equals_the_reference(monkeypatch, first_input):
    pytest.importorskip("tvm", reason="needs apache-tvm: pip install 'vmp-edge[tvm]'")
    monkeypatch.syspath_prepend(FOLDER)
    scan_tir = importlib.import_module("scan_tir")
    shape = scan_tir.Shape("Tiny", 1)
    inputs = {name: t[:, :9] if t.dim() == 3 else t for name, t in shape.inputs().items()}
    arguments = scan_tir.as_tir(inputs)
    scan_tir.compile_scan((9, shape.channels, 16), first_input, mask=True)(*arguments)
    start = "first_input" if first_input else "zero"
    expected = reference.bi_selective_scan(**inputs, initial_state=start, mask_backward=True)[0]
    torch.testing.assert_close(torch.from_numpy(arguments[-1].numpy()), expected, atol=1e-4, rtol=1e-4)
