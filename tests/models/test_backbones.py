"""Checkpoints without a head: pretrained ones, and those of video and text, as the published code computes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.compile.graph import InferenceModel, fold_frames
from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import ModelOptions, load_checkpoint

DATA = Path(__file__).parents[1] / "data"
# The text encoder's last layers, which look at the video, and its language model are left out of the golden's file.
MM, PRETRAINED = "mm_e64_d4_f4_r64", "pretrain_e48_d3_f4_r64"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def golden(name):
    values = np.load(DATA / f"{name}.npz")
    video = (torch.from_numpy(values["clip"]).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return values, video.permute(0, 4, 1, 2, 3).contiguous()


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_pretrained_tokens_are_the_published_ones(capsys):
    values, video = golden(PRETRAINED)
    model = load_checkpoint(DATA / f"{PRETRAINED}.pth")
    assert model.options.num_classes == 0
    assert_close(model.forward_tokens(video), values["tokens"])
    assert_close(model(video), values["tokens"][:, 0])
    assert "left out clip_decoder" in capsys.readouterr().err


@torch.no_grad()
def test_the_feature_of_a_video_is_the_published_one(capsys):
    values, video = golden(MM)
    model = load_checkpoint(DATA / f"{MM}.pth", readout="pooled_frames")
    assert (model.options.projection, model.options.features, model.options.num_classes) == (32, 32, 0)
    tokens = model.forward_tokens(video)
    assert_close(tokens, values["vision_tokens"])
    assert_close(model.frame_features(tokens), values["video_features"])
    assert_close(model(video), values["video_feature_mean"])
    inference = InferenceModel(model)
    for index in range(2):
        assert_close(inference(fold_frames(video[index : index + 1], 1))[0], values["video_feature_mean"][index])
    assert "pool_norm" not in capsys.readouterr().err  # it is used


@torch.no_grad()
def test_without_a_word_the_vision_encoder_is_an_ordinary_backbone():
    values, video = golden(MM)
    model = load_checkpoint(DATA / f"{MM}.pth")
    assert (model.options.readout, model.options.projection) == ("class_token", 0)
    assert_close(model(video), values["vision_tokens"][:, 0])
    assert load_checkpoint(DATA / f"{MM}.pth", readout="published").options.readout == "pooled_frames"
    assert load_checkpoint(DATA / f"{PRETRAINED}.pth", readout="published").options.readout == "class_token"


@torch.no_grad()
def test_the_projection_survives_our_own_files(tmp_path):
    values, video = golden(MM)
    model = load_checkpoint(DATA / f"{MM}.pth", readout="pooled_frames")
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, tmp_path / "own.pth")
    assert_close(load_checkpoint(tmp_path / "own.pth")(video), values["video_feature_mean"])


def test_a_readout_without_its_tensors_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="has no pool_norm and vision_proj"):
        load_checkpoint(DATA / f"{PRETRAINED}.pth", readout="pooled_frames")
    for options in ({"readout": "pooled_frames"}, {"projection": 4}, {"readout": "pooled_frames", "projection": 4}):
        with pytest.raises(UsageError, match="pooled_frames"):
            ModelOptions(**options)


def test_the_first_classes_of_a_head(tmp_path):
    path = DATA / "videomamba_e48_d3_f4_r64.pth"
    values, video = golden("videomamba_e48_d3_f4_r64")
    with torch.no_grad():
        np.testing.assert_allclose(load_checkpoint(path, classes=4)(video), values["logits"][:, :4], atol=1e-4)
        np.testing.assert_allclose(load_checkpoint(path, classes=0)(video), values["features"], atol=1e-4)
    for classes in (11, -1):
        with pytest.raises(UsageError, match=f"has 10 classes, of which the first {classes} cannot be kept"):
            load_checkpoint(path, classes=classes)
    with pytest.raises(UsageError, match="has no classifier"):
        load_checkpoint(DATA / f"{PRETRAINED}.pth", classes=400)
