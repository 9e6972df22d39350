"""Presets, options and the model's own arithmetic."""

import pytest
import torch

from vmp_edge.errors import UsageError
from vmp_edge.models import PRESETS, ModelOptions, create, preset
from vmp_edge.models.blocks import PatchEmbed
from vmp_edge.models.videomamba import VideoMamba, swap_order

SMALL = {"embed_dim": 32, "depth": 2, "image_size": 32, "num_frames": 4, "num_classes": 5}


@pytest.mark.parametrize("family", ["videomamba", "videomambapro"])
@pytest.mark.parametrize(("size", "width", "depth"), [("tiny", 192, 24), ("small", 384, 24), ("middle", 576, 32)])
def test_presets_have_the_published_sizes(family, size, width, depth):
    options = preset(f"{family}-{size}")
    assert (options.embed_dim, options.depth, options.patch_size, options.tubelet_size) == (width, depth, 16, 1)
    assert options.length == 1569
    pro = family == "videomambapro"
    assert options.directions == ("shared" if pro else "separate")
    assert options.initial_state == ("first_input" if pro else "zero")
    assert options.mask_backward is pro
    assert options.scan_input == ("projection" if pro else "conv")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_runs(name):
    model = create(name, depth=1, image_size=32, num_frames=4, num_classes=7)
    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(("frames", "size"), [(8, 224), (16, 384), (64, 224), (32, 240)])
def test_frames_and_sizes(frames, size):
    model = create("videomambapro-tiny", embed_dim=16, depth=1, num_frames=frames, image_size=size, num_classes=3)
    tokens = model.forward_tokens(torch.randn(1, 3, frames, size, size))
    assert tokens.shape == (1, 1 + frames * (size // 16) ** 2, 16)


@pytest.mark.parametrize("tubelet", [1, 2])
def test_patch_embedding_is_the_published_conv3d(tubelet):
    options = ModelOptions(**SMALL, tubelet_size=tubelet)
    embed = PatchEmbed(options)
    video = torch.randn(2, 3, 4, 32, 32)
    expected = embed.proj(video).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(embed(video), expected, atol=1e-5, rtol=0)


def test_swap_order_is_a_transpose_and_its_own_inverse():
    tokens = torch.arange(1 + 2 * 3.0).reshape(1, -1, 1)
    swapped = swap_order(tokens, 2)
    assert swapped.flatten().tolist() == [0, 1, 4, 2, 5, 3, 6]
    assert torch.equal(swap_order(swapped, 3), tokens)


def test_scan_orders_differ_only_in_order():
    """A temporal_first model applies its layers to swapped tokens, and swaps their results back."""
    torch.manual_seed(0)
    space = VideoMamba(ModelOptions(**SMALL)).eval()
    time = VideoMamba(ModelOptions(**SMALL, scan_order="temporal_first")).eval()
    both = VideoMamba(ModelOptions(**SMALL, scan_order="spatiotemporal")).eval()
    time.load_state_dict(space.state_dict())
    both.load_state_dict(space.state_dict())
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        tokens = space.embed(video)
        for layer in time.layers:
            tokens = swap_order(layer(swap_order(tokens, 4)), 4)
        torch.testing.assert_close(time.forward_tokens(video), time.norm_f(tokens))
        outputs = [m.forward_tokens(video) for m in (space, time, both)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4
    assert (outputs[0] - outputs[2]).abs().max() > 1e-4
    assert (outputs[1] - outputs[2]).abs().max() > 1e-4


def test_gradients_reach_every_parameter():
    model = create("videomamba-tiny", **SMALL).train()
    tokens = model.forward_tokens(torch.randn(2, 3, 4, 32, 32))
    model.head(tokens).square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet", {}, "unknown model 'resnet'"),
        ("videomamba-tiny", {"colour": 1}, "unknown model option colour"),
        ("videomamba-tiny", {"image_size": 225}, "not a multiple of the patch size"),
        ("videomamba-tiny", {"num_frames": 9, "tubelet_size": 2}, "not a multiple of the tubelet size"),
        ("videomamba-tiny", {"scan_order": "sideways"}, "scan_order is 'sideways'"),
        ("videomamba-tiny", {"depth": 0}, "depth is 0"),
        ("videomamba-tiny", {"mask_backward": "yes"}, "mask_backward is 'yes'"),
    ],
)
def test_bad_options(name, options, words):
    with pytest.raises(UsageError, match=words):
        create(name, **options)


def test_wrong_video_shape_is_named():
    with pytest.raises(ValueError, match=r"video is \(1, 3, 5, 32, 32\); this model takes \(B, 3, 4, 32, 32\)"):
        create("videomamba-tiny", **SMALL)(torch.zeros(1, 3, 5, 32, 32))
