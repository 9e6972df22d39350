"""A request checks itself wholly before anything is loaded, and becomes an order with everything that it names."""

import dataclasses
import shutil
import sys
import types
from pathlib import Path

import pytest

from vmp_edge.calibration.clipset import ClipSetError
from vmp_edge.cli import main
from vmp_edge.compile import cross, graph, notes, source
from vmp_edge.compile import request as request_module
from vmp_edge.compile.pipeline import build
from vmp_edge.compile.request import Request
from vmp_edge.errors import BuildError, CheckpointError, MissingDependencyError, UsageError


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


def hide(monkeypatch, *names):
    """Let packages seem not to be installed."""
    for name in [name for name in sys.modules if name.split(".")[0] in names]:
        monkeypatch.delitem(sys.modules, name)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_everything_that_is_missing_is_named_at_once(tmp_path, monkeypatch, nothing_is_loaded):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path))
    hide(monkeypatch, "torchao", "cmake")
    with pytest.raises(MissingDependencyError) as error:
        build(Request("arm64-executorch", precision="int8", output=tmp_path / "bundle"))
    text = str(error.value)
    assert "3 things are missing: (1)" in text and "\n" not in text
    for words in ("apt install g++-aarch64-linux-gnu", "compiling needs cmake", "quantising to int8 needs torchao"):
        assert text.count(words) == 1


def test_without_pytorch_a_quantised_build_says_so(tmp_path, monkeypatch, nothing_is_loaded):
    hide(monkeypatch, "torch")
    with pytest.raises(MissingDependencyError, match="building needs torch"):
        build(Request("host", precision="int8", output=tmp_path / "bundle"))


def test_a_compiler_is_needed_only_for_what_is_not_in_the_cache(tmp_path, monkeypatch, nothing_is_loaded):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr("vmp_edge.compile.lowerings.executorch.library_is_built", lambda toolchain: True)
        Request("host", output=tmp_path / "bundle").checked()
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"a C\+\+ compiler \(Debian: apt install g\+\+\)"):
        build(Request("host", output=tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no such file"), (b"", "is empty"), (b"<html>", "is a web page"), (b"PK\x03\x04", "is damaged")],
)
def test_a_file_that_is_no_checkpoint(tmp_path, nothing_is_loaded, content, words):
    if content is not None:
        (tmp_path / "k400.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        build(Request("host", checkpoint=tmp_path / "k400.pth", output=tmp_path / "bundle"))


def test_videos_that_are_too_few_or_not_there(tmp_path, nothing_is_loaded):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "clips.txt").write_text("a.mp4\nb.mp4\nc.mp4\n")
    (tmp_path / "test.csv").write_text("path,label\ngone.mp4,pan-left\n")
    common = {"precision": "int8", "output": tmp_path / "bundle"}
    with pytest.raises(ClipSetError, match=r"64 clips are needed, .* gives 1 from 3 videos, 2 .*--calibration-clips 1"):
        build(Request("host", calibrate=tmp_path / "clips.txt", **common))
    with pytest.raises(ClipSetError, match=r"1 clips are needed, .* gives 0 from 1 videos, .*gone.mp4"):
        build(Request("host", evaluate=tmp_path / "test.csv", **common))


def test_a_full_disk_is_known_before_the_export(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1_000_000))
    monkeypatch.setattr(graph, "export", lambda *args: pytest.fail("the disk is full"))
    with pytest.raises(BuildError, match="has 1 MB free, and the bundle takes at least"):
        build(Request("host", output=tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_what_a_build_leaves_out_is_said_before_it_begins(tmp_path, monkeypatch, capsys):
    def load(choice):
        raise BuildError("here it begins")

    monkeypatch.setattr(source, "load", load)
    monkeypatch.setattr(cross, "cross_compiler", lambda machine: "g++")
    monkeypatch.setattr(notes, "require_emulator", require_nothing_like_it)
    monkeypatch.setattr(request_module.Order, "runs_here", False)
    hide(monkeypatch, "jinja2", "matplotlib")
    with pytest.raises(BuildError, match="here it begins"):
        order = Request("host", precision="int8", output=tmp_path / "bundle")
        monkeypatch.setattr(
            Request, "checked", lambda self, checked=Request.checked: replace_machine(checked(self), "aarch64")
        )
        build(order)
    said = capsys.readouterr().err
    assert "will not be compared with its source model: running it needs qemu-aarch64" in said
    assert "there will be no report: it needs jinja2 and matplotlib" in said


def require_nothing_like_it(machine):
    raise MissingDependencyError(f"running it needs qemu-{machine} (Debian: apt install qemu-user)")


def replace_machine(order, machine):
    return dataclasses.replace(order, target=dataclasses.replace(order.target, machine=machine))


def test_tuning_for_another_machine_is_refused_before_anything_is_loaded(tmp_path, nothing_is_loaded):
    pytest.importorskip("tvm")
    (tmp_path / "log.yaml").write_text("nonsense: [")
    with pytest.raises(UsageError, match="no tuning log for"):
        build(Request("host", engine="tvm", tuning_log=tmp_path / "log.yaml", output=tmp_path / "bundle"))
