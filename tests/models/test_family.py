"""The family of a checkpoint is found out, and a contradiction is an error; models with one direction."""

import argparse
import shutil
from pathlib import Path

import pytest
import torch

from vmp_edge.compile.graph.inference import InferenceModel, fold_frames
from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import ModelOptions, VideoMamba, load_checkpoint
from vmp_edge.models.family import family_in

DATA = Path(__file__).parents[1] / "data"
SEPARATE = "videomamba_e48_d3_f4_r64.pth"
SHARED = "videomambapro_shared_e48_d3_f4_r64.pth"
FORWARD = "uni_videomamba_e48_d3_f4_r64.pth"
SMALL = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}


def family(options):
    return "videomambapro" if options.initial_state == "first_input" else "videomamba"


@pytest.mark.parametrize(
    ("source", "name", "expected", "reason"),
    [
        (SEPARATE, "best.pth", "videomamba", "because its directions have separate weights"),
        (SHARED, "best.pth", "videomambapro", "because its directions share their weights"),
        (FORWARD, "best.pth", "videomambapro", "because it has one direction"),
        (SEPARATE, "VideoMambaPro_k400.pth", "videomambapro", "because its name says so"),
        (FORWARD, "video-mamba.pth", "videomamba", "because its name says so"),
    ],
)
def test_the_family_is_found_out_and_said(tmp_path, capsys, source, name, expected, reason):
    shutil.copy(DATA / source, tmp_path / name)
    assert family(load_checkpoint(tmp_path / name).options) == expected
    assert f"{name} is taken for a {expected}, {reason}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("videomamba_t16_k400_f8_res224.pth", "videomamba"),
        ("VideoMamba-M", "videomamba"),
        ("video_mamba_pro_m16", "videomambapro"),
        ("VideoMambaProTiny", "videomambapro"),
        ("videomambapro_tiny", "videomambapro"),
        ("videomambaprotiny", "videomambapro"),
        ("videomamba_prompt.pth", "videomamba"),
        ("videomamba_progress", "videomamba"),
        ("videomambaprod.pth", "videomamba"),
        ("pretrain_videomamba_middle_patch16_224", "videomamba"),
        ("mamba_video.pth", None),
        (None, None),
    ],
)
def test_the_family_in_a_name(name, expected):
    assert family_in(name) == expected


def test_what_the_user_overrules_is_said(tmp_path, capsys):
    state = torch.load(DATA / SEPARATE, weights_only=True)["model"]
    path = tmp_path / "videomamba.pth"
    torch.save({"model": state}, path)
    assert load_checkpoint(path, "videomambapro").family.family == "videomambapro"
    assert "because --family says so, though its name says another" in capsys.readouterr().err
    torch.save({"model": state, "args": argparse.Namespace(model="videomamba_tiny")}, path)
    load_checkpoint(path, "videomambapro")
    assert "because --family says so, though its training calls the model 'videomamba_tiny'" in capsys.readouterr().err


def test_the_training_s_own_word_counts_more_than_the_weights(tmp_path, capsys):
    state = torch.load(DATA / SEPARATE, weights_only=True)["model"]
    path = tmp_path / "best.pth"
    torch.save({"model": state, "args": argparse.Namespace(model="videomambapro_tiny")}, path)
    assert family(load_checkpoint(path).options) == "videomambapro"
    assert "because its training calls the model 'videomambapro_tiny'" in capsys.readouterr().err
    assert family(load_checkpoint(path, "videomamba").options) == "videomamba"


def test_a_contradiction_is_an_error(tmp_path):
    state = torch.load(DATA / SEPARATE, weights_only=True)["model"]
    path = tmp_path / "videomamba.pth"
    torch.save({"model": state, "args": argparse.Namespace(model="videomambapro_tiny")}, path)
    with pytest.raises(CheckpointError, match="its name says videomamba, but its training calls the model"):
        load_checkpoint(path)
    shutil.copy(DATA / SHARED, tmp_path / "videomamba_k400.pth")
    with pytest.raises(CheckpointError, match="its directions share their weights, as only a videomambapro's do"):
        load_checkpoint(tmp_path / "videomamba_k400.pth")
    with pytest.raises(CheckpointError, match="its directions share their weights"):
        load_checkpoint(DATA / SHARED, "videomamba")
    with pytest.raises(UsageError, match="unknown family 'mamba'"):
        load_checkpoint(DATA / SHARED, "mamba")


def test_loading_a_model_with_one_direction_says_that_its_logits_do_not_depend_on_the_clip(capsys):
    model = load_checkpoint(DATA / FORWARD, "videomamba")
    assert "its logits do not depend on the clip" in capsys.readouterr().err
    with torch.no_grad():
        one, other = model(torch.randn(2, 3, 4, 64, 64))
    assert torch.equal(one, other)
    model = load_checkpoint(DATA / FORWARD, "videomamba", readout="mean")
    assert "do not depend" not in capsys.readouterr().err
    with torch.no_grad():
        one, other = model(torch.randn(2, 3, 4, 64, 64))
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("directions", ["separate", "shared", "forward"])
@pytest.mark.parametrize("readout", ["class_token", "mean"])
@pytest.mark.parametrize("scan_order", ["spatial_first", "temporal_first", "spatiotemporal"])
def test_the_form_for_inference_gives_the_same(directions, readout, scan_order):
    torch.manual_seed(0)
    options = ModelOptions(
        **SMALL, directions=directions, readout=readout, scan_order=scan_order, mask_backward=directions == "shared"
    )
    model = VideoMamba(options).eval()
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        features = model.forward_features(video)
        if readout == "mean":
            torch.testing.assert_close(features, model.forward_tokens(video)[:, 1:].mean(1))
        expected = torch.cat([model(video), features], dim=1)
        result = InferenceModel(model, features=True)(fold_frames(video, 1))
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_one_direction_has_no_masked_backward_scan():
    with pytest.raises(UsageError, match="has no backward direction"):
        ModelOptions(directions="forward", mask_backward=True)
