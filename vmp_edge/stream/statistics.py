"""How a stream is doing, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Statistics:
    """How a stream is doing.

    Args:
        frames: How many frames came in.
        dropped: How many of them no window ever reached over, because the recogniser was too slow.
        windows: How many windows were recognised.
        frames_per_second: At which frames come in, over the last ones; 0 before the second.
        latency_p50: Median seconds from picking a window to its result, over the last ones; 0 before the first.
        latency_p95: The 95th percentile of the same.
        skipped: How many windows were passed over because nothing moved.
        level: The governor's, 0 the best; 0 without one.
    """

    frames: int
    dropped: int
    windows: int
    frames_per_second: float
    latency_p50: float
    latency_p95: float
    skipped: int = 0
    level: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, for JSON."""
        return asdict(self)
