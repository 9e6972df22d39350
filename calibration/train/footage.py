"""Decoded clips, finer in time and space than a model sees them, and the windows that are cut out of them."""

from __future__ import annotations

import dataclasses
import platform
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.formatting import size as size_text
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import sample_evenly

from ..clipset import ClipSet, ClipSetError, Entry
from ..decoding import Clip, Progress, Skipped, describe_skipped, in_workers, read_clips
from . import parallel

_MARGIN = 8 / 7  # side of the stored pictures, relative to the model's
_FINER = 3  # stored frames, relative to the model's
_MOST_FRAMES = 600  # stored of a clip; longer clips are stored more coarsely
_SHORTEST, _LONGEST = 0.9, 3.0  # parts of a clip to train on, relative to the span
_ONE_PIECE = 1.25  # relative to the span: clips up to this length may be seen whole


@dataclass(frozen=True)
class Shrink:
    """A job for `in_workers`: decode a clip and scale it down for training.

    Attributes:
        frames: T, the frames of a window.
        span: Seconds of a window.
        preprocessing: That of the model, but for larger pictures.
    """

    frames: int
    span: float
    preprocessing: Preprocessing

    def __call__(self, entry: Entry) -> Clip:
        """Return the clip, uint8 (F, S', S', 3) RGB."""
        return read_clips(entry.path, self._choose, by_time=True, picture=partial(_square, self.preprocessing))[0]

    def _choose(self, count: int, fps: float) -> list[list[int]]:
        wanted = round(count / fps / self.span * self.frames * _FINER)
        return [sample_evenly(count, max(self.frames, min(wanted, _MOST_FRAMES, count)))]


def _square(preprocessing: Preprocessing, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a frame as the square that a model with larger pictures would see, uint8 (S', S', 3)."""
    picture, side = preprocessing.picture(frame), preprocessing.image_size
    height, width = picture.shape[:2]
    if (height, width) == (side, side):
        return picture
    top, left = (side - height) // 2, (side - width) // 2
    fill = [round(255 * value) for value in preprocessing.mean]
    edges = (top, side - height - top, left, side - width - left)
    return np.asarray(cv2.copyMakeBorder(picture, *edges, cv2.BORDER_CONSTANT, value=fill), np.uint8)


@dataclass(frozen=True)
class Footage:
    """Decoded clips. Their pictures lie in a file that vanishes with the process, so that memory need not hold them.

    Attributes:
        clips: uint8 (F, S', S', 3) RGB each; F depends on the clip's length.
        seconds: Length of each clip, (N,).
        labels: Index of each clip's label, int64 (N,).
        folds: Fold of each clip, int64 (N,).
        frames: T.
        span: Seconds of a window.
        preprocessing: The model's.
    """

    clips: tuple[Clip, ...]
    seconds: NDArray[np.float64]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    frames: int
    span: float
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.clips)

    def fold(self, number: int) -> Footage:
        """Return the clips that a fold holds out."""
        return self._chosen(self.folds == number)

    def outside(self, number: int | None) -> Footage:
        """Return the clips of all other folds, on which a fold's model is trained; None returns all."""
        return self if number is None else self._chosen(self.folds != number)

    def _chosen(self, chosen: NDArray[np.bool_]) -> Footage:
        clips = tuple(self.clips[i] for i in np.flatnonzero(chosen))
        rest = (self.seconds[chosen], self.labels[chosen], self.folds[chosen])
        return Footage(clips, *rest, self.frames, self.span, self.preprocessing)

    def window(self, index: int, rng: np.random.Generator) -> Clip:
        """Return a part of a clip, of any length between a window's and the whole clip's, uint8 (F, S', S', 3)."""
        clip, ratio = self.clips[index], float(self.seconds[index]) / self.span  # length in windows
        longest = min(max(ratio, _ONE_PIECE), _LONGEST)
        length = min(1.0, np.exp(rng.uniform(np.log(_SHORTEST), np.log(longest))) / ratio)
        first = rng.uniform(0, 1 - length)
        begin, count = int(first * len(clip)), max(1, round(length * len(clip)))
        return clip[begin : begin + count]

    def views(self, index: int, mirror: bool) -> NDArray[np.float32]:
        """Return a clip as a model may see it, float32 (2, 3, T, S, S): its middle window, and the whole clip.

        Args:
            index: The clip.
            mirror: Whether the whole clip is mirrored.
        """
        clip = self.clips[index]
        places = (np.arange(self.frames) + 0.5) * len(clip) / self.frames
        whole = clip[np.minimum(places.astype(int), len(clip) - 1)]
        whole = np.ascontiguousarray(whole[:, :, ::-1]) if mirror else whole
        return np.concatenate([self.middle(index), self.preprocessing.clip(whole)])

    def middle(self, index: int) -> NDArray[np.float32]:
        """Return the middle window of a clip as the model takes it, float32 (1, 3, T, S, S)."""
        clip = self.clips[index]
        length = min(1.0, self.span / float(self.seconds[index])) * len(clip)
        begin = (len(clip) - length) / 2
        places = begin + (np.arange(self.frames) + 0.5) * length / self.frames
        return self.preprocessing.clip(clip[np.minimum(places.astype(int), len(clip) - 1)])


def decode(
    clips: ClipSet,
    frames: int,
    span: float,
    preprocessing: Preprocessing,
    seconds: list[float],
    folder: Path,
    progress: Progress,
    workers: int | None = None,
) -> Footage:
    """Decode all clips.

    Args:
        clips: Labelled clips with folds.
        frames: T.
        span: Seconds of a window.
        preprocessing: The model's.
        seconds: Length of each clip.
        folder: Where the file of the pictures lies for as long as it is needed.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Raises:
        ClipSetError: A clip cannot be decoded.
        UsageError: The disk is full.
    """
    side = round(preprocessing.image_size * _MARGIN)
    finer = dataclasses.replace(preprocessing, image_size=side)
    # Several processes of one machine share the file that its first one writes.
    own, name = parallel.on_this_machine(), f".{platform.node()}.frames"
    place, shapes_place = folder / name, folder / f"{name}.npy"
    try:
        if own.index == 0:
            shapes = _decode_into(place, clips, Shrink(frames, span, finer), progress, workers)
            np.save(shapes_place, np.array(shapes, np.int64))
        parallel.wait()
        pixels, shapes = np.memmap(place, np.uint8, "r"), [tuple(shape) for shape in np.load(shapes_place).tolist()]
        parallel.wait()
    finally:
        if own.index == 0:  # what is mapped stays until the processes end
            place.unlink(missing_ok=True)
            shapes_place.unlink(missing_ok=True)
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = zip(np.split(pixels, ends[:-1]), shapes, strict=True)
    labels = np.array([clips.labels.index(str(entry.label)) for entry in clips.entries])
    folds = np.array([entry.fold for entry in clips.entries])
    decoded = tuple(part.reshape(shape) for part, shape in parts)
    return Footage(decoded, np.array(seconds), labels, folds, frames, span, preprocessing)


def _decode_into(
    place: Path, clips: ClipSet, job: Shrink, progress: Progress, workers: int | None
) -> list[tuple[int, ...]]:
    """Decode all clips into a file, one after the other, and return their shapes."""
    shapes: list[tuple[int, ...]] = []
    skipped: list[Skipped] = []
    with place.open("wb") as file, closing(in_workers(job, clips.entries, workers)) as results:
        for _, result in progress(results, total=len(clips), desc="decoding the clips", unit="clip"):
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            shapes.append(result.shape)
            try:
                file.write(np.ascontiguousarray(result).data)
            except OSError as error:
                raise UsageError(
                    f"{place.parent}: the decoded clips do not fit ({error.strerror}); one takes "
                    f"{size_text(result.nbytes)}: free some space, or give a smaller --image-size or a longer --span"
                ) from error
    if skipped:
        raise ClipSetError(f"{clips.name} has videos that cannot be used{describe_skipped(skipped)}")
    return shapes
