"""Size and length of videos, which must not tell their labels.

Where videos were cut out around what happens in them, the cut itself gives the class away: a hug is narrow, a push is
wide. Two things are done about it: every video is cut once more, to one window of pixels and seconds, and what size
and length alone would recognise is measured with the same folds.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vmp_edge.errors import VmpError
from vmp_edge.files import whole

from ..clipset import ClipSet, ClipSetError, Entry, need_scikit_learn
from ..decoding import Clip, Progress, Skipped, UnusableError, describe_skipped, in_workers, open_video, read_clips


@dataclass(frozen=True)
class Geometry:
    """Size and length of a video.

    Attributes:
        width: pixels.
        height: pixels.
        frames: how many.
        fps: frames per second.
    """

    width: int
    height: int
    frames: int
    fps: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.fps


def inspect(entry: Entry) -> Geometry:
    """A job for `in_workers`: decode a video to its end and say what it is.

    Raises:
        UnusableError: it cannot be decoded.
    """
    shape, count = (0, 0), 0
    with closing(open_video(entry.path)) as source:
        rate = source.fps or 0.0
        while (frame := source.read()) is not None:
            shape, count = frame.image.shape[:2], count + 1
    if rate <= 0:
        raise UnusableError("does not say its frame rate")
    return Geometry(shape[1], shape[0], count, rate)


def measure(
    clips: ClipSet, progress: Progress, workers: int | None = None
) -> tuple[ClipSet, list[Geometry], list[Skipped]]:
    """Size and length of every video.

    Returns:
        The videos that can be decoded, their geometries, and the videos that cannot.

    Raises:
        ClipSetError: none can be decoded.
    """
    kept: list[Entry] = []
    found: list[Geometry] = []
    skipped: list[Skipped] = []
    results = in_workers(inspect, clips.entries, workers)
    for entry, result in progress(results, total=len(clips), desc="sizes", unit="clip"):
        if isinstance(result, Skipped):
            skipped.append(result)
            continue
        kept.append(entry)
        found.append(result)
    if not kept:
        raise ClipSetError(f"{clips.name} has no videos that can be used{describe_skipped(skipped)}")
    return dataclasses.replace(clips, entries=tuple(kept)), found, skipped


@dataclass(frozen=True)
class Cut:
    """A job for `in_workers`: cut the middle out of a video and write it without loss (FFV1).

    Attributes:
        width: of the window, in pixels.
        height: of the window, in pixels.
        seconds: of the window.
        targets: where each video's goes.
    """

    width: int
    height: int
    seconds: float
    targets: dict[Path, Path]

    def __call__(self, entry: Entry) -> Path:
        """The file that was written; one that is there already is taken as it is."""
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
    """Write a clip, uint8 (T, H, W, 3) RGB, as FFV1 in AVI, beside its place and then moved there.

    Raises:
        VmpError: OpenCV cannot write it.
    """
    with whole(path) as place:
        writer = cv2.VideoWriter(str(place), cv2.VideoWriter.fourcc(*"FFV1"), fps, clip.shape[2:0:-1])
        if not writer.isOpened():
            raise VmpError(f"{path} cannot be written: this OpenCV has no FFV1 encoder, or the folder is not writable")
        for frame in clip:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()


def bring_to_one(
    clips: ClipSet, geometries: list[Geometry], folder: Path, progress: Progress, workers: int | None = None
) -> tuple[ClipSet, Cut]:
    """Cut every video to the middle window that all of them have: the least width, height and length of the set.

    Args:
        clips: labelled videos.
        geometries: theirs.
        folder: where the cut ones go, in a folder of their size and length, and of their label.
        progress: makes a progress bar.
        workers: see `in_workers`.

    Returns:
        The cut videos with their labels, groups and folds, and what was cut.
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
    """A name for each video, also where two of a label have the same in different folders."""
    targets: dict[Path, Path] = {}
    taken: Counter[Path] = Counter()
    for entry in clips.entries:
        path = folder / str(entry.label) / entry.path.stem
        taken[path] += 1
        targets[entry.path] = path.with_name(f"{path.name}{f'-{taken[path]}' if taken[path] > 1 else ''}.avi")
    return targets


def control(clips: ClipSet, geometries: list[Geometry], seed: int = 0) -> dict[int, float]:
    """What size and length alone recognise: top-1 of every fold, by a random forest on the other folds.

    Args:
        clips: labelled videos with folds.
        geometries: theirs.
        seed: of the forest.

    Raises:
        MissingDependencyError: the extra ``train`` is not installed.
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
