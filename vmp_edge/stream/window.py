"""`Window`: which frames of a stream the model takes at once, and how often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import UsageError

SAMPLINGS = ("uniform", "recent", "motion")
# In spacings. A frame that is closer to its neighbour than a quarter (less a little, for jitter) would never be chosen.
_MIN_SPACING = 0.24
_SHORTER = 1.05  # a window by time may be 0.05 spacings shorter than T - 1 of them, for rounding and jitter
# Exponent of the distance into the past. Of 8 frames, the newest two are 0.38 spacings apart and the oldest two 1.45.
_RECENT_POWER = 1.5
_TIME_SHARE = 0.25  # share of plain time in sampling by motion, so that no two frames are over four spacings apart


@dataclass(frozen=True)
class Window:
    """The frames that the model takes at once, and how often it takes them.

    Args:
        frames: T, the number of frames.
        stride: The window takes every stride-th frame. Give exactly one of this and `fps`.
        fps: Frames per second, by the timestamps: the window takes the frames nearest in time, whatever the camera's
            own rate.
        sparse: True keeps one frame of each period of `fps` and the newest frame, for windows of many seconds. The
            chosen frames are then up to half a period from the wanted times. Only for `fps` and `uniform` sampling.
        hop: Number of frames from one window to the next.
        sampling: `uniform` takes equally spaced frames. `recent` and `motion` choose from the same span of time:
            `recent` takes frames closer together towards the present, `motion` takes more frames where more changes.

    Raises:
        UsageError: A value is out of range, or not exactly one of stride and fps is given.
    """

    frames: int
    stride: int | None = 1
    fps: float | None = None
    hop: int = 4
    sampling: str = "uniform"
    sparse: bool = False

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UsageError(f"a window needs at least 1 frame, not {self.frames}")
        if self.hop < 1:
            raise UsageError(f"hop must be at least 1 frame, not {self.hop}")
        if (self.stride is None) == (self.fps is None):
            raise UsageError("a window is spaced by a stride in frames or by frames per second: give one of them")
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"stride must be at least 1 frame, not {self.stride}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"frames per second must be positive, not {self.fps}")
        if self.sampling not in SAMPLINGS:
            raise UsageError(f"sampling must be one of {', '.join(SAMPLINGS)}, not {self.sampling!r}")
        if self.sparse and (self.fps is None or self.sampling != "uniform"):
            raise UsageError("a sparse window takes frames by time, equally spaced")

    def slower(self, factor: float) -> Window:
        """Return this window with frames `factor` times as far apart, rounded to a whole stride."""
        if self.fps is not None:
            return replace(self, fps=self.fps / factor)
        assert self.stride is not None
        return replace(self, stride=max(1, round(self.stride * factor)))

    @property
    def capacity(self) -> int:
        """Number of frames that must be kept, so that a window can be chosen from them."""
        if self.stride is not None:
            return (self.frames - 1) * self.stride + 1
        if self.sparse:
            return self.frames + 2
        return math.ceil((self.frames - 1) / self._closest) + 2

    @property
    def min_spacing(self) -> float:
        """Least seconds between two kept frames. A frame that comes sooner is passed over and not prepared."""
        return self._closest / self.fps if self.fps is not None else 0.0

    @property
    def reach(self) -> float | None:
        """Seconds from the oldest to the newest frame of a window, or None if windows count frames."""
        return None if self.fps is None else (self.frames - 1) / self.fps

    def filled(self, count: int, seconds: float) -> float:
        """Return how much of a window is there, from 0 to 1; a window can be chosen at 1.

        Args:
            count: Number of the kept frames.
            seconds: Time from the oldest of them to the newest frame.
        """
        if self.fps is None:
            return min(1.0, count / self.capacity)
        needed = (self.frames - _SHORTER) / self.fps
        return float(count > 0) if needed <= 0 else min(1.0, max(0.0, seconds / needed))

    def next_period(self, start: float, timestamp: float) -> float:
        """Return when the next period of a sparse window begins.

        Args:
            start: The beginning of any of its periods in seconds, or minus infinity if there was none yet.
            timestamp: The frame that was just kept, which is not before `start`.
        """
        assert self.fps is not None
        if math.isinf(start):
            return timestamp + 1 / self.fps
        return start + (math.floor((timestamp - start) * self.fps) + 1) / self.fps

    @cached_property
    def _closest(self) -> float:
        """Least distance of two kept frames, in spacings."""
        return float(min(_MIN_SPACING, *-np.diff(self._offsets))) if self.frames > 1 else _MIN_SPACING

    @cached_property
    def _offsets(self) -> npt.NDArray[np.float64]:
        """Distance of each frame from the newest frame in spacings, oldest first: from T - 1 to 0."""
        past = np.arange(self.frames - 1, -1, -1, dtype=np.float64)
        if self.sampling != "recent" or self.frames == 1:
            return past
        return (self.frames - 1) * (past / (self.frames - 1)) ** _RECENT_POWER

    def select(self, timestamps: Sequence[float], changes: Sequence[float] | None = None) -> list[int] | None:
        """Choose the frames of the newest window.

        Args:
            timestamps: Timestamps of the kept frames in seconds, oldest first.
            changes: How much moves in each kept frame, for sampling by motion. None takes equally spaced frames.

        Returns:
            T indices, oldest first; the last is the newest frame. None if the kept frames do not reach back far enough.
            By fps, a frame is chosen twice if the camera is slower than the window.
        """
        indices = self._by_stride(len(timestamps)) if self.fps is None else self._by_time(timestamps)
        if indices is None or self.sampling != "motion" or changes is None:
            return indices
        first = indices[0]
        if len(timestamps) - first <= self.frames:  # the camera is slow, and there is nothing to choose from
            return indices
        return [first + index for index in spread(timestamps[first:], changes[first:], self.frames)]

    def _by_stride(self, available: int) -> list[int] | None:
        assert self.stride is not None
        newest = available - 1
        if newest < (self.frames - 1) * self.stride:
            return None
        back = np.rint(self._offsets * self.stride).astype(int)
        back = np.maximum(back, np.arange(self.frames - 1, -1, -1))  # no frame twice
        return [int(index) for index in newest - back]

    def _by_time(self, timestamps: Sequence[float]) -> list[int] | None:
        assert self.fps is not None
        newest, period = len(timestamps) - 1, 1.0 / self.fps
        if newest < 0 or timestamps[0] > timestamps[newest] - (self.frames - _SHORTER) * period:
            return None
        times = np.asarray(timestamps, np.float64)
        moments = times[newest] - period * self._offsets
        if self.sparse and self.frames > 1:
            # All frames but the newest are off by the same time. Rounded one by one, two of them could be one frame.
            second = _nearest(times, moments[-2:-1])[0]
            if second < newest:  # else the camera is slow, and frames are chosen twice in any case
                moments[:-1] += times[second] - moments[-2]
        return [int(index) for index in _nearest(times, moments)]


def _nearest(times: npt.NDArray[np.float64], moments: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return the indices of the times nearest to some moments; the earlier one of two that are as near."""
    newest = len(times) - 1
    after = np.clip(np.searchsorted(times, moments), 1, max(newest, 1))
    nearer_before = moments - times[after - 1] <= times[np.minimum(after, newest)] - moments
    return np.where(nearer_before, after - 1, np.minimum(after, newest))


def spread(timestamps: Sequence[float], changes: Sequence[float], frames: int) -> list[int]:
    """Choose frames so that about the same amount happens between any two neighbours.

    Three quarters of the amount are change times time, and one quarter is time alone. It is summed up from the oldest
    frame on, and the frames are chosen where the sum reaches equal parts of its total.

    Args:
        timestamps: Seconds, oldest first; more than `frames` of them.
        changes: How much moves in each frame.
        frames: Number of frames to choose, 2 or more.

    Returns:
        Indices, oldest first, none twice: the oldest frame, the newest frame, and `frames - 2` between them.
    """
    steps = np.diff(np.asarray(timestamps, np.float64))
    if steps.sum() <= 0:
        steps = np.ones(len(steps))
    motion = steps * np.maximum(np.asarray(changes, np.float64)[1:], 0)
    share = steps / steps.sum()
    if motion.sum() > 0:
        share = _TIME_SHARE * share + (1 - _TIME_SHARE) * motion / motion.sum()
    total = np.concatenate(([0.0], np.cumsum(share)))
    nearest = np.abs(total[None] - np.linspace(0, total[-1], frames)[:, None]).argmin(1)
    nearest[-1] = len(steps)
    order = np.arange(frames)
    # Each frame must come after the frame before it, and leave room for the frames after it.
    increasing = np.maximum.accumulate(nearest - order) + order
    return [int(index) for index in np.minimum(increasing, len(steps) - order[::-1])]
