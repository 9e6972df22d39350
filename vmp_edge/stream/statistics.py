"""`Statistics`: how a stream is doing, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Statistics:
    """Numbers that say how a stream is doing.

    Args:
        frames: Number of frames that came in.
        dropped: Number of frames that were in the reach of no window, because the recogniser was too slow.
        windows: Number of windows that were recognised.
        frames_per_second: Rate at which the newest frames came in. 0 before the second frame.
        latency_p50: Median seconds from picking a window to its result, over the newest windows. 0 before the first.
        latency_p95: The 95th percentile of the same.
        skipped: Number of windows that were passed over because nothing moved.
        level: The governor's level; 0 is the best. 0 without a governor.
        filled: How much of the first window is there, from 0 to 1. Before 1 there can be no result.
    """

    frames: int
    dropped: int
    windows: int
    frames_per_second: float
    latency_p50: float
    latency_p95: float
    skipped: int = 0
    level: int = 0
    filled: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain numbers, for JSON."""
        return asdict(self)
