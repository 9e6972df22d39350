"""Targets that ExecuTorch's delegates take whole: what is checked of them without their toolchains."""

import copy
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch.fx import traceback

from vmp_edge.cli import main
from vmp_edge.compile import precision, target
from vmp_edge.compile.lowerings import delegates
from vmp_edge.compile.lowerings.delegates import ethosu, vgf
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.installation import install_command
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
        ("arm-ethos-u85", "ethosu", "ethos-u"),
        ("arm-vgf", "model_converter", "vgf"),
        ("android-qnn", "onnxruntime_qnn", "qnn"),
        ("onnx-qnn", "onnxruntime_qnn", "qnn"),
    ],
)
def test_a_missing_toolchain_is_one_line(capfd, tmp_path, checkpoint, monkeypatch, name, module, extra):
    pytest.importorskip("executorch", reason="needs executorch")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    for loaded in [each for each in sys.modules if each.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    output = tmp_path / "bundle"
    command = ["build", "--target", name, "--output", output]
    if not precision.find(target.load(name).precisions[0]).by_delegate:  # our own model needs no --calibrate
        command += ["--checkpoint", checkpoint]
    assert main([str(argument) for argument in command]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert f"needs {module}" in lines[-1]
    assert f"run: {install_command(f'compile,{extra}')}" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not output.exists()


@pytest.mark.parametrize("arguments", [("--precision", "fp32"), ("--engine", "torch"), ("--parity-clips", "-1")])
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


def test_nodes_keep_one_history():
    source = traceback.NodeSource(None, "a pass")
    with delegates.shared_history():
        assert copy.deepcopy(source) is source
    assert copy.deepcopy(source) is not source


def test_activations_of_eight_bits_are_refused():
    pytest.importorskip("torchao", reason="needs torchao")

    class Rounds(torch.nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.dtype = dtype

        def forward(self, x):
            least, most = torch.iinfo(self.dtype).min, torch.iinfo(self.dtype).max
            operators = torch.ops.quantized_decomposed
            q = operators.quantize_per_tensor(x, 0.1, 0, least, most, self.dtype)
            return operators.dequantize_per_tensor(q, 0.1, 0, least, most, self.dtype)

    programs = [torch.export.export(Rounds(dtype), (torch.ones(2),)) for dtype in (torch.int16, torch.int8)]
    ethosu.check_wide(programs[0])
    with pytest.raises(BuildError, match="1 activations would have eight bits"):
        ethosu.check_wide(programs[1])


@pytest.mark.parametrize("missing", ["driver", "layers"])
def test_what_emulating_vulkan_needs(monkeypatch, tmp_path, missing):
    icd = tmp_path / "vulkan" / "icd.d"
    icd.mkdir(parents=True)
    (icd / "lvp_icd.x86_64.json").write_text("{}")
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "none" if missing == "driver" else tmp_path))
    for name in ("scenario_runner", "emulation_layer"):
        module = ModuleType(name)
        module.__file__ = str(tmp_path / name / "__init__.py")
        monkeypatch.setitem(sys.modules, name, module)
    if missing == "layers":
        assert vgf.environment()["VK_ICD_FILENAMES"] == str(icd / "lvp_icd.x86_64.json")
        monkeypatch.setitem(sys.modules, "emulation_layer", None)
    words = "apt install mesa-vulkan-drivers" if missing == "driver" else r"needs emulation_layer; run: .*pip install"
    with pytest.raises(MissingDependencyError, match=words):
        vgf.environment()


def test_an_emulated_engine_takes_videos():
    delegated = delegates.Delegated(b"", (), "a test", lambda frames: frames.mean((1, 2, 3))[None])
    engine = delegates.EmulatedDelegate(delegated, SimpleNamespace(manifest=SimpleNamespace(tubelet=2)))
    video = np.arange(2 * 3 * 4 * 2 * 2, dtype=np.float32).reshape(2, 3, 4, 2, 2)
    steps = video.transpose(0, 2, 1, 3, 4).reshape(2, 2, -1).mean(2)
    np.testing.assert_allclose(engine.run(video), steps)
    assert engine.emulator == "a test"
    engine.close()
