"""Make sure that the size and length of videos do not give away their labels.

If each video was cut to the action in it, the cut itself tells the class: a hug is narrow, a push is wide. This module
has two remedies. It cuts every video once more, to one window of pixels and seconds; and it measures, on the same
folds, what can be recognised from size and length alone.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vmp_edge.errors import VmpError
from vmp_edge.files import whole
from vmp_edge.video.names import borrowed_name

from ..clipset import ClipSet, ClipSetError, Entry, need_scikit_learn
from ..decoding import Clip, Progress, Skipped, in_workers, read_clips


@dataclass(frozen=True)
class Geometry:
    """Size and length of a video.

    Attributes:
        width: Pixels.
        height: Pixels.
        frames: Number of frames.
        fps: Frames per second.
    """

    width: int
    height: int
    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        """Length of the video in seconds."""
        return self.frames / self.fps


@dataclass(frozen=True)
class Cut:
    """A job for `in_workers`: cut the middle out of a video and write it without loss (FFV1).

    Attributes:
        width: Width of the window in pixels.
        height: Height of the window in pixels.
        seconds: Length of the window.
        targets: File to write for each video.
    """

    width: int
    height: int
    seconds: float
    targets: dict[Path, Path]

    def __call__(self, entry: Entry) -> Path:
        """Write the cut video and return its path; a file that exists already is kept."""
        path = self.targets[entry.path]
        if path.exists():
            return path
        rates: list[float] = []

        def middle(count: int, fps: float) -> list[list[int]]:
            rates.append(fps)
            length = min(count, max(1, int(self.seconds * fps + 1e-6)))
            start = (count - length) // 2
            return [list(range(start, start + length))]

        clip = read_clips(entry.path, middle)[0]
        top, left = (clip.shape[1] - self.height) // 2, (clip.shape[2] - self.width) // 2
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lossless(clip[:, top : top + self.height, left : left + self.width], rates[-1], path)
        return path


def write_lossless(clip: Clip, fps: float, path: Path) -> None:
    """Write a clip, uint8 (T, H, W, 3) RGB, as FFV1 in AVI; the file appears only when it is complete.

    Raises:
        VmpError: OpenCV cannot write the file.
    """
    with whole(path) as place:
        with borrowed_name(place) as name:
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"FFV1"), fps, clip.shape[2:0:-1])
        if not writer.isOpened():
            raise VmpError(f"{path} cannot be written: this OpenCV has no FFV1 encoder, or the folder is not writable")
        for frame in clip:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()


def bring_to_one(
    clips: ClipSet, geometries: list[Geometry], folder: Path, progress: Progress, workers: int | None = None
) -> tuple[ClipSet, Cut]:
    """Cut every video to a middle window that fits into all of them: the least width, height and length of the set.

    Args:
        clips: Labelled videos.
        geometries: Size and length of each video.
        folder: Gets the cut videos, in a subfolder for their size and length with a subfolder for each label.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Returns:
        The cut videos with their labels, groups and folds, and the cut's window.

    Raises:
        ClipSetError: A video that was decoded before cannot be decoded again.
    """
    width, height = (min(sides) // 2 * 2 for sides in zip(*((g.width, g.height) for g in geometries), strict=True))
    seconds = min(g.seconds for g in geometries)
    folder = folder / f"{width}x{height}-{seconds:.3f}s"
    cut = Cut(width, height, seconds, _targets(clips, folder))
    entries = []
    for entry, result in progress(in_workers(cut, clips.entries, workers), total=len(clips), desc="cut", unit="clip"):
        if isinstance(result, Skipped):
            raise ClipSetError(f"{result.path} was decoded once and cannot be again: {result.reason}")
        entries.append(dataclasses.replace(entry, path=result))
    return dataclasses.replace(clips, entries=tuple(entries)), cut


def _targets(clips: ClipSet, folder: Path) -> dict[Path, Path]:
    """Choose a file for each video; videos of one label with the same name in different folders get numbers."""
    targets: dict[Path, Path] = {}
    uses: Counter[Path] = Counter()
    for entry in clips.entries:
        path = folder / str(entry.label) / entry.path.stem
        uses[path] += 1
        targets[entry.path] = path.with_name(f"{path.name}{f'-{uses[path]}' if uses[path] > 1 else ''}.avi")
    return targets


def control(clips: ClipSet, geometries: list[Geometry], seed: int = 0) -> dict[int, float]:
    """Measure what size and length alone recognise, by a random forest.

    Args:
        clips: Labelled videos with folds.
        geometries: Size and length of each video.
        seed: The forest's seed.

    Returns:
        Top-1 of each fold, by a forest that was fitted to the other folds.

    Raises:
        MissingDependencyError: The extra ``train`` is not installed.
    """
    need_scikit_learn()
    from sklearn.ensemble import RandomForestClassifier

    features = np.array([[g.width, g.height, g.width / g.height, g.frames, g.seconds] for g in geometries])
    labels = np.array([str(entry.label) for entry in clips.entries])
    folds = np.array([entry.fold for entry in clips.entries])
    accuracy: dict[int, float] = {}
    for fold in clips.folds:
        forest: Any = RandomForestClassifier(200, random_state=seed)
        forest.fit(features[folds != fold], labels[folds != fold])
        accuracy[fold] = float(np.mean(forest.predict(features[folds == fold]) == labels[folds == fold]))
    return accuracy
