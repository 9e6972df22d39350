"""The sliding window: which frames of a stream the model sees at once, and how often it looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import UsageError

SAMPLINGS = ("uniform", "recent", "motion")
_MIN_SPACING = 0.24  # in window periods: frames closer than a quarter (and a little, for jitter) would never be chosen
_RECENT_POWER = 1.5  # of the distance into the past: the newest frames of 8 are 0.38 spacings apart, the oldest 1.45
_TIME_SHARE = 0.25  # of sampling by motion: no two frames of a window are further apart than four spacings


@dataclass(frozen=True)
class Window:
    """Which frames make up what the model sees at once, and how often it looks.

    Args:
        frames: T, how many frames.
        stride: Every how many-th frame; or
        fps: frames per second, by the timestamps: the frames nearest in time, whatever the camera's own rate.
        hop: How many frames come in between one window and the next.
        sampling: `uniform`: equally spaced. The other two choose from the same span of time: `recent` takes frames
            closer together towards the present; `motion` takes more where more changes.

    Raises:
        UsageError: A value is out of range, or not exactly one of stride and fps is given.
    """

    frames: int
    stride: int | None = 1
    fps: float | None = None
    hop: int = 4
    sampling: str = "uniform"

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

    def slower(self, factor: float) -> Window:
        """The same with frames `factor` times as far apart, to the next whole stride."""
        if self.fps is not None:
            return replace(self, fps=self.fps / factor)
        assert self.stride is not None
        return replace(self, stride=max(1, round(self.stride * factor)))

    @property
    def capacity(self) -> int:
        """How many frames must be kept for a window to be found in them."""
        if self.stride is not None:
            return (self.frames - 1) * self.stride + 1
        return math.ceil((self.frames - 1) / self._closest) + 2

    @property
    def min_spacing(self) -> float:
        """Seconds that kept frames are at least apart: what comes closer is passed over, unprepared."""
        return self._closest / self.fps if self.fps is not None else 0.0

    @cached_property
    def _closest(self) -> float:
        """The least distance of kept frames, in spacings."""
        return float(min(_MIN_SPACING, *-np.diff(self._offsets))) if self.frames > 1 else _MIN_SPACING

    @cached_property
    def _offsets(self) -> npt.NDArray[np.float64]:
        """How far before the newest frame each frame is, in spacings, oldest first: T - 1 to 0."""
        past = np.arange(self.frames - 1, -1, -1, dtype=np.float64)
        if self.sampling != "recent" or self.frames == 1:
            return past
        return (self.frames - 1) * (past / (self.frames - 1)) ** _RECENT_POWER

    def select(self, timestamps: Sequence[float], changes: Sequence[float] | None = None) -> list[int] | None:
        """Chooses the frames of the newest window.

        Args:
            timestamps: Of the frames at hand, in seconds, oldest first.
            changes: How much moves in each of them, for sampling by motion; None takes them equally spaced.

        Returns:
            T indices, oldest first, the last one the newest frame; None if what is at hand does not reach back far
            enough. By fps, a frame is chosen twice if the camera is slower than the window.
        """
        chosen = self._by_stride(len(timestamps)) if self.fps is None else self._by_time(timestamps)
        if chosen is None or self.sampling != "motion" or changes is None:
            return chosen
        first = chosen[0]
        if len(timestamps) - first <= self.frames:  # a slow camera: there is nothing to choose from
            return chosen
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
        if newest < 0 or timestamps[0] > timestamps[newest] - (self.frames - 1.05) * period:  # 0.05: rounding, jitter
            return None
        times = np.asarray(timestamps)
        wanted = times[newest] - period * self._offsets
        after = np.clip(np.searchsorted(times, wanted), 1, max(newest, 1))
        nearer_before = wanted - times[after - 1] <= times[np.minimum(after, newest)] - wanted
        return [int(index) for index in np.where(nearer_before, after - 1, np.minimum(after, newest))]


def spread(timestamps: Sequence[float], changes: Sequence[float], frames: int) -> list[int]:
    """Chooses frames so that between any two neighbours about as much happens.

    What happens is change times time, summed up from the oldest frame, and to a quarter plain time; the frames are
    those where the sum reaches equal parts of its total.

    Args:
        timestamps: In seconds, oldest first; more than `frames` of them.
        changes: How much moves in each frame.
        frames: How many to choose, 2 or more.

    Returns:
        Indices, oldest first, none twice: the first frame, the newest, and `frames - 2` between them.
    """
    steps = np.diff(np.asarray(timestamps, np.float64))
    if steps.sum() <= 0:
        steps = np.ones(len(steps))
    happens = steps * np.maximum(np.asarray(changes, np.float64)[1:], 0)
    share = steps / steps.sum()
    if happens.sum() > 0:
        share = _TIME_SHARE * share + (1 - _TIME_SHARE) * happens / happens.sum()
    reached = np.concatenate(([0.0], np.cumsum(share)))
    nearest = np.abs(reached[None] - np.linspace(0, reached[-1], frames)[:, None]).argmin(1)
    nearest[-1] = len(steps)
    order = np.arange(frames)
    chosen = np.maximum.accumulate(nearest - order) + order  # each at least one after the one before it ...
    return [int(index) for index in np.minimum(chosen, len(steps) - order[::-1])]  # ... and room for those after it
