"""`CpuMeter`: the share of the machine's CPU that this process takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..machine import cpu_count


class CpuMeter:
    """Measures the share of the machine's CPU that this process takes.

    Args:
        interval: Seconds from one sample to the next.
        clock: Returns the time that has passed, in seconds.
        process: Returns the CPU seconds that this process has taken, all threads together.
        cpus: Number of CPUs of the machine. None looks it up.
    """

    def __init__(
        self,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        process: Callable[[], float] = time.process_time,
        cpus: int | None = None,
    ) -> None:
        self._interval = interval
        self._clock, self._process = clock, process
        self._cpus = cpus or cpu_count()
        self._sampled_at, self._used = clock(), process()

    def sample(self) -> float | None:
        """Return the share since the last sample, 0 to 1, or None while the interval is not over."""
        now = self._clock()
        elapsed = now - self._sampled_at
        if elapsed < self._interval:
            return None
        used = self._process()
        share = (used - self._used) / (elapsed * self._cpus)
        self._sampled_at, self._used = now, used
        return share
