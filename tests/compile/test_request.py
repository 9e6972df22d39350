"""A request checks itself wholly before anything is loaded, and becomes an order with everything that it names."""

import sys
from pathlib import Path

import pytest

from vmp_edge.calibration.clipset import ClipSetError
from vmp_edge.cli import main
from vmp_edge.compile import source
from vmp_edge.compile.pipeline import build
from vmp_edge.compile.request import Request
from vmp_edge.errors import BuildError, MissingDependencyError, UsageError


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """Loading a model fails the test."""

    def load(choice):
        raise AssertionError("the model was loaded before the request was checked")

    monkeypatch.setattr(source, "load", load)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"target": "mars"}, UsageError, "unknown target 'mars'"),
        ({"engine": "abacus"}, UsageError, "no engine 'abacus'"),
        ({"precision": "int3"}, UsageError, "no precision 'int3'"),
        ({"precision": "int8", "engine": "torch"}, UsageError, "the engine torch does not do int8"),
        ({"jetpack": "6"}, UsageError, "--jetpack is '6'"),
        ({"threads": 0}, UsageError, "--threads is 0"),
        ({"labels": Path("none.txt")}, UsageError, "none.txt: cannot be read"),
        ({"variants": ["width=3"]}, UsageError, "--variants width=3"),
        ({"model": "videomamba-tiny", "checkpoint": Path("a.pth")}, UsageError, "not both"),
        ({"engine": "onnxruntime", "tune": True}, UsageError, "onnxruntime has nothing to tune"),
        ({"calibrate": Path("clips")}, UsageError, "--calibrate: for the precisions int8,"),
        ({"precision": "int8", "checkpoint": Path("a.pth")}, UsageError, "int8 is calibrated on clips"),
        ({"variants": ["frames=4"], "evaluate": Path("none")}, ClipSetError, "none does not exist"),
    ],
)
def test_what_is_wrong_is_known_before_anything_is_loaded(
    tmp_path, monkeypatch, nothing_is_loaded, changes, error, words
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        build(Request(**{"target": "host", **changes}))
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written(tmp_path, nothing_is_loaded):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear reader")
    for output, words in (("file/bundle", "is not a folder"), ("file", "is not a folder"), ("full", "is not a bundle")):
        with pytest.raises(BuildError, match=words):
            build(Request("host", output=tmp_path / output))
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear reader"


@pytest.mark.parametrize(
    ("target", "module", "words"),
    [
        ("onnx", "onnxscript", r"needs onnxscript; run: .*pip install .*\[compile,onnxruntime\]'"),
        ("openvino", "openvino", r"needs openvino; run: .*pip install .*\[compile,openvino\]'"),
        ("apple-ane", "coremltools", r"needs coremltools; run: .*pip install .*\[compile,coreml\]'"),
    ],
)
def test_a_missing_extra(tmp_path, monkeypatch, nothing_is_loaded, target, module, words):
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=words):
        build(Request(target, output=tmp_path / "bundle"))


def test_a_missing_cross_compiler(tmp_path, monkeypatch, nothing_is_loaded):
    monkeypatch.setenv("PATH", str(tmp_path))
    for target in ("arm64", "arm64-executorch", "jetson-orin"):
        with pytest.raises(MissingDependencyError, match="apt install g\\+\\+-aarch64-linux-gnu"):
            build(Request(target, output=tmp_path / "bundle"))


def test_an_order_has_everything_that_the_request_names(tmp_path, capfd):
    output = tmp_path / "bundle"
    order = Request("host", precision="int8", output=output, evaluate=None, max_drop=0.5).checked()
    assert (order.target.name, order.engine.name, order.precision.name) == ("host", "executorch", "int8")
    assert order.plan is not None and order.plan.recipe.name == "int8" and order.plan.max_drop == 0.5
    assert order.choice.is_procedural and order.runs_here and order.output == output
    assert main(["build", "--target", "host", "--checkpoint", "a.pth", "--model", "b"]) == 2
    assert "not allowed with argument" in capfd.readouterr().err
