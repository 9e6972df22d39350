"""Test how clips are augmented, mixed, and divided among processes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vmp_edge.calibration.train.augment import CHANGES, Augmentation, augment, choose_frames
from vmp_edge.calibration.train.batches import batches, steps
from vmp_edge.calibration.train.mixing import mix
from vmp_edge.calibration.train.parallel import Part
from vmp_edge.calibration.train.recipe import ClipsRecipe, recipe_for
from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing

PREPROCESSING, TINY = Preprocessing(28), Preprocessing(8)


@pytest.fixture
def clip():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 40, 3), np.uint8)


def varied(clip, seed, **how):
    return augment(clip, 4, PREPROCESSING, np.random.default_rng(seed), Augmentation(**how))


def test_the_same_seed_gives_the_same_video(clip):
    first, again, other = (varied(clip, seed) for seed in (1, 1, 2))
    assert first.shape == (1, 3, 4, 28, 28)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_strength_takes_the_middle_frames_whole(clip):
    assert np.array_equal(varied(clip, 3, strength=0, mirror=False), PREPROCESSING.clip(clip[[1, 4, 7, 10]]))


def test_half_of_the_clips_are_mirrored_where_that_is_allowed(clip):
    plain = PREPROCESSING.clip(clip[[1, 4, 7, 10]])
    seen = [varied(clip, seed, strength=0) for seed in range(40)]
    mirrored = [np.array_equal(video, plain[..., ::-1]) for video in seen]
    assert all(flag or np.array_equal(video, plain) for flag, video in zip(mirrored, seen, strict=True))
    assert 10 < sum(mirrored) < 30
    assert all(np.array_equal(varied(clip, seed, strength=0, mirror=False), plain) for seed in range(40))


def test_time_keeps_its_order_and_speed_varies():
    numbered = np.arange(48, dtype=np.uint8)[:, None, None, None].repeat(28, 1).repeat(28, 2).repeat(3, 3)
    plain = Preprocessing(28, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    lengths = []
    for seed in range(60):
        moments = choose_frames(48, 8, 1.0, np.random.default_rng(seed))
        assert np.all(np.diff(moments) >= 0)
        assert 0 <= moments[0] <= moments[-1] < 48
        lengths.append(moments[-1] - moments[0])
        video = augment(numbered, 8, plain, np.random.default_rng(seed), Augmentation(1e-9))
        assert np.all(np.diff(video[0].mean((0, 2, 3))) > -0.01)
    assert min(lengths) < 24
    assert max(lengths) > 36


@pytest.mark.parametrize("change", [change for change in CHANGES if change.__name__ != "_noise"])
def test_all_frames_of_a_clip_are_changed_alike(change):
    """A still clip stays still, and hardly anything changes at a low strength."""
    rng = np.random.default_rng(5)
    frame = rng.normal(0, 1, (3, 1, 28, 28)).astype(np.float32)
    still = np.repeat(frame, 4, 1)
    for strength in (0.01, 1.0):
        for seed in range(4):
            changed = change(still, strength, np.random.default_rng(seed))
            assert changed.shape == still.shape
            assert changed.dtype == np.float32
            assert np.allclose(changed, changed[:, :1], atol=1e-6)
    assert np.array_equal(still, np.repeat(frame, 4, 1))
    weak = change(still, 1e-4, np.random.default_rng(0))
    assert np.abs(weak - still).max() < 0.02


def test_any_strength_in_range_works_on_any_clip(clip):
    for seed in range(50):
        for strength in (0.3, 1.0):
            assert np.isfinite(varied(clip, seed, strength=strength)).all()
            assert np.isfinite(varied(clip[:1, :9, :7], seed, strength=strength)).all()


@pytest.mark.parametrize("strength", [-0.1, 1.1, np.nan])
def test_strengths_out_of_range_are_refused(strength):
    with pytest.raises(UsageError, match="from 0 to 1"):
        Augmentation(strength)
    with pytest.raises(UsageError, match="augmentation is"):
        ClipsRecipe(augmentation=strength)


def test_pairs_are_averaged_with_their_labels():
    video = torch.arange(4.0)[:, None, None, None, None].expand(4, 3, 2, 8, 8)
    mixed, shares = mix(video, torch.tensor([0, 1, 2, 2]), 3, mixup=1.0, cutmix=0.0, seed=(1, 0))
    assert torch.allclose(shares.sum(1), torch.ones(4))
    share = float(shares[0, 0])
    assert 0 < share < 1
    assert torch.allclose(shares[1], torch.tensor([1 - share, share, 0.0]))
    assert torch.allclose(mixed[0], torch.full((3, 2, 8, 8), 1 - share))  # of clips with the values 0 and 1
    assert torch.equal(shares[2], torch.tensor([0.0, 0.0, 1.0]))
    assert float(mixed[2].mean() + mixed[3].mean()) == pytest.approx(5)
    again, _ = mix(video[2:], torch.tensor([2, 2]), 3, mixup=1.0, cutmix=0.0, seed=(1, 2))
    assert torch.equal(again, mixed[2:])


def test_pairs_exchange_a_box_with_its_share_of_the_label():
    video = torch.tensor([0.0, 1.0])[:, None, None, None, None].expand(2, 3, 2, 16, 16)
    for seed in range(20):
        mixed, shares = mix(video, torch.tensor([1, 0]), 2, mixup=0.0, cutmix=1.0, seed=(seed, 0))
        assert float(mixed[0].mean()) == pytest.approx(float(shares[0, 0]), abs=1e-6)
        assert torch.equal(mixed[0, :, 0], mixed[0, :, 1])
        assert torch.equal(mixed[0], 1 - mixed[1])


@dataclass
class Clips:
    labels: np.ndarray
    frames: int = 2
    preprocessing: Preprocessing = TINY

    def window(self, index, rng):
        return np.full((4, 8, 8, 3), 10 * index + rng.integers(0, 5), np.uint8)


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_processes_divide_the_same_batches(mixing):
    clips, recipe = Clips(np.arange(10) % 3), ClipsRecipe(batch=4, **mixing)

    def made(part):
        return list(batches(clips, 3, recipe, np.random.default_rng(4), part))

    whole, halves = made(Part()), [made(Part(index, 2)) for index in range(2)]
    assert len(whole) == steps(10, 4) == 3
    for batch, *parts in zip(whole, *halves, strict=True):
        for tensor, *pieces in zip(batch, *parts, strict=True):
            assert torch.equal(tensor, torch.cat(pieces))


def test_every_clip_is_in_a_pass_and_the_last_batch_is_full():
    for count in (3, 8, 10):
        clips = Clips(np.arange(count))
        made = list(batches(clips, count, ClipsRecipe(batch=8), np.random.default_rng(0), Part()))
        labels = torch.cat([labels for _, labels in made])
        assert len(labels) == 8 * len(made)
        assert set(labels.tolist()) == set(range(count))


def test_mixing_needs_pairs_in_each_process():
    with pytest.raises(UsageError, match="it must be even"):
        ClipsRecipe(batch=5, mixup=0.2)
    with pytest.raises(UsageError, match="pairs"):
        next(batches(Clips(np.arange(6)), 6, ClipsRecipe(batch=6, cutmix=1.0), np.random.default_rng(0), Part(0, 2)))


def test_recipes_for_few_clips_see_them_more_often():
    few, many = recipe_for(5), recipe_for(50)
    assert few.epochs > many.epochs
    assert few.layer_decay == 1
    deep = recipe_for(10, depth=24)
    assert (deep.layer_decay, deep.drop_path) == (0.8, 0.1)
    assert recipe_for(10, depth=24, is_trained=False).layer_decay == 1
