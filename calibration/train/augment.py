"""Augment clips for training: the same change for all frames of a clip, so that its motion stays what it is."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from vmp_edge.preprocessing import Preprocessing

from ..decoding import Clip

_Random = np.random.Generator
_Video = NDArray[np.float32]  # one clip, (3, T, S, S), normalised: about 1 is one standard deviation


def augment(
    clip: Clip, frames: int, preprocessing: Preprocessing, rng: _Random, strength: float = 0.5
) -> NDArray[np.float32]:
    """Cut a video for a model out of a clip, augmented.

    It shows another place, size and time, and another speed. As in RandAugment (arXiv 1909.13719), two of `CHANGES` are
    drawn as well, and one number says how strong all of it is.

    Args:
        clip: uint8 (F, H, W, 3), with more frames and pixels than the model takes.
        frames: T, the model's frames.
        preprocessing: The model's preprocessing.
        rng: Source of all randomness.
        strength: 0 changes nothing, 1 is a lot.

    Returns:
        float32 (1, 3, T, S, S).
    """
    view = clip[choose_frames(len(clip), frames, strength, rng)]
    view = _crop(view, strength, rng)
    video = preprocessing.clip(np.ascontiguousarray(view))[0]
    if strength:
        for index in rng.choice(len(CHANGES), 2, replace=False):
            video = CHANGES[index](video, strength * rng.uniform(0.2, 1.0), rng)
    return np.asarray(video, np.float32)[None]


def choose_frames(available: int, frames: int, strength: float, rng: _Random) -> NDArray[np.intp]:
    """Choose frames: from another part of the clip, and with another length, which is another speed."""
    length = available * rng.uniform(1 - 0.5 * strength, 1.0)
    first = rng.uniform(0, available - length)
    within = rng.uniform(0, 1, frames) if strength else np.full(frames, 0.5)
    places = first + (np.arange(frames) + within) * length / frames
    return np.minimum(places.astype(np.intp), available - 1)


def _crop(clip: Clip, strength: float, rng: _Random) -> Clip:
    """Cut out a part of the frames, whose sides are drawn apart."""
    height, width = clip.shape[1:3]
    scale = rng.uniform(1 - 0.5 * strength, 1.0)
    wide, high = scale * np.exp(rng.uniform(-0.3, 0.3, 2) * strength)
    columns, rows = max(1, round(min(1.0, wide) * width)), max(1, round(min(1.0, high) * height))
    left, top = rng.integers(0, width - columns + 1), rng.integers(0, height - rows + 1)
    return clip[:, top : top + rows, left : left + columns]


def _brightness(video: _Video, strength: float, rng: _Random) -> _Video:
    return np.asarray(video + rng.choice((-1.2, 1.2)) * strength, np.float32)


def _contrast(video: _Video, strength: float, rng: _Random) -> _Video:
    mean = video.mean(dtype=np.float32)
    return np.asarray((video - mean) * np.exp(rng.choice((-0.9, 0.7)) * strength) + mean, np.float32)


def _saturation(video: _Video, strength: float, rng: _Random) -> _Video:
    """Make colours paler or stronger; at the full strength grey or twice as strong."""
    grey = video.mean(0, keepdims=True, dtype=np.float32)
    return np.asarray(grey + (video - grey) * (1 + rng.choice((-1.0, 1.0)) * strength), np.float32)


def _tint(video: _Video, strength: float, rng: _Random) -> _Video:
    gain, offset = np.exp(rng.normal(0, 0.3 * strength, (3, 1, 1, 1))), rng.normal(0, 0.4 * strength, (3, 1, 1, 1))
    return np.asarray(video * gain + offset, np.float32)


def _blur(video: _Video, strength: float, rng: _Random) -> _Video:
    """Make the picture less sharp, as if it was smaller or out of focus."""
    sigma = video.shape[-1] / 112 * 2.5 * strength
    return _each_plane(video, lambda plane: cv2.GaussianBlur(plane, (0, 0), max(sigma, 0.1)))


def _noise(video: _Video, strength: float, rng: _Random) -> _Video:
    return video + rng.normal(0, 0.5 * strength, video.shape).astype(np.float32)


def _rotate(video: _Video, strength: float, rng: _Random) -> _Video:
    size = video.shape[-1]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), rng.choice((-25, 25)) * strength, 1.0)
    flags, border = cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101
    return _each_plane(video, lambda plane: cv2.warpAffine(plane, matrix, (size, size), flags=flags, borderMode=border))


def _hide(video: _Video, strength: float, rng: _Random) -> _Video:
    """Hide a square, of at most half the picture's side, behind its mean colour."""
    size = video.shape[-1]
    side = round(0.5 * strength * size)
    left, top = rng.integers(0, size - side + 1, 2)
    video = video.copy()
    video[:, :, top : top + side, left : left + side] = video.mean((1, 2, 3), keepdims=True)
    return video


def _each_plane(video: _Video, change: Callable[[NDArray[np.float32]], object]) -> _Video:
    """Change each channel of each frame, (S, S)."""
    planes = video.reshape(-1, *video.shape[2:])
    return np.stack([np.asarray(change(plane), np.float32) for plane in planes]).reshape(video.shape)


# Light, contrast, colour, sharpness, noise, angle, a hidden square: functions from a video and a strength from 0 to 1.
CHANGES: tuple[Callable[[_Video, float, _Random], _Video], ...] = (
    _brightness,
    _contrast,
    _saturation,
    _tint,
    _blur,
    _noise,
    _rotate,
    _hide,
)
