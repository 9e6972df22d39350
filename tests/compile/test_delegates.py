"""Targets that ExecuTorch's delegates take whole: what is checked of them without their toolchains."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vmp_edge.cli import main
from vmp_edge.compile import delegates, target
from vmp_edge.errors import BuildError
from vmp_edge.ops.chunked import FORMS, Form

DELEGATED = [name for name in target.names() if target.load(name).delegate]


@pytest.mark.parametrize("name", DELEGATED)
def test_targets_are_whole(name):
    kind = target.load(name)
    assert kind.delegate in delegates.MODULES
    assert Form(**kind.scan).form in FORMS
    assert not target.runs_here(kind)
    assert kind.verified["a device"] == "not run yet"


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("apple-ane", "coremltools", "coreml"),
        ("android-qnn", "onnxruntime_qnn", "qnn"),
        ("onnx-qnn", "onnxruntime_qnn", "qnn"),
    ],
)
def test_a_missing_toolchain_is_one_line(capfd, tmp_path, checkpoint, monkeypatch, name, module, extra):
    pytest.importorskip("executorch", reason="needs executorch")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    monkeypatch.setitem(sys.modules, module, None)
    output = tmp_path / "bundle"
    command = ["build", "--target", name, "--checkpoint", checkpoint, "--output", output]
    assert main([str(argument) for argument in command]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert f"needs {module}; run: pip install 'vmp-edge[compile,{extra}]'" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not output.exists()


@pytest.mark.parametrize("arguments", [("--precision", "fp32"), ("--engine", "torch"), ("--parity-clips", "0")])
def test_what_a_target_has_not(capfd, arguments):
    assert main(["build", "--target", "apple-ane", *arguments]) == 2
    assert arguments[1] in capfd.readouterr().err.splitlines()[-1]


def lower_whole(module, example, supported):
    """`delegates.lower_whole` with ExecuTorch's delegate for demonstrations, which takes only what it is told."""
    pytest.importorskip("executorch", reason="needs executorch")
    from executorch.backends.xnnpack.partition.config import gemm_configs
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    configs = [getattr(gemm_configs, name) for name in supported]
    program = torch.export.export(module, (example,))
    return delegates.lower_whole(program, XnnpackPartitioner(configs=configs), "A delegate")


def test_a_model_in_one_part_is_taken():
    _, lowered = lower_whole(torch.nn.Linear(4, 4).eval(), torch.zeros(1, 4), ["LinearConfig"])
    assert lowered.processed_bytes


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((torch.nn.Linear(4, 4), torch.nn.Tanh()), r"in 1 parts and leaves aten\.tanh\.default to the CPU"),
        ((torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4)), r"in 2 parts and leaves aten\.tanh"),
        ((torch.nn.Tanh(),), r"in 0 parts"),
    ],
)
def test_leftovers_are_refused(layers, words):
    with pytest.raises(BuildError, match=words):
        lower_whole(torch.nn.Sequential(*layers).eval(), torch.zeros(1, 4), ["LinearConfig"])


def test_a_failing_compiler_is_one_line():
    pytest.importorskip("executorch", reason="needs executorch")

    class Fails:
        def __getattr__(self, name):
            raise IndexError("tuple index\nout of range")

    program = torch.export.export(torch.nn.Tanh(), (torch.zeros(1, 4),))
    with pytest.raises(BuildError, match="A delegate cannot compile the model: tuple index out of range"):
        delegates.lower_whole(program, Fails(), "A delegate")


def test_an_emulated_engine_takes_videos():
    made = delegates.Delegated(b"", (), "a test", lambda frames: frames.mean((1, 2, 3))[None])
    engine = delegates.Emulated(made, SimpleNamespace(manifest=SimpleNamespace(model={"tubelet_size": 2})))
    video = np.arange(2 * 3 * 4 * 2 * 2, dtype=np.float32).reshape(2, 3, 4, 2, 2)
    steps = video.transpose(0, 2, 1, 3, 4).reshape(2, 2, -1).mean(2)
    np.testing.assert_allclose(engine.run(video), steps)
    assert engine.emulator == "a test"
    engine.close()
