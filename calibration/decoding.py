"""From video files to clips, in worker processes: what cannot be used is named and left out."""

from __future__ import annotations

import multiprocessing
import os
import signal
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
from vmp_edge.errors import SourceError, UsageError, VmpError
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import sample_evenly
from vmp_edge.sources import Source, open_source

from .clipset import ClipSet, ClipSetError, Entry

Clip = NDArray[np.uint8]
Video = NDArray[np.float32]
Result = TypeVar("Result")
Progress = Callable[..., Any]  # makes a progress bar, as `tqdm.tqdm` does

MODES = ("uniform", "dense")
_USUAL_FPS = 30.0  # of files that don't say
_SLOWEST = 0.9  # of the model's frame rate: a slower video has no frames for a dense clip
_SHOWN = 3  # unusable files in an error before it says "and N more"


class UnusableError(SourceError):
    """No clip can be taken from a video; the text is the reason."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video make its clips; the same file gives the same frames always.

    Attributes:
        mode: ``uniform``, a clip's frames are spread over the whole video, one from each of as many equal parts: from
            the part's middle, as `Recognizer.predict` takes them, or, with several clips, each clip from another
            place in it; ``dense``, a clip is a window as a camera would give it, at the model's frame rate, and the
            windows are spread over the video.
        clips: clips of a video.

    Raises:
        UsageError: the mode is unknown, or there are no clips.
    """

    mode: str = "uniform"
    clips: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"sampling must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.clips < 1:
            raise UsageError(f"there must be at least one clip of a video, not {self.clips}")

    def indices(self, available: int, fps: float, frames: int, frame_rate: float | None) -> list[list[int]]:
        """Frame numbers of every clip.

        Args:
            available: frames that the video has.
            fps: frames per second that it has.
            frames: T, of a clip.
            frame_rate: of a dense clip; None takes frame after frame.

        Raises:
            UnusableError: the video is too short, or too slow, for one clip.
        """
        if self.mode == "uniform":
            _check_length(available, frames)
            parts = 2 * self.clips * frames
            return [
                [(2 * self.clips * i + 2 * j + 1) * available // parts for i in range(frames)]
                for j in range(self.clips)
            ]
        spacing = fps / frame_rate if frame_rate else 1.0
        if spacing < _SLOWEST:
            raise UnusableError(f"too slow: {fps:g} frames per second, the model takes {frame_rate:g}")
        offsets = np.round(np.arange(frames) * max(spacing, 1.0)).astype(int)
        span = int(offsets[-1]) + 1
        _check_length(available, span)
        starts = sorted(set(sample_evenly(available - span + 1, self.clips)))
        return [(start + offsets).tolist() for start in starts]


def _check_length(available: int, needed: int) -> None:
    if available < needed:
        raise UnusableError(f"too short: {available} frames, a clip takes {needed}")


@dataclass(frozen=True)
class Input:
    """What a model takes.

    Attributes:
        frames: T.
        preprocessing: of a frame.
        frame_rate: at which it saw its frames in training, or None.
    """

    frames: int
    preprocessing: Preprocessing
    frame_rate: float | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Input:
        """What a bundle takes."""
        return cls(manifest.frames, manifest.preprocessing, manifest.frame_rate)


@dataclass(frozen=True)
class Skipped:
    """A video that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Prepare:
    """A job for `in_workers`: a video's clips as models take them.

    Attributes:
        inputs: what each of the models takes.
        sampling: which frames.
    """

    inputs: tuple[Input, ...]
    sampling: Sampling

    def __call__(self, entry: Entry) -> list[Video]:
        """For each input the clips of the video, float32 (clips, 3, T, S, S)."""
        return [self._prepared(entry.path, wanted) for wanted in self.inputs]

    def _prepared(self, path: Path, wanted: Input) -> Video:
        clips = read_clips(path, lambda count, fps: self.sampling.indices(count, fps, wanted.frames, wanted.frame_rate))
        return np.concatenate([wanted.preprocessing.clip(clip) for clip in clips])


def read_clips(path: Path, choose: Callable[[int, float], Sequence[Sequence[int]]]) -> list[Clip]:
    """Take frames out of a video; only those are kept in memory.

    Args:
        path: the file.
        choose: from the number of frames and frames per second to the frame numbers of each clip.

    Returns:
        A clip for each choice, uint8 (T, H, W, 3) RGB.

    Raises:
        UnusableError: it is missing, empty, cannot be decoded, changes its size, or ``choose`` raised it.
    """
    with closing(open_video(path)) as source:
        said, fps = source.frame_count, source.fps or _USUAL_FPS
    chosen = choose(said, fps) if said else []
    frames, count = _take(path, chosen)
    if not chosen or any(i not in frames for indices in chosen for i in indices):
        chosen = choose(count, fps)  # it has fewer frames than it says, or doesn't say
        frames, _ = _take(path, chosen)
    if len({frame.shape for frame in frames.values()}) > 1:
        raise UnusableError("its frames change their size")
    return [np.stack([frames[i] for i in indices]) for indices in chosen]


def open_video(path: Path) -> Source:
    """Open a file to read its frames.

    Raises:
        UnusableError: it is missing, empty, or cannot be decoded.
    """
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise UnusableError("empty: the file has no bytes")
        if not path.is_file():
            raise UnusableError("there is no such file")
        return open_source(str(path.resolve()))
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error
    except UnusableError:
        raise
    except SourceError as error:
        raise UnusableError("cannot be decoded as a video") from error


def _take(path: Path, chosen: Sequence[Sequence[int]]) -> tuple[dict[int, Clip], int]:
    """The chosen frames, as far as they are there, and how many were read; all are read if none is chosen."""
    wanted = {i for indices in chosen for i in indices}
    last = max(wanted, default=None)
    frames: dict[int, Clip] = {}
    with closing(open_video(path)) as source:
        count = 0
        while last is None or count <= last:
            frame = source.read()
            if frame is None:
                break
            if count in wanted:
                frames[count] = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB), np.uint8)
            count += 1
    return frames, count


def in_workers(
    job: Callable[[Entry], Result], entries: Sequence[Entry], workers: int | None = None
) -> Generator[tuple[Entry, Result | Skipped], None, None]:
    """Do a job on every video, in worker processes, a few videos ahead of whoever takes the results.

    Args:
        job: can be pickled; `UnusableError` from it is a result.
        entries: the videos.
        workers: processes; None takes all cores, 0 works in this process.

    Yields:
        Each video with its result, in order, or with the reason why it has none; a video whose decoding kills the
        process is one of those.

    Raises:
        VmpError: worker processes cannot be started.
    """
    if workers == 0:
        yield from ((entry, _attempt(job, entry)) for entry in entries)
        return
    count = min(workers or os.cpu_count() or 1, max(len(entries), 1))
    waiting, pending = deque(entries), deque[tuple[Entry, Future[Any]]]()
    pool = _pool(count)
    try:
        while waiting or pending:
            while waiting and len(pending) < 2 * count:
                try:
                    pending.append((waiting[0], pool.submit(_attempt, job, waiting[0])))
                except BrokenProcessPool:
                    break  # a pending one tells
                waiting.popleft()
            entry, future = pending.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:  # this video, or another of those in work
                result = _alone(job, entry)
                waiting.extendleft(reversed([other for other, _ in pending]))
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
                "worker processes die as they start: give workers=0 to decode in this one, or, in a script, put what "
                "calls this under `if __name__ == '__main__':`, for they import the script"
            ) from error
        try:
            return pool.submit(_attempt, job, entry).result()
        except BrokenProcessPool:
            return Skipped(entry.path, "cannot be decoded: it kills the process that tries")


def _pool(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=start_worker)


def start_worker() -> None:
    """Keep OpenCV to one thread, for there are as many processes as cores, and leave Ctrl-C to the parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class Videos:
    """Clips in memory.

    Attributes:
        videos: float32 (N, 3, T, S, S), normalised.
        entries: which video each clip is of, N of them.
        skipped: the videos that could not be used.
    """

    videos: Video
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


def load_videos(
    clips: ClipSet,
    wanted: Input,
    count: int,
    sampling: Sampling | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Videos:
    """Take clips from a set to calibrate on: the labels in turn, and the same ones each time.

    Args:
        clips: the set.
        wanted: what the model takes.
        count: N, how many clips are needed.
        sampling: which frames; uniform, one clip of a video, if None.
        workers: see `in_workers`.
        progress: makes a progress bar, as `tqdm.tqdm` does; None shows nothing.

    Raises:
        ClipSetError: the set has fewer clips that can be used.
    """
    job = Prepare((wanted,), sampling or Sampling())
    videos: list[Video] = []
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    bar = progress(total=count, desc="calibration clips", unit="clip") if progress else None
    with closing(in_workers(job, clips.shuffled().entries, workers)) as results:
        for entry, result in results:
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            taken = result[0][: count - len(videos)]
            videos += list(taken)
            entries += [entry] * len(taken)
            if bar is not None:
                bar.update(len(taken))
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
    """What was left out, for the middle of a message; empty if nothing was."""
    if not skipped:
        return ""
    named = [f"{one.path.name}: {one.reason}" for one in skipped[:_SHOWN]]
    more = f", and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    return f" ({len(skipped)} cannot be used: {'; '.join(named)}{more})"
