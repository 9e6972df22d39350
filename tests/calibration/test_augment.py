"""Test how clips are augmented, mixed, and divided among processes."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vmp_edge.calibration.train.augment import CHANGES, augment, choose_frames
from vmp_edge.calibration.train.batches import batches, steps
from vmp_edge.calibration.train.mirror import mirrored
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
    return augment(clip, 4, PREPROCESSING, np.random.default_rng(seed), **how)


def test_the_same_seed_gives_the_same_video(clip):
    first, again, other = (varied(clip, seed) for seed in (1, 1, 2))
    assert first.shape == (1, 3, 4, 28, 28)
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_no_strength_takes_the_middle_frames_whole(clip):
    assert np.array_equal(varied(clip, 3, strength=0), PREPROCESSING.clip(clip[[1, 4, 7, 10]]))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["wave", "clap"], [0, 1]),
        (["swipe_left", "swipe_right", "wave"], [1, 0, 2]),
        (["swipeLeft", "SwipeRight"], [1, 0]),
        (["swipeleft", "swiperight"], [1, 0]),
        (["turn left", "other"], [None, 1]),
        (["left hand up", "right-hand-up", "left hand down"], [1, 0, None]),
        (["bright", "leftovers", "roll"], [0, 1, 2]),
        (["hand_l", "hand_r", "full"], [1, 0, 2]),
        (["circle clockwise", "circle anti-clockwise"], [1, 0]),
        (["counterclockwise", "clockwise"], [1, 0]),
        (["nach links", "nach rechts"], [1, 0]),
        (["left to right", "right to left"], [1, 0]),
        (["from left to right"], [None]),
    ],
)
def test_classes_that_tell_sides_change_places_in_the_mirror(labels, expected):
    assert mirrored(labels) == expected


def test_mirrored_clips_get_the_label_of_the_other_side():
    """Each clip is dark on its left half; classes with a number of their own tell what was mirrored."""
    clips = Clips(np.repeat([0, 1, 2, 3], 8))
    half = np.zeros((4, 8, 8, 3), np.uint8)
    half[:, :, 4:] = 255
    clips.window = lambda index, rng: half
    names = ["look left", "look right", "nod", "tilt left"]
    recipe = ClipsRecipe(batch=8, augmentation=0.0)
    seen = {}
    for video, labels in batches(clips, names, recipe, np.random.default_rng(0), Part()):
        for one, label in zip(video, labels, strict=True):
            mirrored_clip = bool(one[..., 0].mean() > one[..., -1].mean())
            seen.setdefault((int(label), mirrored_clip), 0)
            seen[int(label), mirrored_clip] += 1
    assert sum(seen.get((0, flag), 0) + seen.get((1, flag), 0) for flag in (False, True)) == 16
    assert {(0, True), (1, True), (2, True), (2, False)} <= seen.keys()
    assert (3, True) not in seen
    plain = batches(
        clips, names, ClipsRecipe(batch=8, augmentation=0.0, mirror=False), np.random.default_rng(0), Part()
    )
    assert all(bool((video[..., 0] < video[..., -1]).all()) for video, _ in plain)


def test_time_keeps_its_order_and_speed_varies():
    numbered = np.arange(48, dtype=np.uint8)[:, None, None, None].repeat(28, 1).repeat(28, 2).repeat(3, 3)
    plain = Preprocessing(28, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    lengths = []
    for seed in range(60):
        moments = choose_frames(48, 8, 1.0, np.random.default_rng(seed))
        assert np.all(np.diff(moments) >= 0)
        assert 0 <= moments[0] <= moments[-1] < 48
        lengths.append(moments[-1] - moments[0])
        video = augment(numbered, 8, plain, np.random.default_rng(seed), 1e-9)
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
        return list(batches(clips, "abc", recipe, np.random.default_rng(4), part))

    whole, halves = made(Part()), [made(Part(index, 2)) for index in range(2)]
    assert len(whole) == steps(10, 4) == 3
    for batch, *parts in zip(whole, *halves, strict=True):
        for tensor, *pieces in zip(batch, *parts, strict=True):
            assert torch.equal(tensor, torch.cat(pieces))


def test_every_clip_is_in_a_pass_and_the_last_batch_is_full():
    for count in (3, 8, 10):
        clips = Clips(np.arange(count))
        made = list(
            batches(clips, [f"{i}" for i in range(count)], ClipsRecipe(batch=8), np.random.default_rng(0), Part())
        )
        labels = torch.cat([labels for _, labels in made])
        assert len(labels) == 8 * len(made)
        assert set(labels.tolist()) == set(range(count))


def test_mixing_needs_pairs_in_each_process():
    with pytest.raises(UsageError, match="it must be even"):
        ClipsRecipe(batch=5, mixup=0.2)
    with pytest.raises(UsageError, match="pairs"):
        next(
            batches(
                Clips(np.arange(6)), "abcdef", ClipsRecipe(batch=6, cutmix=1.0), np.random.default_rng(0), Part(0, 2)
            )
        )


def test_recipes_for_few_clips_see_them_more_often():
    few, many = recipe_for(5), recipe_for(50)
    assert few.epochs > many.epochs
    assert few.layer_decay == 1
    deep = recipe_for(10, depth=24)
    assert (deep.layer_decay, deep.drop_path) == (0.8, 0.1)
    assert recipe_for(10, depth=24, is_trained=False).layer_decay == 1
