"""Models with an image network as their stem: programs, bundles, and the engines that take none."""

import pytest
import torch
from commands import run
from lite0 import package_tensors
from small_clips import write_clips
from small_models import make_model

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.compile import graph
from vmp_edge.models.stream_state import program_states

STEM = {"stem": "efficientnet_lite0", "patch_size": 32, "image_size": 64, "readout": "mean"}


@pytest.fixture(scope="module")
def model():
    made = make_model(**STEM)
    made.patch_embed.stem.load(package_tensors())
    return made


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "stem.pth"
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, path)
    return path


@torch.no_grad()
def test_the_program_and_its_two_parts_give_the_models_numbers(model):
    video = torch.randn(1, 3, 4, 64, 64)
    frames = graph.fold_frames(video, 1)
    program = graph.export(model)
    torch.testing.assert_close(program.module()(frames), model(video), atol=1e-5, rtol=1e-5)
    embedding, rest = graph.split(program, 1)
    tokens = torch.cat([embedding.module()(frame[None]) for frame in frames])
    assert tokens.shape == (4, 4, 32)
    torch.testing.assert_close(rest.module()(tokens), model(video), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_causal_model_steps_through_the_maps():
    model = make_model(**STEM, causal=True)
    video = torch.randn(1, 3, 3, 64, 64)
    program = graph.export(model).module()
    states = [torch.zeros(shape) for shape in program_states(model.options).values()]
    for frame in graph.fold_frames(video, 1):
        logits, *states = program(frame[None], *states)
    torch.testing.assert_close(logits, model(video), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", ["executorch", "onnxruntime", "torch"])
def test_engines_that_take_it(capsys, tmp_path, checkpoint, engine):
    options = ["--target", "host", "--engine", engine, "--checkpoint", checkpoint, "--output", tmp_path / "bundle"]
    code, _, err = run(capsys, "build", *options)
    assert code == 0, err
    parity = Bundle.open(tmp_path / "bundle").manifest.parity
    assert parity["max_difference"] <= 1e-4


def test_int8_leaves_the_stem_as_it_is(capsys, tmp_path, model, checkpoint):
    clips = write_clips(tmp_path / "clips")
    options = ["--target", "host", "--precision", "int8", "--checkpoint", checkpoint, "--calibrate", clips]
    options += ["--calibration-clips", 18]
    code, _, err = run(capsys, "build", *options, "--output", tmp_path / "bundle")
    assert code == 0, err
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.parity["cosine"] > 0.99
    weights = sum(weight.numel() for weight in model.patch_embed.stem.parameters())
    assert (bundle.path / bundle.manifest.program).stat().st_size > 4 * weights, "a weight in float32 has four bytes"


def test_frames_go_through_the_stem_once(capsys, tmp_path, checkpoint, video):
    for name, more in (("whole", ()), ("frames", ("--per-frame",))):
        options = ["--target", "host", "--checkpoint", checkpoint, "--output", tmp_path / name, *more]
        code, _, err = run(capsys, "build", *options)
        assert code == 0, err
    scores = []
    for name in ("whole", "frames"):
        with vmp_edge.load(tmp_path / name) as recognizer:
            scores.append([one.scores for one in recognizer.stream(video, smoothing=None)])
    assert len(scores[0]) > 10
    torch.testing.assert_close(torch.tensor(scores[1]), torch.tensor(scores[0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        (["host", "--engine", "tvm"], "choose --engine executorch or"),
        (["android-vulkan"], "choose the target of a CPU"),
    ],
)
def test_engines_that_do_not(capsys, tmp_path, checkpoint, target, advice):
    code, _, err = run(
        capsys, "build", "--target", *target, "--checkpoint", checkpoint, "--output", tmp_path / "bundle"
    )
    assert code == 2
    assert "has an image network as its stem" in err[-1] and advice in err[-1]
    assert not (tmp_path / "bundle").exists()
