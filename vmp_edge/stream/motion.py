"""Motion in a stream: `MotionMeter` measures each frame cheaply, `MotionGate` passes over windows without motion.

The measure is the mean absolute difference of two small grey pictures, block by block. The block that changed most
counts, so that a hand in a corner moves as much as a whole scene. The meter looks at fewer than 256x256 pixels of any
frame.
"""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UsageError

DEFAULT_THRESHOLD = 3.0  # grey levels
_SIDE, _BLOCK = 32, 8  # cells of a side of the small picture, and of a side of a block
_SAMPLES = 128  # pixels of a side that are averaged into the cells; more pixels would cost time and tell little more
_BASELINE = 0.1  # seconds between the two pictures; slow motion does not show from one frame to the next
_RISE = 1 / 30  # thresholds per second: the fastest rise of the noise floor
_FALL = 2.0  # seconds: the time constant with which the noise floor falls
_HIGHEST_FLOOR = 2.0  # thresholds; noisier pictures count as moving, because a needless window is better than a miss


class MotionMeter:
    """Measures how much each frame differs from the one about a tenth of a second before it."""

    def __init__(self) -> None:
        self._pictures: deque[tuple[float, npt.NDArray[np.float32]]] = deque(maxlen=32)

    def measure(self, frame: npt.NDArray[np.uint8], timestamp: float) -> float:
        """Take a frame, and measure how much it changed.

        Args:
            frame: uint8 (H, W, 3), the channels in any order that stays the same.
            timestamp: Seconds, not before the last frame's.

        Returns:
            The mean absolute difference in grey levels, 0 to 255, of the block that changed most. 0 at first.
        """
        picture = _small(frame)
        pictures = self._pictures
        while len(pictures) > 1 and pictures[1][0] <= timestamp - _BASELINE + 1e-6:
            pictures.popleft()
        blocks = (_SIDE // _BLOCK, _BLOCK) * 2
        change = np.abs(picture - pictures[0][1]).reshape(blocks).mean((1, 3)).max() if pictures else 0.0
        pictures.append((timestamp, picture))
        return float(change)

    def reset(self) -> None:
        """Forget the frames: the next frame counts as the first."""
        self._pictures.clear()


def _small(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Shrink a frame to a grey picture of 32x32 cells, each the mean of up to 16 of its pixels."""
    down, across = (max(1, side // _SAMPLES) for side in frame.shape[:2])
    pixels = np.ascontiguousarray(frame[::down, ::across])
    cells = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey: npt.NDArray[np.float32] = cells.mean(2, dtype=np.float32)
    return grey


class MotionGate:
    """Decides which windows to pass over because nothing moves.

    Motion begins when the measure exceeds a noise floor by the threshold, and ends when it exceeds the floor by less
    than half the threshold. The floor follows the measure down within seconds. It follows it up slowly and never far,
    so that the gate learns a camera's noise at night but does not take a long action for noise.

    Args:
        threshold: Grey levels, as `MotionMeter` measures them.
        settle: Number of windows that are still recognised after the motion has ended. So the result that stays is that
            of the still scene, and the smoothing has settled on it.

    Raises:
        UsageError: A value is out of range.
    """

    def __init__(self, threshold: float = DEFAULT_THRESHOLD, settle: int = 4) -> None:
        if not (math.isfinite(threshold) and threshold > 0):
            raise UsageError(f"the motion gate's threshold must be positive, not {threshold}")
        if settle < 0:
            raise UsageError(f"the motion gate must settle for 0 windows or more, not {settle}")
        self.threshold = threshold
        self.settle = settle
        self.reset()

    def reset(self) -> None:
        """Forget everything: the scene counts as moving until it is known to be still."""
        self.floor = 0.0  # grey levels
        self.moving = True
        self._left = self.settle
        self._timestamp: float | None = None

    def skips(self, motion: float, timestamp: float) -> bool:
        """Take the next window, and decide.

        Args:
            motion: The largest measure of the window's frames, in grey levels.
            timestamp: Timestamp of the window's newest frame, in seconds.

        Returns:
            True if the window is to be passed over.
        """
        self.moving = motion - self.floor > (0.5 if self.moving else 1.0) * self.threshold
        self._follow(motion, timestamp)
        if self.moving:
            self._left = self.settle
        elif self._left > 0:
            self._left -= 1
        else:
            return True
        return False

    def _follow(self, motion: float, timestamp: float) -> None:
        elapsed = 0.0 if self._timestamp is None else max(timestamp - self._timestamp, 0.0)
        self._timestamp = timestamp
        if motion < self.floor:
            self.floor += (motion - self.floor) * -math.expm1(-elapsed / _FALL)
        else:
            highest = min(motion, _HIGHEST_FLOOR * self.threshold)
            self.floor = max(self.floor, min(self.floor + _RISE * self.threshold * elapsed, highest))
