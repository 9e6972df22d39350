"""How busy other programs keep this machine while something is timed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .formatting import percent
from .machine import usable_cpu_count

BUSY = 0.1  # share of the usable CPUs: with more in other programs' hands, times are no claim
_STAT = Path("/proc/stat")
_BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal


class OtherLoad:
    """Measures the share of the usable CPUs that other programs take, from its creation on."""

    def __init__(self) -> None:
        self._wall, self._own, self._all = time.perf_counter(), _own_seconds(), _busy_seconds()

    def share(self) -> float | None:
        """Return the mean share since the creation, 0 to 1; None where the system does not tell."""
        now, wall = _busy_seconds(), time.perf_counter() - self._wall
        if self._all is None or now is None or wall <= 0:
            return None
        others = (now - self._all) - (_own_seconds() - self._own)
        return min(1.0, max(0.0, others / (wall * usable_cpu_count())))


def doubt(share: float | None) -> str | None:
    """Return why times that were measured beside other programs are no claim, as a part of a sentence, or None.

    Args:
        share: The share of the usable CPUs that the other programs took, 0 to 1; None if it is not known.
    """
    if share is None:
        return "measured on a machine that does not tell how busy it was; not a claim"
    if share > BUSY:
        return f"measured on a busy machine; not a claim: other programs took {percent(share)} of the CPUs"
    return None


def _own_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _busy_seconds() -> float | None:
    """Seconds for which the usable CPUs have worked since the system started, or None where that is unknown."""
    try:
        lines = _STAT.read_text().splitlines()
        usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [line.split() for line in lines if line.split()[:1] and line.split()[0] in usable]
        ticks = sum(int(row[1 + place]) for row in rows for place in _BUSY_FIELDS)
        return ticks / os.sysconf("SC_CLK_TCK") if rows else None
    except (OSError, AttributeError, ValueError, IndexError):  # not Linux, or hidden in a container
        return None
