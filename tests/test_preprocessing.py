"""Preprocessing is compared with a plain formula, and each mode puts the picture at the right place in the square."""

import cv2
import numpy as np
import pytest

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

RNG = np.random.default_rng(0)
MODES = ("stretch", "crop", "letterbox")


def no_normalising(mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255)):
    """Return options with which each normalised value equals its pixel."""
    return {"mean": mean, "std": std}


def prepare(preprocessing, frame, **options):
    """Return the prepared frame, float32 (3, S, S)."""
    out = np.full((3, preprocessing.image_size, preprocessing.image_size), np.nan, np.float32)
    preprocessing.frame(frame, out, **options)
    assert np.isfinite(out).all(), "every value is written"
    return out


def test_normalising_is_the_published_formula():
    frame = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    expected = (frame.astype(np.float64) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(prepare(Preprocessing(16), frame), expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(16, 16), (48, 64), (64, 48), (5, 7), (1, 300), (300, 1), (1, 1)])
def test_a_bgr_frame_is_the_rgb_frame_with_its_channels_reversed(mode, shape):
    frame = RNG.integers(0, 256, (*shape, 3), np.uint8)
    preprocessing = Preprocessing(16, mode)
    rgb = prepare(preprocessing, frame)
    np.testing.assert_array_equal(prepare(preprocessing, np.ascontiguousarray(frame[..., ::-1]), bgr=True), rgb)
    np.testing.assert_array_equal(prepare(preprocessing, frame[..., ::-1], bgr=True), rgb, "a view will do")


def test_shrinking_by_area_averages():
    frame = RNG.integers(0, 256, (32, 32, 3), np.uint8)
    blocks = frame.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    area = prepare(Preprocessing(8, **no_normalising()), frame)
    assert np.abs(area - blocks).max() <= 0.51  # rounded to whole pixels
    linear = prepare(Preprocessing(8, interpolation="linear", **no_normalising()), frame)
    assert np.abs(linear - blocks).max() > 5, "linear ignores some pixels"


def test_growing_is_bilinear_in_both_modes():
    frame = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    expected = cv2.resize(frame, (16, 16), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    for interpolation in ("area", "linear"):
        result = prepare(Preprocessing(16, interpolation=interpolation, **no_normalising()), frame)
        np.testing.assert_allclose(result, expected, atol=1e-3)


def ramps(height, width):
    """Return a frame in which each pixel's red is its column, and its green is its row."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0], frame[..., 1] = np.arange(width), np.arange(height)[:, None]
    return frame


def test_crop_keeps_the_centre():
    red, green, _ = prepare(Preprocessing(16, "crop", **no_normalising()), ramps(16, 48))
    np.testing.assert_allclose(red[0], np.arange(16, 32), atol=1e-3)
    np.testing.assert_allclose(green[:, 0], np.arange(16), atol=1e-3)
    red, green, _ = prepare(Preprocessing(16, "crop", **no_normalising()), ramps(48, 16))
    np.testing.assert_allclose(green[:, 0], np.arange(16, 32), atol=1e-3)


def test_letterbox_keeps_the_whole_picture_and_fills_with_the_mean():
    white = np.full((16, 32, 3), 255, np.uint8)
    result = prepare(Preprocessing(16, "letterbox"), white)
    picture = result[:, 4:12]
    assert (picture > 1.5).all()
    result[:, 4:12] = 0
    assert (result == 0).all()


def test_stretch_uses_the_whole_picture():
    red, _, _ = prepare(Preprocessing(16, "stretch", **no_normalising()), ramps(16, 64))
    np.testing.assert_allclose(red[0], np.arange(16) * 4 + 1.5, atol=0.51)


def test_a_clip_is_prepared_like_its_frames():
    clip = RNG.integers(0, 256, (3, 20, 30, 3), np.uint8)
    preprocessing = Preprocessing(16, "crop")
    video = preprocessing.clip(clip)
    assert video.shape == (1, 3, 3, 16, 16) and video.dtype == np.float32
    assert video.transpose(0, 2, 1, 3, 4).flags.c_contiguous
    for index, frame in enumerate(clip):
        np.testing.assert_array_equal(video[0, :, index], prepare(preprocessing, frame))
    out = np.empty_like(video)
    assert preprocessing.clip(clip, out) is out
    np.testing.assert_array_equal(out, video)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[[0, 0, 0]]],
        None,
    ],
)
def test_a_frame_of_another_shape_or_dtype_is_refused(frame):
    with pytest.raises(UsageError, match="frame"):
        prepare(Preprocessing(16), frame)


@pytest.mark.parametrize("clip", [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8), "clip"])
def test_a_clip_of_another_shape_or_dtype_is_refused(clip):
    with pytest.raises(UsageError, match="clip"):
        Preprocessing(16).clip(clip)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"image_size": 16.0},
        {"image_size": True},
        {"resize": "squeeze"},
        {"interpolation": "cubic"},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, "0.5")},
        {"mean": 0.5},
        {"std": (1, 1, 0)},
        {"std": (1, 1, float("nan"))},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Preprocessing(**{"image_size": 16, **options})


def test_the_manifest_entry_gives_the_same_preprocessing():
    preprocessing = Preprocessing(16, "letterbox", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "linear")
    assert Preprocessing.from_manifest(preprocessing.to_manifest(), 16) == preprocessing
    with pytest.raises(UsageError, match="expected the keys"):
        Preprocessing.from_manifest({**preprocessing.to_manifest(), "colour": "bgr"}, 16)
