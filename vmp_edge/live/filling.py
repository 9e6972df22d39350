"""`FillingWatch`: says that a window is filling up, while there can be no result yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..stream.stream import Stream

LONG = 2.0  # seconds that a window reaches over; a shorter one is full before anybody wonders
_PAUSE = 10.0  # seconds from one word about the same window to the next


@dataclass(frozen=True)
class Filling:
    """How far a stream is on the way to its first window.

    Args:
        time: Seconds since the source's first frame.
        share: The share of the window that is there, 0 to 1.
        reach: Seconds from the window's oldest frame to its newest.
    """

    time: float
    share: float
    reach: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, for JSON."""
        return {"time": round(self.time, 3), "filling": round(self.share, 3), "window_s": round(self.reach, 3)}

    def __str__(self) -> str:
        """Return a sentence for the user."""
        there = f"{self.share:.0%} of it is there"
        return f"a window reaches over {self.reach:.3g} s, {there}: results come when it is full"


class FillingWatch:
    """Says that a window is filling up: when it begins to, and every ten seconds. Short windows are passed over.

    A window fills up at the beginning, and again when a source has started again.

    Args:
        stream: The stream.
        on_filling: Called with what there is to say.
    """

    def __init__(self, stream: Stream, on_filling: Callable[[Filling], None]) -> None:
        self._stream = stream
        self._on_filling = on_filling
        self._last = 0.0  # the monotonic clock when the last word was said
        self._full = True

    def update(self, seconds: float) -> None:
        """Look at the stream after a frame went into it.

        Args:
            seconds: The frame's time in seconds since the first frame.
        """
        share, reach = self._stream.filled, self._stream.window.reach
        now, began = time.monotonic(), self._full
        self._full = share >= 1
        if self._full or reach is None or reach < LONG:
            return
        if began or now - self._last >= _PAUSE:
            self._last = now
            self._on_filling(Filling(seconds, share, reach))
