"""`Summary`: the numbers of a live session after its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Summary:
    """The numbers of a live session.

    Attributes:
        source: Name of the source.
        seconds: Seconds that the session took.
        frames: Number of frames that came in.
        windows: Number of windows that were recognised.
        dropped: Number of frames that the recogniser was too slow for.
        frames_per_second: Frames that came in, per second of the session.
        latency_p50: Median latency of a window in seconds.
        latency_p95: The 95th percentile of the latency in seconds.
        labels: Number of windows in which each label was shown, most frequent first.
        recorded: Path of the recording, if there is one.
        events: Number of events.
        clips: Number of clips of events.
        skipped: Number of windows that were passed over because nothing moved.
        decisions: Number of decisions of the governor.
        undecodable: Number of the source's frames that could not be decoded.
        damage: What was wrong with the file, as a phrase. None if nothing was.
        interrupted: The interrupt that ended the session, for example by Ctrl-C. None if it ended by itself.
    """

    source: str
    seconds: float = 0.0
    frames: int = 0
    windows: int = 0
    dropped: int = 0
    frames_per_second: float = 0.0
    latency_p50: float = 0.0
    latency_p95: float = 0.0
    labels: dict[str, int] = field(default_factory=dict)
    recorded: str | None = None
    events: int = 0
    clips: int = 0
    skipped: int = 0
    decisions: int = 0
    undecodable: int = 0
    damage: str | None = None
    interrupted: BaseException | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain values, for JSON, with latencies in milliseconds."""
        return {
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
            "windows": self.windows,
            "dropped": self.dropped,
            "frames_per_second": round(self.frames_per_second, 2),
            "latency_ms": {"p50": round(self.latency_p50 * 1e3, 3), "p95": round(self.latency_p95 * 1e3, 3)},
            "labels": self.labels,
            "recorded": self.recorded,
            "events": self.events,
            "clips": self.clips,
            "skipped": self.skipped,
            "decisions": self.decisions,
            "undecodable": self.undecodable,
            "damage": self.damage,
            "interrupted": self.interrupted is not None,
        }
