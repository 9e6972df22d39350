"""`vmp-edge train --init efficientnet-lite0`: an image network under blocks that learn from the user's clips."""

import numpy as np
import pytest
import torch
from commands import last_json, run
from lite0 import package_tensors
from small_clips import write_clips

from vmp_edge.calibration.train import projection, start
from vmp_edge.calibration.train.footage import Footage
from vmp_edge.calibration.train.optimiser import parameter_groups
from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import efficientnet, load_checkpoint
from vmp_edge.models.training_facts import TrainingFacts
from vmp_edge.preprocessing import Preprocessing

SMALL = {"frames": 4, "image_size": 64, "widths": {"embed_dim": 16, "depth": 1}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(package_tensors(), path)
    return path


@pytest.fixture(scope="module")
def footage():
    """Ten clips of random pictures."""
    rng = np.random.default_rng(0)
    clips = tuple(rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8) for _ in range(10))
    numbers = np.arange(10)
    preprocessing = Preprocessing(64, mean=efficientnet.MEAN, std=efficientnet.STD)
    return Footage(clips, np.full(10, 2.0), numbers % 2, numbers % 5, 4, 1.0, preprocessing)


def test_the_start_prepares_frames_as_the_network_does(weights):
    begin = start.load(str(weights), **SMALL)
    assert begin.preprocessing.mean == efficientnet.MEAN and begin.preprocessing.std == efficientnet.STD
    assert begin.model.options.stem == "efficientnet_lite0" and begin.model.options.embed_dim == 16
    assert start.load(str(weights)).model.options.image_size == 160


def test_the_package_is_where_the_name_comes_from(weights, monkeypatch):
    monkeypatch.setattr(efficientnet, "package_file", lambda: weights)
    named, file = (start.load(init, **SMALL).model.state_dict() for init in ("efficientnet-lite0", str(weights)))
    assert all(torch.equal(named[name], file[name]) for name in file)


@torch.no_grad()
def test_blocks_change_nothing_before_they_are_trained(weights):
    model = start.load(str(weights), **SMALL).with_classes(2, 0).eval()
    video = torch.randn(1, 3, 4, 64, 64)
    torch.testing.assert_close(model.forward_blocks(video)[0, 1:], model.patch_embed(video)[0].flatten(0, 1))


@torch.no_grad()
def test_the_projection_is_the_principal_components_of_the_clips(weights, footage):
    begin = start.load(str(weights), **SMALL)
    model = begin.suited_to(footage).model
    video = torch.cat([torch.from_numpy(footage.middle(i)) for i in range(10)])
    maps = model.patch_embed.stem(video.transpose(1, 2).flatten(0, 1)).movedim(1, -1).flatten(0, 2).double().numpy()
    _, sizes, directions = np.linalg.svd(maps - maps.mean(0), full_matrices=False)
    tokens = model.patch_embed(video).flatten(0, 2).double().numpy()
    expected = (maps - maps.mean(0)) @ directions[:16].T
    expected /= np.sqrt(np.mean(sizes[:16] ** 2) / len(maps))
    assert np.square(tokens).mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(np.abs(tokens), np.abs(expected), atol=2e-3)  # a direction has no sign
    assert begin.projects, "the start itself stays as it was, for the next fold"


def test_few_clips_are_enough_for_the_projection(weights, footage):
    model = start.load(str(weights), **SMALL).model
    projection.choose(model, footage.fold(0))
    assert torch.isfinite(model.patch_embed.proj.weight).all()


def test_the_stem_is_not_taught(weights):
    model = start.load(str(weights), **SMALL).with_classes(2, 0)
    taught = {id(parameter) for group in parameter_groups(model, 0.05) for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in taught) != name.startswith("patch_embed.stem."), name
    (rate,) = [
        group["rate"]
        for group in parameter_groups(model, 0.05)
        if any(one is model.patch_embed.proj.weight for one in group["params"])
    ]
    assert rate == 1.0, "a projection of maps is a matrix like any other"


def test_weights_of_something_else(tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        start.load(str(tmp_path / "other.pth"))
    with pytest.raises(UsageError, match="efficientnet-lite0"):
        start.load("effnet")


def test_an_engine_that_takes_no_stem_is_refused_before_the_clips_are_decoded(weights, tmp_path, capsys):
    clips = write_clips(tmp_path / "clips")
    options = ["--output", tmp_path / "run", "--init", weights, "--engine", "tvm"]
    code, _, err = run(capsys, "train", clips, *options)
    assert code == 2 and "has an image network as its stem, which the engine tvm does not take" in err[-1]
    assert not (tmp_path / "run").exists()


def test_an_image_network_is_not_pretrained(weights, tmp_path, capsys):
    clips = write_clips(tmp_path / "clips", each=1)
    options = ["--init", weights, "--teacher", weights, "--output", tmp_path / "run"]
    code, _, err = run(capsys, "pretrain", clips, *options)
    assert code == 2 and "has an image network as its stem, which is trained already" in err[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [["--head-only"], ["--epochs", "6"]])
def test_a_folder_of_clips_becomes_a_bundle(weights, tmp_path, capsys, how):
    clips = write_clips(tmp_path / "clips")
    options = ["--init", weights, "--frames", 2, "--image-size", 32, "--engine", "torch", "--workers", 0, "--json"]
    code, out, err = run(capsys, "train", clips, "--output", tmp_path / "run", *options, *how)
    assert code == 0, err
    assert last_json(out)["top1"] >= 0.5, "colours are easy, but the weights are random"
    path = tmp_path / "run" / "model.pth"
    model = load_checkpoint(path)
    stem = load_checkpoint(path).patch_embed.stem
    expected = efficientnet.EfficientNetLite0()
    expected.load(package_tensors())
    assert stem is not None and model.options.num_classes == 3
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(stem.state_dict()[name], value, msg=name)
    assert TrainingFacts.read(path, 64).preprocessing.mean == pytest.approx(efficientnet.MEAN)
    text = "\n".join(out)
    assert "--target arm64-executorch" in text and "--target arm64 " not in text, "where the stem runs"
    assert "int8" not in text, "which would leave the stem as large as it is"
    again = start.load(str(path))
    assert not again.projects and again.preprocessing.std == pytest.approx(efficientnet.STD)
