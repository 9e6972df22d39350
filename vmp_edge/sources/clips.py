"""Clips of a video file: some of its frames, chosen by their numbers or, for a variable frame rate, by their times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from . import open_source
from .base import USUAL_FPS, Source
from .images import ImageFolder

Clip = NDArray[np.uint8]

_LONGEST_STEP = 2.0  # seconds for which a frame stays at most; no clip should be of one frame alone


class UnusableError(SourceError):
    """No clip can be taken from a video; the message is the reason."""


class Clips(list[Clip]):
    """The clips of a video, each uint8 (T, H, W, 3) RGB.

    Attributes:
        damage: What was wrong with the video, as a phrase for messages. None if nothing was.
    """

    damage: str | None = None


def read_clips(
    path: Path,
    choose: Callable[[int, float], Sequence[Sequence[int]]],
    by_time: bool = False,
    picture: Callable[[Clip], Clip] | None = None,
) -> Clips:
    """Take frames out of a video, keeping only these in memory.

    Args:
        path: The video file.
        choose: Function from the number of frames and the frames per second to the frame numbers of each clip.
        by_time: Whether a video of a variable frame rate counts as one of a steady rate, whose frames stay until the
            next one comes, as a camera would show it.
        picture: Makes the picture to keep of a frame, uint8 (H, W, 3) RGB, for example a smaller one; None keeps the
            frame.

    Returns:
        The clips that ``choose`` chose, each uint8 (T, H, W, 3) RGB. Frames that cannot be decoded have no numbers, and
        the result says how many there are.

    Raises:
        UnusableError: The file is missing or empty, cannot be decoded, has frames of several sizes, or ``choose``
            raised this error.
    """
    with closing(open_video(path)) as source:
        stated_count, fps = source.frame_count, source.fps or USUAL_FPS
    clips = choose(stated_count, fps) if stated_count else []
    read = _read_frames(path, clips, picture)
    times, damage = read.times, read.damage
    uneven = by_time and is_uneven(times)
    if not clips or damage or uneven or any(i not in read.frames for indices in clips for i in indices):
        # The file has fewer frames than it states, or does not state their number, or has them at uneven times.
        if uneven:
            times = _read_frames(path, ()).times
        try:
            clips = choose_by_time(times, choose) if uneven else choose(len(times), fps)
        except UnusableError as error:
            raise UnusableError(f"{error} ({damage})" if damage else str(error)) from None
        read = _read_frames(path, clips, picture)
    if len(read.shapes) > 1:
        raise UnusableError("its frames change their size")
    decoded = Clips([np.stack([read.frames[i] for i in indices]) for indices in clips])
    decoded.damage = damage
    return decoded


def open_video(path: Path) -> Source:
    """Open a video file, or a folder of pictures, to read its frames.

    Raises:
        UnusableError: The file is missing or empty, or cannot be decoded.
    """
    try:
        if path.is_file() and path.stat().st_size == 0:
            raise UnusableError("empty: the file has no bytes")
        if path.is_dir():
            return _open_folder(path)
        if not path.is_file():
            raise UnusableError("there is no such file")
        return open_source(str(path.resolve()))
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from error
    except UnusableError:
        raise
    except SourceError as error:
        raise UnusableError("cannot be decoded as a video") from error


def _open_folder(path: Path) -> Source:
    try:
        return ImageFolder(path)
    except SourceError as error:
        raise UnusableError("there is no such file, but a folder without pictures") from error


class _Read(NamedTuple):
    """What was read of a video.

    Attributes:
        frames: The pictures of the wanted frames that the file has, by their numbers.
        times: The seconds of all frames that were read.
        damage: What was wrong with the file, or None.
        shapes: The shapes of the wanted frames.
    """

    frames: dict[int, Clip]
    times: list[float]
    damage: str | None
    shapes: set[tuple[int, ...]]


def _read_frames(path: Path, clips: Sequence[Sequence[int]], picture: Callable[[Clip], Clip] | None = None) -> _Read:
    """Read the frames of clips.

    Args:
        path: The video file.
        clips: Frame numbers of each clip; without any, the whole file is read to count its frames.
        picture: See `read_clips`.

    Returns:
        What was read. A file with something wrong before the last of the frames is read to its end.
    """
    numbers = {i for indices in clips for i in indices}
    last = max(numbers, default=None)
    frames: dict[int, Clip] = {}
    times: list[float] = []
    shapes: set[tuple[int, ...]] = set()
    with closing(open_video(path)) as source:
        while last is None or len(times) <= last or _is_damaged(source):
            frame = source.read()
            if frame is None:
                break
            if len(times) in numbers:
                rgb = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB), np.uint8)
                shapes.add(rgb.shape)
                frames[len(times)] = rgb if picture is None else picture(rgb).copy()  # not a part of the whole frame
            times.append(frame.timestamp)
        return _Read(frames, times, getattr(source, "damage", None), shapes)


def _is_damaged(source: Source) -> bool:
    return bool(getattr(source, "undecodable", 0))


def is_uneven(times: Sequence[float]) -> bool:
    """Return whether frames at these seconds do not come at a steady rate."""
    steps = np.diff(times)
    return bool(len(steps) and np.abs(steps - np.median(steps)).max() > 0.5 * np.median(steps))


def choose_by_time(times: Sequence[float], choose: Callable[[int, float], Sequence[Sequence[int]]]) -> list[list[int]]:
    """Choose frames of a video as if they came at a steady rate, each staying until the next one comes.

    Args:
        times: The seconds of the video's frames, at least two.
        choose: Function from the number of frames and the frames per second to the frame numbers of each clip.

    Returns:
        The frame numbers of each clip. A number can occur more than once.
    """
    steps = np.minimum(np.diff(times), _LONGEST_STEP)
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    rate = 1 / float(np.quantile(steps, 0.1))  # the rate where frames come fastest, but for a stray one
    count = round(float(starts[-1]) * rate) + 1
    shown = np.searchsorted(starts, np.arange(count) / rate + 1e-6, side="right") - 1
    return [[int(shown[i]) for i in indices] for indices in choose(count, rate)]
