"""Builds of causal models: what they write, how they are compared, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CAUSAL, make_model

import vmp_edge
from vmp_edge import engines
from vmp_edge.bundle.check import check_clip
from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import main
from vmp_edge.compile import causal, lowering, parity, precision
from vmp_edge.compile import target as targets
from vmp_edge.compile.request import Order, Request
from vmp_edge.errors import UsageError
from vmp_edge.models.stream_state import layout, program_states
from vmp_edge.runtimes.torch.engine import TorchEngine

MODEL = make_model(**CAUSAL["spatiotemporal"])


@pytest.fixture
def build(capfd, tmp_path):
    """A function that builds a small causal checkpoint, and returns the exit code, the errors and the folder."""
    checkpoint, output = tmp_path / "small.pth", tmp_path / "bundle"
    torch.save({"model": MODEL.state_dict(), "options": vars(MODEL.options)}, checkpoint)

    def run(*options):
        arguments = ("build", "--target", "host", "--checkpoint", checkpoint, "--output", output, *options)
        code = main([str(argument) for argument in arguments])
        return code, capfd.readouterr().err.splitlines(), output

    return run


def test_the_manifest_says_the_states(build, capfd):
    code, lines, output = build("--engine", "torch", "--features")
    assert code == 0, lines
    manifest = Bundle.open(output).manifest
    assert manifest.states == program_states(MODEL.options)
    assert manifest.state_size == layout(MODEL.options).size
    assert manifest.to_dict()["format"] == 4
    assert 0 <= manifest.parity["max_difference"] <= 1e-4
    assert 0 <= manifest.parity["states"]["max_difference"] <= manifest.parity["states"]["tolerance"] == 1e-3
    assert main(["info", str(output), "--json"]) == main(["verify", str(output)]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[0])["states"]["started"] == [1, 1, 1]
    assert main(["info", str(output)]) == 0
    assert "step  2 frames; a stream carries a state of" in capfd.readouterr().out


@pytest.mark.parametrize("sampling", [{}, {"--span": 4.0}, {"--frame-rate": 15}])
def test_a_causal_bundle_says_its_sampling_if_it_is_known(build, sampling):
    code, lines, output = build("--engine", "torch", *(word for pair in sampling.items() for word in pair))
    assert code == 0, lines
    manifest = Bundle.open(output).manifest
    assert (manifest.frames, manifest.span) == (4, sampling.get("--span"))
    assert manifest.frame_rate == sampling.get("--frame-rate")


def test_a_clip_is_recognised_as_after_its_last_step(build):
    _, _, output = build("--engine", "torch")
    with vmp_edge.load(output) as recognizer:
        video = recognizer.manifest.preprocessing.clip(check_clip(0, 4, 32))
        logits = recognizer.predict_video(video)
    with torch.no_grad():
        np.testing.assert_allclose(logits, MODEL(torch.from_numpy(video)), atol=1e-5)


def test_it_is_compared_after_each_of_three_times_as_many_steps(build, monkeypatch):
    steps = []
    step = TorchEngine.step
    monkeypatch.setattr(TorchEngine, "step", lambda *arguments: steps.append(1) or step(*arguments))
    code, _, _ = build("--engine", "torch")
    assert code == 0 and len(steps) == 2 * parity.CLIPS * 3 * MODEL.options.num_frames


@pytest.mark.parametrize("place", ["inputs-0", "h-1", "started"])
def test_a_bundle_that_loses_a_state_is_not_written(build, monkeypatch, place):
    shapes = program_states(MODEL.options)
    names = list(shapes)
    start = sum(int(np.prod(shapes[name])) for name in names[: names.index(place)])
    stop = start + int(np.prod(shapes[place]))
    step = TorchEngine.step

    def forgetful(self, frames, state):
        outputs, after = step(self, frames, state)
        after = after.copy()
        after[:, start:stop] = 0
        return outputs, after

    monkeypatch.setattr(TorchEngine, "step", forgetful)
    code, lines, output = build("--engine", "torch")
    assert code == 1 and not output.exists()
    assert "from the source model's by" in lines[-1]


def test_what_is_not_for_causal_models_is_one_line(build):
    code, lines, output = build("--engine", "executorch", "--per-frame")
    assert code == 2 and lines[-1].startswith("vmp-edge: small is a causal model: a step embeds each frame once")
    code, lines, _ = build("--engine", "torch", "--variants", "depth=1")
    assert code == 2 and "without --variants" in lines[-1]
    assert not output.exists()


def order(target, engine, name="fp32"):
    """An order as far as `causal.check` looks at it."""
    found = lowering.Lowering(lambda *_: None)
    record, chosen = engines.record(engine), precision.find(name)
    return Order(Request(target), targets.load(target), record, chosen, found, None, None, (), None, Path())


@pytest.mark.parametrize(
    ("ordered", "words"),
    [
        (("openvino", "openvino"), "the engine openvino does not run its steps yet; give --engine with one of exec"),
        (("host", "executorch", "int8"), "the engine executorch runs its steps in fp32, not in int8"),
        (("host", "onnxruntime", "fp16"), "in fp32, not in fp16"),
        (("android-qnn", "executorch"), "not on android-qnn: build for host"),
        (("jetson-orin", "tvm"), "not on jetson-orin: build for host"),
        (("android-cpu", "executorch"), "as nothing here runs a step for android"),
    ],
)
def test_what_is_not_built_yet_is_refused(ordered, words):
    with pytest.raises(UsageError) as caught:
        causal.check(order(*ordered), "nano")
    assert str(caught.value).startswith("nano is a causal model: ") and words in str(caught.value)


def test_what_can_be_built_passes():
    for engine in ("executorch", "onnxruntime", "torch", "tvm"):
        causal.check(order("host", engine), "nano")
