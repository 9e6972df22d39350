"""Test that the variants that benchmarks compare compute the same, and the table of tests with heavy toolchains."""

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
    pytest.importorskip("tvm", reason="needs apache-tvm, of the extra `tvm`")
    monkeypatch.syspath_prepend(FOLDER)
    scan_tir = importlib.import_module("scan_tir")
    shape = scan_tir.Shape("Tiny", 1)
    inputs = {name: t[:, :9] if t.dim() == 3 else t for name, t in shape.inputs().items()}
    arguments = scan_tir.as_tir(inputs)
    scan_tir.compile_scan((9, shape.channels, 16), first_input, mask=True)(*arguments)
    start = "first_input" if first_input else "zero"
    expected = reference.bi_selective_scan(**inputs, initial_state=start, mask_backward=True)[0]
    torch.testing.assert_close(torch.from_numpy(arguments[-1].numpy()), expected, atol=1e-4, rtol=1e-4)


JUNIT = """<testsuites><testsuite timestamp="2026-11-21T21:33:57+00:00">
<testcase classname="tests.npu.test_qnn" name="test_a[1]" time="1.6"/>
<testcase classname="tests.npu.test_qnn" name="test_b" time="2">
<failure message="assert 1 == 2&#10;more">...</failure></testcase>
<testcase classname="" name="tests.npu.test_vgf" time="0">
<skipped message="collection skipped">('test_vgf.py', 10, 'Skipped: needs lavapipe')</skipped></testcase>
<testcase classname="tests.npu.test_arm64" name="test_c" time="0">
<skipped message="not installed: qemu-aarch64">test_arm64.py:35: not installed: qemu-aarch64</skipped></testcase>
</testsuite></testsuites>"""


def test_results_of_heavy_toolchains_become_rows(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    npu_tests = importlib.import_module("npu_tests")
    (tmp_path / "results.xml").write_text(JUNIT)
    results = npu_tests.read(tmp_path / "results.xml")
    counts = {name: (row["passed"], row["failed"], row["skipped"], row["reasons"]) for name, row in results.items()}
    assert counts == {
        "test_qnn": (1, 1, 0, ["assert 1 == 2"]),
        "test_vgf": (0, 0, 1, ["needs lavapipe"]),
        "test_arm64": (0, 0, 1, ["not installed: qemu-aarch64"]),
    }
    assert results["test_qnn"]["seconds"] == 4 and results["test_qnn"]["date"] == "2026-11-21"
    row = next(line for line in npu_tests.table(results).splitlines() if "test_qnn" in line)
    assert "| 1 | 1 | 0 | assert 1 == 2 | 4 |" in row
