"""Load labelled videos into memory, and make training batches from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import sample_evenly

from ..clipset import ClipSet, ClipSetError, Entry
from ..decoding import Clip, Progress, Skipped, describe_skipped, in_workers, read_clips

_MARGIN = 8 / 7  # side of the stored pictures, relative to the model's
_FINER = 3  # stored frames, relative to the model's


@dataclass(frozen=True)
class Shrink:
    """A job for `in_workers`: decode a video and scale it down for training.

    Attributes:
        frames: Number of frames to keep, spread evenly over the video.
        size: Side of the square pictures. Both sides are scaled to it, as `Preprocessing` does by default.
    """

    frames: int
    size: int

    def __call__(self, entry: Entry) -> Clip:
        """Return the video, uint8 (frames, size, size, 3) RGB."""
        clip = read_clips(entry.path, lambda count, fps: [sample_evenly(count, self.frames)])[0]
        scaled = [cv2.resize(frame, (self.size, self.size), interpolation=cv2.INTER_AREA) for frame in clip]
        return np.stack(scaled).astype(np.uint8)


@dataclass(frozen=True)
class Clips:
    """Labelled videos in memory.

    Attributes:
        pixels: uint8 (N, F, S, S, 3) RGB; F and S are larger than a model's frames and pictures.
        labels: Index of each video's label, int64 (N,).
        folds: Each video's fold, int64 (N,).
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]

    def outside(self, fold: int) -> Clips:
        """Return the videos of all other folds, on which a fold's model is trained."""
        chosen = self.folds != fold
        return Clips(self.pixels[chosen], self.labels[chosen], self.folds[chosen])


def load(clips: ClipSet, frames: int, size: int, progress: Progress, workers: int | None = None) -> Clips:
    """Decode all videos.

    Args:
        clips: Labelled videos with folds.
        frames: T, the model's frames.
        size: Side of the model's pictures.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Raises:
        ClipSetError: A video cannot be decoded.
    """
    side = round(size * _MARGIN)
    results = in_workers(Shrink(_FINER * frames, side), clips.entries, workers)
    pixels, skipped = np.empty((len(clips), _FINER * frames, side, side, 3), np.uint8), []
    for i, (_, result) in enumerate(progress(results, total=len(clips), desc="decoding", unit="clip")):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            pixels[i] = result
    if skipped:
        raise ClipSetError(f"{clips.name} has videos that cannot be used{describe_skipped(skipped)}")
    labels = np.array([clips.labels.index(str(entry.label)) for entry in clips.entries])
    return Clips(pixels, labels, np.array([entry.fold for entry in clips.entries]))


def training_batches(
    clips: Clips, batch: int, frames: int, preprocessing: Preprocessing, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Make the batches of one pass over the clips, in random order, each clip augmented anew.

    Yields:
        float32 (B, 3, T, S, S) and int64 (B,).
    """
    order = rng.permutation(len(clips.labels))
    for start in range(0, len(order) - batch + 1, batch):
        chosen = order[start : start + batch]
        videos = [augment(clips.pixels[i], frames, preprocessing, rng) for i in chosen]
        yield torch.from_numpy(np.concatenate(videos)), torch.from_numpy(clips.labels[chosen])


def augment(clip: Clip, frames: int, preprocessing: Preprocessing, rng: np.random.Generator) -> NDArray[np.float32]:
    """Augment a clip: other moments, another crop, mirrored, other colours and light.

    Args:
        clip: uint8 (F, S', S', 3).
        frames: T, the model's frames.
        preprocessing: The model's preprocessing.
        rng: Source of all randomness.

    Returns:
        float32 (1, 3, T, S, S).
    """
    count, side = clip.shape[:2]
    length = rng.uniform(0.75, 1.0) * count
    first = rng.uniform(0, count - length)
    moments = first + (np.arange(frames) + rng.uniform(0, 1, frames)) * length / frames
    width, height = (rng.uniform(0.75, 1.0, 2) * side).astype(int)
    left, top = rng.integers(0, side - width + 1), rng.integers(0, side - height + 1)
    view = clip[moments.astype(int), top : top + height, left : left + width]
    if rng.random() < 0.5:
        view = view[:, :, ::-1]
    video = preprocessing.clip(np.ascontiguousarray(view))
    if rng.random() < 0.2:
        video = np.repeat(video.mean(1, keepdims=True), 3, axis=1)
    gain, offset = np.exp(rng.normal(0, 0.2, (3, 1, 1, 1))), rng.normal(0, 0.2, (3, 1, 1, 1))
    return np.asarray(video * gain + offset, np.float32)
