"""`vmp-edge build` in int8: what it writes, what it measures, and what it refuses."""

import json
import shutil
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import torch
import yaml
from small_models import make_model

pytest.importorskip("executorch", reason="needs executorch")

from vmp_edge import engines
from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration import quantisation
from vmp_edge.calibration.measure import Comparison
from vmp_edge.cli import main
from vmp_edge.compile import graph, parity, target
from vmp_edge.compile.lowerings import delegates
from vmp_edge.compile.lowerings.delegates import contract
from vmp_edge.compile.lowerings.executorch import to_executorch
from vmp_edge.compile.precision import PRECISIONS, Cosine, Quantiser, quantised_by

QUANTISED = quantised_by(Quantiser.RECIPE)


def run(capfd, *arguments):
    """Exit code, standard output and the lines of standard error of the command line."""
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err.splitlines()


@pytest.fixture
def clips(tmp_path):
    """Three videos of moving noise for two of the small model's five labels."""
    random = np.random.default_rng(0)
    for label in ("class-0", "class-3"):
        folder = tmp_path / "clips" / label
        folder.mkdir(parents=True)
        for i in range(3):
            picture = cv2.resize(random.integers(0, 256, (6, 6, 3), np.uint8), (48, 48))
            writer = cv2.VideoWriter(str(folder / f"{i}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 15, (48, 48))
            for step in range(8):
                writer.write(np.roll(picture, (i + 1) * step, axis=1))
            writer.release()
    return tmp_path / "clips"


def test_recipes_and_engines_know_the_same_precisions():
    assert set(quantisation.names()) == {"fp16", *quantised_by(Quantiser.RECIPE, Quantiser.DELEGATE)}
    for name in target.names():
        kind = target.load(name)
        assert kind.precisions
        assert all(
            any(precision in engines.record(engine).precisions for engine in kind.engines)
            for precision in kind.precisions
        )
    assert set(QUANTISED) <= set(target.load("host").precisions)


VARIANTS = {"pro": {}, "separate": {"directions": "separate", "scan_order": "temporal_first"}}


@cache
def lowered(precision, variant):
    """A small model's program, what ExecuTorch makes of it in a precision, and what XNNPACK was given meanwhile.

    The last are the types of input and weight of its fully connected operators and convolutions.
    """
    from executorch.backends.xnnpack import xnnpack_preprocess

    found = []
    serialise = xnnpack_preprocess.serialize_xnnpack_binary

    def spy(graph, *rest):
        types = {
            tensor.id_out: tensor.datatype.name.removeprefix("xnn_datatype_")
            for tensor in (getattr(v.xvalue_union, "tensor_value", v.xvalue_union) for v in graph.xvalues)
        }
        for node in (n.xnode_union for n in graph.xnodes):
            if hasattr(node, "filter_id"):
                found.append(f"{types[node.input1_id]} {types[node.filter_id]}")
        return serialise(graph, *rest)

    program = graph.export(make_model(**VARIANTS[variant]))
    torch.manual_seed(0)
    inputs = [torch.randn_like(program.example_inputs[0][0])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xnnpack_preprocess, "serialize_xnnpack_binary", spy)
        made = to_executorch(quantisation.quantise(program, quantisation.load(precision), inputs))
    return program, made, found


@pytest.mark.parametrize("precision", QUANTISED)
@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_stays_in_the_delegate(precision, variant):
    """No layer, no rounding and no int8 weight is left to ExecuTorch's portable kernels."""
    nodes = lowered(precision, variant)[1].exported_program().graph_module.graph.nodes
    left = {str(node.target) for node in nodes if node.op == "call_function"}
    left -= {"executorch_call_delegate", "<built-in function getitem>"}
    assert {name for name in left if not name.startswith(("vmp.", "<function alloc"))} <= {"aten.select_copy.int_out"}


KERNELS = {  # by precision: input and weight of XNNPACK's fully connected operators and convolutions
    "int8": {"qdint8 qcint8", "qint8 qcint8", "fp32 fp32"},
    "int8-dynamic": {"qdint8 qcint8", "fp32 fp32"},
    "int8-weight-only": {"fp32 qcint8", "fp32 fp32"},
}


@pytest.mark.parametrize("precision", QUANTISED)
def test_xnnpack_computes_in_integers(precision):
    """What is handed to XNNPACK are integers, but for the layers that the recipe leaves in float."""
    program, _, found = lowered(precision, "pro")
    recipe = quantisation.load(precision)
    assert set(found) == KERNELS[precision]
    layers = [name for name, _ in quantisation.layers(program.module(check_guards=False))]
    assert found.count("fp32 fp32") == sum(recipe.kind(name) is None for name in layers)


def test_a_calibrated_bundle(capfd, tmp_path, checkpoint, clips):
    output = tmp_path / "out" / "bundle"
    code, out, lines = run(
        capfd,
        *("build", "--target", "host", "--checkpoint", checkpoint, "--precision", "int8", "--output", output),
        *("--calibrate", clips, "--calibration-clips", 6, "--evaluate", clips, "--max-drop", 100, "--json"),
    )
    assert code == 0, lines
    assert json.loads(out.splitlines()[-1])["precision"] == "int8"
    manifest = Bundle.open(output).manifest
    assert 0.97 <= manifest.parity["least_cosine"] <= manifest.parity["cosine"] <= 1.0001
    assert manifest.parity["clips"] == 6
    measured = manifest.accuracy["measured"]
    assert {"top1", "float_top1", "agreement"} <= set(measured) and measured["clips"] == 6
    assert manifest.accuracy["calibration"] == {"data": str(clips), "clips": 6, "left_out": 0}
    assert sorted(path.name for path in output.parent.iterdir()) == ["bundle", "bundle.report.html"]
    html = (tmp_path / "out" / "bundle.report.html").read_text()
    assert "Signal-to-noise ratio by layer" in html and "data:image/jpeg" in html and "recipe: ranges" in html
    assert "building-" not in html  # the bundle's name, not that of the folder in which it was made
    assert run(capfd, "verify", output)[0] == 0
    again = ("build", "--target", "host", "--engine", "torch", "--checkpoint", checkpoint, "--output", output)
    code, _, lines = run(capfd, *again)
    assert code == 0, lines  # the report beside a bundle is in nobody's way


def test_verify_sees_another_output(capfd, tmp_path, checkpoint, once):
    built = once.bundle("--target", "host", "--precision", "int8-dynamic", checkpoint=checkpoint)
    output = shutil.copytree(built, tmp_path / "bundle")
    path = output / "manifest.yaml"
    manifest = yaml.safe_load(path.read_text())
    check = manifest["parity"]["check"]
    spread = max(check["logits"]) - min(check["logits"])
    assert check["tolerance"] == pytest.approx(parity.VERIFIED * spread, rel=1e-3)
    check["logits"] = check["logits"][::-1]
    path.write_text(yaml.safe_dump(manifest))
    code, _, lines = run(capfd, "verify", output)
    assert code == 1 and "another output" in lines[-1]


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weight-only"])
def test_precisions_that_need_no_clips(checkpoint, once, precision):
    output = once.bundle("--target", "host", "--precision", precision, checkpoint=checkpoint)
    manifest = Bundle.open(output).manifest
    assert manifest.precision == precision and "measured" not in manifest.accuracy
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]  # nothing to report


def test_unlabelled_clips_tell_the_agreement(capfd, tmp_path, checkpoint, clips):
    names = sorted(clips.rglob("*.avi"))
    (tmp_path / "clips.txt").write_text("".join(f"{path}\n" for path in names))
    output = tmp_path / "out" / "bundle"
    build = ("build", "--target", "host", "--checkpoint", checkpoint, "--precision", "int8", "--output", output)
    code, _, lines = run(capfd, *build, "--calibrate", tmp_path / "clips.txt", "--calibration-clips", 4)
    assert code == 0, lines
    measured = Bundle.open(output).manifest.accuracy["measured"]
    assert measured["clips"] == 4 and "top1" not in measured and 0 <= measured["agreement"] <= 1
    assert "labelled with what the float model recognises" in measured["data"]
    assert (tmp_path / "out" / "bundle.report.html").is_file()


def test_our_own_model_draws_its_clips(capfd, tmp_path, monkeypatch):
    monkeypatch.setitem(PRECISIONS, "int8", replace(PRECISIONS["int8"], drawn_clips=20))
    output = tmp_path / "bundle"
    build = ("build", "--target", "host", "--precision", "int8", "--calibration-clips", 10, "--output", output)
    code, _, lines = run(capfd, *build, "--max-drop", 15)
    assert code == 0, lines
    accuracy = Bundle.open(output).manifest.accuracy
    assert accuracy["measured"]["clips"] == 20 and accuracy["measured"]["float_top1"] >= 0.8
    assert accuracy["calibration"]["clips"] == 10
    assert accuracy["float"]["procedural"]["clips"] == 2000


def test_fine_tuning_is_told(capfd, tmp_path, checkpoint, clips):
    output = tmp_path / "bundle"
    build = ("build", "--target", "host", "--checkpoint", checkpoint, "--precision", "int8-dynamic", "--output", output)
    code, _, lines = run(capfd, *build, "--calibrate", clips, "--calibration-clips", 4, "--finetune", 2)
    assert code == 0, lines
    assert Bundle.open(output).manifest.accuracy["calibration"]["finetuning_steps"] == 2


class FakeDelegate:
    """Quantises nothing and compiles nothing; what "emulates" it is PyTorch."""

    def record(self):
        return delegates.Delegate(self.lower, quantiser=self.quantiser)

    def quantiser(self, kind, recipe):
        from torchao.quantization.pt2e.quantizer import Quantizer

        class Nothing(Quantizer):
            def annotate(self, model):
                return model

            def validate(self, model):
                """Nothing could be wrong."""

        return Nothing()

    def lower(self, program, kind, precision):
        names = {str(node.target) for node in program.graph.nodes}
        assert not any(name.startswith("vmp") for name in names)
        module = program.module(check_guards=False)
        return delegates.Delegated(b"program", ("torch",), "a fake", lambda frames: run_module(module, frames))


def run_module(module, frames):
    with torch.no_grad():
        return module(torch.from_numpy(frames)).numpy()


def test_a_delegate_quantises_and_its_emulator_recognises(capfd, tmp_path, checkpoint, clips, monkeypatch):
    monkeypatch.setattr(contract, "find", lambda target: FakeDelegate().record())
    output = tmp_path / "out" / "bundle"
    build = ("build", "--target", "arm-ethos-u85", "--checkpoint", checkpoint, "--output", output)
    code, _, lines = run(capfd, *build)
    assert code == 2 and "16a8w is calibrated on clips: give some 64 videos" in lines[-1]
    assert "int8-dynamic" not in lines[-1]
    code, _, lines = run(capfd, *build, "--calibrate", clips, "--calibration-clips", 2, "--evaluate", clips)
    assert code == 0, lines
    manifest = Bundle.open(output, any_machine=True).manifest
    assert manifest.precision == "16a8w"
    assert manifest.parity["emulator"] == "a fake" and manifest.parity["agreement"] == 1
    assert manifest.accuracy["calibration"]["clips"] == 2
    assert manifest.accuracy["measured"]["engine"] == "a fake" and manifest.accuracy["measured"]["clips"] == 6


class NeverRun:
    """A delegate whose emulator would take too long."""

    def record(self):
        return delegates.Delegate(self.lower)

    def lower(self, program, kind, precision):
        def run(frames):
            raise AssertionError("it was to be left out")

        return delegates.Delegated(b"program", ("torch",), "a fake", run)


class NeverRunInPyTorch(NeverRun):
    """Likewise; it quantises while it lowers."""

    def record(self):
        return delegates.Delegate(self.lower, lower_calibrated=self.lower_calibrated)

    def lower_calibrated(self, program, kind, recipe, clips):
        return self.lower(program, kind, "16a8w")


class NeverRunOnADevice(NeverRun):
    """Likewise, but PyTorch can run what it quantises."""

    def record(self):
        return delegates.Delegate(self.lower, quantiser=self.quantiser)

    quantiser = FakeDelegate.quantiser


@pytest.mark.parametrize(
    ("fake", "target", "measured"),
    [
        (NeverRunOnADevice, "arm-ethos-u85", "torch"),
        (NeverRunInPyTorch, "onnx-qnn", None),
        (NeverRun, "arm-vgf", None),
    ],
)
def test_no_parity_clips_leave_the_emulator_out(
    capfd, tmp_path, checkpoint, clips, monkeypatch, fake, target, measured
):
    monkeypatch.setattr(contract, "find", lambda target: fake().record())
    output = tmp_path / "out" / "bundle"
    build = ("build", "--target", target, "--checkpoint", checkpoint, "--parity-clips", 0, "--output", output)
    if target != "arm-vgf":  # whose only precision is fp32
        build += ("--precision", "16a8w", "--calibrate", clips, "--calibration-clips", 2)
        code, _, lines = run(capfd, *build, "--evaluate", clips, "--max-drop", 1)
        assert code == 2 and "which --parity-clips 0 leaves out" in lines[-1] and not output.exists()
    code, _, lines = run(capfd, *build)
    assert code == 0, lines
    assert any("NOT compared with the source model: left out by --parity-clips 0" in line for line in lines)
    manifest = Bundle.open(output, any_machine=True).manifest
    assert manifest.parity == {"not_run": "left out by --parity-clips 0"}
    assert manifest.accuracy.get("measured", {}).get("engine") == measured
    assert output.with_name("bundle.report.html").exists() == (measured is not None)


def test_too_great_a_drop_fails_and_leaves_nothing(capfd, tmp_path, checkpoint, clips, monkeypatch):
    monkeypatch.setattr(Comparison, "drop", 0.75)
    build = ("build", "--target", "host", "--checkpoint", checkpoint, "--precision", "int8-dynamic")
    output = tmp_path / "out" / "bundle"
    code, _, lines = run(capfd, *build, "--evaluate", clips, "--max-drop", 0.5, "--output", output)
    assert code == 1
    assert "falls by 0.75 points" in lines[-1] and "--max-drop 0.5 allows; nothing was written" in lines[-1]
    assert not output.parent.exists()


def test_logits_too_far_from_the_source_model(capfd, tmp_path, checkpoint, monkeypatch):
    monkeypatch.setitem(PRECISIONS, "int8-dynamic", replace(PRECISIONS["int8-dynamic"], parity=Cosine(1.1)))
    output = tmp_path / "out" / "bundle"
    build = ("build", "--target", "host", "--checkpoint", checkpoint, "--precision", "int8-dynamic", "--output", output)
    code, _, lines = run(capfd, *build)
    assert code == 1 and "less than the 1.1 that int8-dynamic asks for" in lines[-1]
    assert not output.parent.exists()


INT8 = ("--precision", "int8")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (INT8, 2, "int8 is calibrated on clips: give some 64 videos"),
        ((*INT8, "--calibrate", "none"), 1, "none does not exist"),
        ((*INT8, "--calibrate", "{clips}"), 1, "64 clips are needed, {clips} gives 6 from 6 videos"),
        ((*INT8, "--calibrate", "{clips}", "--calibration-clips", "0"), 2, "--calibration-clips is 0"),
        ((*INT8, "--calibrate", "{clips}", "--max-drop", "1"), 2, "--max-drop is measured on labelled videos"),
        ((*INT8, "--calibrate", "{clips}", "--evaluate", "{clips}", "--max-drop", "-1"), 2, "--max-drop is -1"),
        ((*INT8, "--calibrate", "{clips}", "--evaluate", "{clips}", "--max-drop", "nan"), 2, "--max-drop is nan"),
        (("--calibrate", "{clips}", "--max-drop", "1"), 2, "--calibrate, --max-drop: for the precisions int8,"),
        ((*INT8, "--calibrate", "{clips}", "--finetune", "0"), 2, "--finetune is 0; give steps, 1 or more"),
        (("--precision", "int8-dynamic", "--finetune", "9"), 2, "--finetune learns from videos: give some"),
        ((*INT8, "--engine", "torch"), 2, "the engine torch does not do int8 for host; choose --engine executorch"),
        (("--precision", "int4"), 2, "no precision 'int4'; it has fp32, int8, int8-dynamic, int8-weight-only"),
    ],
)
def test_bad_requests(capfd, tmp_path, checkpoint, clips, arguments, code, words):
    given = [text.replace("{clips}", str(clips)) for text in arguments]
    output = tmp_path / "out" / "bundle"
    answer, _, lines = run(capfd, "build", "--target", "host", "--checkpoint", checkpoint, *given, "--output", output)
    assert answer == code, lines
    assert words.replace("{clips}", str(clips)) in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert not output.parent.exists()


def test_videos_with_labels_that_the_model_does_not_know(capfd, tmp_path, checkpoint, clips):
    (clips / "class-3").rename(clips / "dancing")
    build = ("build", "--target", "host", "--checkpoint", checkpoint, "--precision", "int8-dynamic")
    code, _, lines = run(capfd, *build, "--evaluate", clips, "--output", tmp_path / "b")
    assert code == 2 and "does not know the label dancing" in lines[-1]
