"""`FrameTimes`: the times of a file's frames, mended where the file's own times make no sense."""

from __future__ import annotations

from fractions import Fraction

LONGEST_GAP = 60.0  # seconds; a longer step of a file that has no known length is a jump


class FrameTimes:
    """Turns the times in a file into seconds since its first frame that always grow.

    The file's own times count. Where a frame has none, it comes one step of the frame rate after the one before it. A
    time that does not advance, or jumps too far, is replaced in the same way. If the times after a jump make sense
    among themselves, they go on from there: so do recordings that were joined, and counters that start again.

    Args:
        rate: Frames per second.
        time_base: Seconds of one tick.
        length: Length of the file in seconds. A gap that fits into it is no jump. None if it is not known.
    """

    def __init__(self, rate: float, time_base: Fraction, length: float | None = None) -> None:
        self._rate = rate
        self._time_base = time_base
        self._length = length
        self._position = -1  # of the frame in the file, counting those that cannot be decoded
        self._last = 0.0
        self._offset: int | None = None  # in ticks; None while no frame had a time
        self._other: int | None = None  # the offset that fits the last frame, which did not fit the others
        self._doubled = False  # the last frame had the time of the one before

    def next(self, ticks: int | None, missing: int = 0) -> float:
        """Return the seconds of the next frame.

        Args:
            ticks: The frame's time in the file, or None if it has none.
            missing: Number of frames before this one that could not be decoded.
        """
        self._position += 1 + missing
        first = self._position == missing
        if ticks is None:
            self._last = 0.0 if first else self._by_rate(missing)
        elif first:
            self._offset, self._last = -ticks, 0.0
            self._position = 0
        elif self._offset is None:
            self._last = self._by_rate(missing)
            self._offset = self._fitting(ticks)
        else:
            self._last = self._by_ticks(ticks, self._offset, missing)
        return self._last

    def _by_rate(self, missing: int) -> float:
        if self._offset is None:  # from the start, so that errors do not add up
            return self._position / self._rate
        return self._last + (1 + missing) / self._rate

    def _fitting(self, ticks: int) -> int:
        """Return the offset with which a time in the file becomes the last frame's seconds."""
        return round(Fraction(self._last) / self._time_base) - ticks

    def _by_ticks(self, ticks: int, offset: int, missing: int) -> float:
        seconds = self._seconds(ticks, offset)
        if self._fits(seconds):
            self._other, self._doubled = None, False
            return seconds
        if self._other is not None and self._fits(after := self._seconds(ticks, self._other)):
            self._offset, self._other, self._doubled = self._other, None, False
            return after
        if not self._doubled and 0 <= self._last - seconds < 1 / self._rate:
            self._doubled = True  # half a step leaves room for the next frame, whose time is probably right
            return self._last + 0.5 / self._rate
        self._last = self._by_rate(missing)
        self._other = self._fitting(ticks)
        return self._last

    def _seconds(self, ticks: int, offset: int) -> float:
        return (ticks + offset) * self._time_base.numerator / self._time_base.denominator

    def _fits(self, seconds: float) -> bool:
        if seconds <= self._last + float(self._time_base) / 2:  # less than a tick is a rounding error
            return False
        return seconds <= self._last + LONGEST_GAP or (self._length is not None and seconds <= self._length + 1.0)
