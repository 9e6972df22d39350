"""`Smoothing` and `Smoother`: steady results from noisy windows, with averaged scores and no flickering label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import UsageError


@dataclass(frozen=True)
class Smoothing:
    """Settings that steady a stream's results.

    Args:
        windows: Time constant of the exponential average of the scores, in windows. 0 does not average.
        seconds: The same time constant in seconds, by the frames' timestamps, in place of `windows`. It keeps the pace
            of the results the same when the machine gets slower and windows come more rarely.
        margin: A new label is shown when its averaged score exceeds that of the shown label by this much.
        hold: Number of windows in a row in which the new label must lead by the margin. A margin of 0 and a hold of 1
            show the best label at once.

    Raises:
        UsageError: A value is out of range.
    """

    windows: float = 1.5
    seconds: float | None = None
    margin: float = 0.05
    hold: int = 2

    def __post_init__(self) -> None:
        if not (math.isfinite(self.windows) and self.windows >= 0):
            raise UsageError(f"smoothing windows must be 0 or more, not {self.windows}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise UsageError(f"smoothing seconds must be 0 or more, not {self.seconds}")
        if not 0 <= self.margin < 1:
            raise UsageError(f"smoothing margin must be at least 0 and under 1, not {self.margin}")
        if self.hold < 1:
            raise UsageError(f"smoothing hold must be at least 1 window, not {self.hold}")


DEFAULT_SMOOTHING = Smoothing()


class Smoother:
    """Applies `Smoothing` to the scores of one window after another."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next window is shown as it is."""
        self._average: npt.NDArray[np.float64] | None = None
        self._timestamp = 0.0
        self._shown = 0
        self._challenger = 0
        self._leads = 0  # number of windows in a row in which the challenger has led

    def update(self, scores: npt.NDArray[np.float32], timestamp: float) -> tuple[int, npt.NDArray[np.float32]]:
        """Take a window's scores.

        Args:
            scores: float32 (classes,), adding up to 1.
            timestamp: Timestamp of the window's newest frame, in seconds.

        Returns:
            The index of the label to show, and the averaged scores, float32 (classes,).
        """
        if self._average is None:
            self._average = scores.astype(np.float64)
            self._shown = self._challenger = int(np.argmax(scores))
        else:
            self._average += self._weight(timestamp - self._timestamp) * (scores - self._average)
            self._settle(self._average)
        self._timestamp = timestamp
        return self._shown, self._average.astype(np.float32)

    def _weight(self, elapsed: float) -> float:
        """Return the newest window's weight: 1 - exp(-elapsed / time constant)."""
        if self.smoothing.seconds is not None:
            elapsed, constant = max(elapsed, 0.0), self.smoothing.seconds
        else:
            elapsed, constant = 1.0, self.smoothing.windows
        return -math.expm1(-elapsed / constant) if constant > 0 else 1.0

    def _settle(self, average: npt.NDArray[np.float64]) -> None:
        best = int(np.argmax(average))
        leads = best != self._shown and average[best] - average[self._shown] >= self.smoothing.margin
        if not leads:
            self._leads = 0
            return
        self._leads = self._leads + 1 if best == self._challenger and self._leads else 1
        self._challenger = best
        if self._leads >= self.smoothing.hold:
            self._shown, self._leads = best, 0
