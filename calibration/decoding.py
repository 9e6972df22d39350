"""Decode video files to clips, in worker processes. Videos that cannot be used are named and left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vmp_edge.bundle.manifest import Manifest
from vmp_edge.errors import VmpError
from vmp_edge.machine import usable_cpu_count
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.sources.clips import Clip, UnusableError, open_video, read_clips
from vmp_edge.video import use_threads

from .clipset import ClipSet, ClipSetError, Entry
from .sampling import MODES, Sampling, crops
from .workers import leave_signals_to_parent, spawning

__all__ = [
    "MODES",
    "Clip",
    "Decoded",
    "Input",
    "Prepare",
    "Progress",
    "Sampling",
    "Skipped",
    "UnusableError",
    "Video",
    "Videos",
    "describe_skipped",
    "in_workers",
    "load_videos",
    "open_video",
    "read_clips",
    "start_worker",
]

Video = NDArray[np.float32]
Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[..., Any]  # makes a progress bar, like `tqdm.tqdm`

_MOST_NAMED = 3  # unusable files that an error names before it says "and N more"


@dataclass(frozen=True)
class Input:
    """The clips that a model takes.

    Attributes:
        frames: T.
        preprocessing: How a frame is resized and normalised.
        frame_rate: Frames per second of a stream's window, or None if the model does not say.
    """

    frames: int
    preprocessing: Preprocessing
    frame_rate: float | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Input:
        """Return the clips that a bundle takes."""
        return cls(manifest.frames, manifest.preprocessing, manifest.window_rate)


@dataclass(frozen=True)
class Skipped:
    """A video that cannot be used, and why."""

    path: Path
    reason: str


class Decoded(list[Item]):
    """What was decoded of a video: a list, and what was wrong with the video.

    Attributes:
        damage: What was wrong, as a phrase for messages. None if nothing was.
        windows: For each input what a stream sees of the video, or why it sees nothing. Empty if not asked for.
    """

    damage: str | None = None
    windows: tuple[Video | str, ...] = ()


@dataclass(frozen=True)
class Prepare:
    """A job for `in_workers`: decode a video's clips and prepare them for models.

    Attributes:
        inputs: The clips that each of the models takes.
        sampling: Which frames to take.
        stream: Whether to prepare also what a stream sees of a video: as many windows as `sampling` has clips.
    """

    inputs: tuple[Input, ...]
    sampling: Sampling
    stream: bool = False

    def __call__(self, entry: Entry) -> Decoded[Video]:
        """Return the clips of the video for each input, float32 (clips * crops, 3, T, S, S)."""
        prepared = Decoded[Video]()
        for model_input in self.inputs:
            video, damage = _prepare(entry.path, model_input, self.sampling)
            prepared.append(video)
            prepared.damage = prepared.damage or damage
        if self.stream:
            dense = Sampling("dense", self.sampling.clips)
            prepared.windows = tuple(_prepare_if_usable(entry.path, model_input, dense) for model_input in self.inputs)
        return prepared


def _prepare(path: Path, model_input: Input, sampling: Sampling) -> tuple[Video, str | None]:
    """Return the prepared clips of a video, and what was wrong with it."""
    frames, rate = model_input.frames, model_input.frame_rate
    clips = read_clips(path, lambda count, fps: sampling.indices(count, fps, frames, rate), sampling.by_time(rate))
    views = [view for clip in clips for view in (crops(clip, sampling.crops) if sampling.crops > 1 else [clip])]
    return np.concatenate([model_input.preprocessing.clip(view) for view in views]), clips.damage


def _prepare_if_usable(path: Path, model_input: Input, sampling: Sampling) -> Video | str:
    try:
        return _prepare(path, model_input, sampling)[0]
    except UnusableError as error:
        return str(error)


def in_workers(
    job: Callable[[Entry], Result], entries: Sequence[Entry], workers: int | None = None
) -> Generator[tuple[Entry, Result | Skipped], None, None]:
    """Do a job on every video, in worker processes that work a few videos ahead of the caller.

    Args:
        job: Can be pickled. If it raises `UnusableError`, the video is skipped.
        entries: The videos.
        workers: Number of processes; None takes one for each CPU that this process may use, 0 works in this process.

    Yields:
        Each video, in order, with its result or with the reason why it was skipped. A video that kills the process that
        decodes it is skipped, too.

    Raises:
        VmpError: Worker processes cannot be started.
    """
    if workers == 0:
        yield from ((entry, _attempt(job, entry)) for entry in entries)
        return
    count = min(workers or usable_cpu_count(), max(len(entries), 1))
    waiting, pending = deque(entries), deque[tuple[Entry, Future[Any]]]()
    pool = _pool(count)
    try:
        while waiting or pending:
            while waiting and len(pending) < 2 * count:
                try:
                    pending.append((waiting[0], pool.submit(_attempt, job, waiting[0])))
                except BrokenProcessPool:
                    break  # the result of a pending video will raise the same error
                waiting.popleft()
            entry, future = pending.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:  # this video killed its process, or another pending video did
                result = _alone(job, entry)
                waiting.extendleft(reversed([submitted for submitted, _ in pending]))
                pending.clear()
                pool.shutdown()
                pool = _pool(count)
            yield entry, result
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(job: Callable[[Entry], Result], entry: Entry) -> Result | Skipped:
    try:
        return job(entry)
    except UnusableError as error:
        return Skipped(entry.path, str(error))


def _alone(job: Callable[[Entry], Result], entry: Entry) -> Result | Skipped:
    with _pool(1) as pool:
        try:
            pool.submit(int).result()
        except BrokenProcessPool as error:
            raise VmpError(
                "worker processes die as they start: give workers=0 to decode in this process, or, in a script, put "
                "the call under `if __name__ == '__main__':`, because worker processes import the script"
            ) from error
        try:
            return pool.submit(_attempt, job, entry).result()
        except BrokenProcessPool:
            return Skipped(entry.path, "cannot be decoded: it kills the process that tries")


def _pool(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, spawning(), initializer=start_worker)


def start_worker() -> None:
    """Set a worker process up: few threads decode, because each core has a process; the parent handles signals."""
    cv2.setNumThreads(1)
    use_threads(2)
    leave_signals_to_parent()


@dataclass(frozen=True)
class Videos:
    """Clips in memory.

    Attributes:
        videos: The normalised clips, float32 (N, 3, T, S, S).
        entries: The video file of each clip, N entries.
        skipped: The videos that could not be used.
    """

    videos: Video
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


def load_videos(
    clips: ClipSet,
    model_input: Input,
    count: int,
    sampling: Sampling | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Videos:
    """Take clips from a set to calibrate on: the labels take turns, and equal arguments give equal clips.

    Args:
        clips: The clip set.
        model_input: The clips that the model takes.
        count: N, the number of clips to take.
        sampling: Which frames to take; None takes one clip of each video, sampled as in the model's training.
        workers: See `in_workers`.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.

    Raises:
        ClipSetError: The set has fewer clips that can be used.
    """
    job = Prepare((model_input,), sampling or Sampling("trained"))
    videos: list[Video] = []
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    bar = progress(total=count, desc="calibration clips", unit="clip") if progress else None
    with closing(in_workers(job, clips.shuffled().entries, workers)) as results:
        for entry, result in results:
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            needed = result[0][: count - len(videos)]
            videos += list(needed)
            entries += [entry] * len(needed)
            if bar is not None:
                bar.update(len(needed))
            if len(videos) == count:
                break
    if bar is not None:
        bar.close()
    if len(videos) < count:
        raise ClipSetError(
            f"{count} clips are needed, {clips.name} gives {len(videos)} from {len(clips)} videos"
            f"{describe_skipped(skipped)}: add videos, or take more clips of each"
        )
    return Videos(np.stack(videos), tuple(entries), tuple(skipped))


def describe_skipped(skipped: Sequence[Skipped]) -> str:
    """Return a note in brackets about skipped videos, for the middle of a message; empty if there are none."""
    if not skipped:
        return ""
    reasons = [f"{video.path.name}: {video.reason}" for video in skipped[:_MOST_NAMED]]
    more = f", and {len(skipped) - _MOST_NAMED} more" if len(skipped) > _MOST_NAMED else ""
    return f" ({len(skipped)} cannot be used: {'; '.join(reasons)}{more})"
