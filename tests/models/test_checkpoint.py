"""Published checkpoints load and agree with the published code; other files are refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import create, load_checkpoint

DATA = Path(__file__).parents[1] / "data"
GOLDENS = [
    ("videomamba_e48_d3_f4_r64", "videomamba"),
    ("videomambapro_shared_e48_d3_f4_r64", "videomambapro"),
    ("videomambapro_separate_e48_d3_f4_r64", "videomambapro"),
    ("uni_videomamba_e48_d3_f4_r64", "videomamba"),
    ("uni_videomambapro_e48_d3_f4_r64", "videomambapro"),
]
NAME, FAMILY = GOLDENS[1]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def golden_state(name=NAME):
    return torch.load(DATA / f"{name}.pth", weights_only=True)["model"]


def golden_video(name=NAME):
    clip = np.load(DATA / f"{name}.npz")["clip"]
    video = (torch.from_numpy(clip).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    return video.permute(0, 4, 1, 2, 3).contiguous()


@pytest.fixture
def save(tmp_path):
    def write(content, name="model.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize(("name", "family"), GOLDENS)
def test_golden(name, family):
    model = load_checkpoint(DATA / f"{name}.pth", family)
    golden = np.load(DATA / f"{name}.npz")
    assert not model.training
    with torch.no_grad():
        video = golden_video(name)
        np.testing.assert_allclose(model.forward_tokens(video), golden["tokens"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(model.forward_features(video), golden["features"], atol=1e-4, rtol=0)
        np.testing.assert_allclose(model(video), golden["logits"], atol=1e-4, rtol=0)


def test_sizes_are_inferred():
    options = load_checkpoint(DATA / f"{NAME}.pth").options
    assert (options.embed_dim, options.depth, options.d_state, options.expand, options.d_conv) == (48, 3, 16, 2, 4)
    assert (options.num_frames, options.image_size, options.patch_size, options.tubelet_size) == (4, 64, 16, 1)
    assert (options.num_classes, options.directions, options.scan_input) == (10, "shared", "projection")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"module": s, "epoch": 3},
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {"module": {f"backbone.{k}": v for k, v in s.items()}},
        lambda s: {f"module.backbone.{k}": v for k, v in s.items()},
    ],
)
def test_wrappers_and_prefixes(save, wrap):
    model = load_checkpoint(save(wrap(golden_state())))
    golden = np.load(DATA / f"{NAME}.npz")["logits"]
    np.testing.assert_allclose(model(golden_video()).detach(), golden, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 5e-2)])
def test_half_weights_become_float32(save, dtype, tolerance):
    model = load_checkpoint(save({"model": {k: v.to(dtype) for k, v in golden_state().items()}}))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    golden = np.load(DATA / f"{NAME}.npz")["logits"]
    np.testing.assert_allclose(model(golden_video()).detach(), golden, atol=tolerance, rtol=0)


def test_interpolates_frames_linearly():
    state = golden_state()
    model = load_checkpoint(DATA / f"{NAME}.pth", num_frames=8)
    time = state["temporal_pos_embedding"][0].numpy()
    at = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)  # sample positions with aligned borders, not aligned corners
    expected = np.stack([np.interp(at, np.arange(4), time[:, c]) for c in range(time.shape[1])], 1)
    np.testing.assert_allclose(model.temporal_pos_embedding[0].detach(), expected, atol=1e-6)
    assert model(torch.zeros(1, 3, 8, 64, 64)).shape == (1, 10)


def test_interpolates_resolution_bicubically():
    state = golden_state()
    model = load_checkpoint(DATA / f"{NAME}.pth", image_size=128)
    picture = state["pos_embed"][:, 1:].reshape(1, 4, 4, 48).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(picture, size=(8, 8), mode="bicubic", align_corners=False)
    interpolated = model.pos_embed[:, 1:].reshape(1, 8, 8, 48).permute(0, 3, 1, 2)
    torch.testing.assert_close(interpolated.detach(), expected)
    torch.testing.assert_close(model.pos_embed[:, :1].detach(), state["pos_embed"][:, :1])
    assert model(torch.zeros(1, 3, 4, 128, 128)).shape == (1, 10)


def test_image_checkpoint_is_inflated(save):
    state = golden_state()
    del state["temporal_pos_embedding"]
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].squeeze(2)
    path = save(state)
    per_frame = load_checkpoint(path, num_frames=4)
    torch.testing.assert_close(per_frame.patch_embed.proj.weight[:, :, 0].detach(), state["patch_embed.proj.weight"])
    assert per_frame.temporal_pos_embedding.abs().max() == 0
    per_pair = load_checkpoint(path, num_frames=4, tubelet_size=2)
    weight = per_pair.patch_embed.proj.weight.detach()
    torch.testing.assert_close(weight[:, :, 1], state["patch_embed.proj.weight"])
    assert weight[:, :, 0].abs().max() == 0
    assert per_pair.options.grid == (2, 4)
    assert load_checkpoint(path).options.num_frames == 8


def test_own_options_overrule_the_family(save):
    model = create("egomotion-nano", scan_order="spatiotemporal", depth=2)
    path = save({"model": model.state_dict(), "options": vars(model.options)})
    assert load_checkpoint(path, "videomamba").options == model.options


def drop(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: drop(s, "norm_f.weight"), ["lacks norm_f.weight (48,)"]),
        (lambda s: drop(s, "pos_embed"), ["lacks pos_embed"]),
        (lambda s: {**s, "extra.weight": torch.zeros(3)}, ["unknown extra.weight (3,)"]),
        (
            lambda s: {**s, "layers.1.mixer.D": torch.zeros(7)},
            ["layers.1.mixer.D (7,) instead of (96,)"],
        ),
        (
            lambda s: {**drop(s, "head.bias"), "fc.bias": torch.zeros(10)},
            ["lacks head.bias (10,)", "unknown fc.bias (10,)"],
        ),
        (lambda s: {**s, "pos_embed": torch.zeros(1, 19, 48)}, ["pos_embed (1, 19, 48)", "square grid"]),
        (lambda s: {**s, "head.bias": "ten"}, ["head.bias is str, not a tensor"]),
        (lambda s: {"epoch": 3}, ["holds no state dict"]),
        (lambda s: torch.zeros(3), ["holds no state dict"]),
    ],
)
def test_wrong_content_is_named(save, change, words):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(save(change(golden_state())))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_family_mismatch_is_named():
    path = DATA / f"{NAME}.pth"  # shared weights load as either family, but not as an unknown one
    with pytest.raises(UsageError, match="unknown family 'resnet'"):
        load_checkpoint(path, "resnet")


class Evil:
    def __reduce__(self):
        return print, ("this code must not run",)


def test_pickled_code_is_refused(save, capsys):
    with pytest.raises(CheckpointError, match="needs pickled code"):
        load_checkpoint(save({"model": golden_state(), "args": Evil()}))
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"PK\x03\x04 broken zip", b"\x80\x02K\x05."])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_truncated(tmp_path):
    path = tmp_path / "some.pth"
    path.write_bytes((DATA / f"{NAME}.pth").read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="is not a PyTorch checkpoint"):
        load_checkpoint(path)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("size", "words"), [({"image_size": 70}, "multiple of the patch"), ({"num_frames": 0}, "positive")]
)
def test_impossible_sizes(size, words):
    with pytest.raises(UsageError, match=words):
        load_checkpoint(DATA / f"{NAME}.pth", **size)
