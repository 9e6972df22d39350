"""The governor: keeps a stream within a budget of latency and of the machine's CPU by how much it recognises.

It is told what was measured and answers with decisions; it has no clock and changes nothing itself. docs/adaptive.md
tells more.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UsageError

Cause = Literal["latency", "cpu", "relief"]

_RECENT = 32  # windows that the 95th percentile is taken over
_ENOUGH = 4  # windows at a level before it is judged
_LATE = 2  # windows over the budget before anything is done: one alone is an accident
_CPU_SAMPLES = 2
_EASY_LATENCY, _EASY_CPU = 0.75, 0.9  # of the budget: "well under", the CPU's as it would be one level up
_PATIENCE, _MOST_PATIENCE = 5.0, 300.0  # seconds well under before it goes up
_TRIAL = 10.0  # seconds in which going up proves to have been too early


@dataclass(frozen=True)
class Budget:
    """What a stream may use.

    Args:
        latency: Seconds from picking a window to its result, in 95 of 100 windows; None for any.
        cpu: Share of the machine's CPU that the process takes, 0 to 1, all cores together being 1; None for any.

    Raises:
        UsageError: A value is out of range.
    """

    latency: float | None = None
    cpu: float | None = None

    def __post_init__(self) -> None:
        if self.latency is not None and not (math.isfinite(self.latency) and self.latency > 0):
            raise UsageError(f"a budget of latency must be positive, not {self.latency * 1e3:g} ms")
        if self.cpu is not None and not 0 < self.cpu <= 1:
            raise UsageError(f"a share of the CPU must be over 0% and at most 100%, not {self.cpu:.0%}")


@dataclass(frozen=True)
class Level:
    """One way to run a stream.

    Args:
        hop: Frames from one window to the next.
        slower: A window's frames are so many times as far apart as they were asked for.
        variant: Which of the bundle's variants recognises; None where there is but the bundle itself.
    """

    hop: int
    slower: int = 1
    variant: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"hop": self.hop, "slower": self.slower, "variant": self.variant}

    def __str__(self) -> str:
        text = f"every {self.hop} frames" if self.hop > 1 else "every frame"
        text += f", frames {self.slower} times as far apart" if self.slower > 1 else ""
        return text + (f", variant {self.variant}" if self.variant is not None else "")


def ladder(hop: int, variants: Sequence[str | None] = (None,)) -> tuple[Level, ...]:
    """The usual levels, from the best to the cheapest.

    First come the variants, which make each window cheaper; then longer hops, which make windows rarer; the spacing of
    a window's frames is changed last, because the model learnt motion at one frame rate.

    Args:
        hop: The best level's.
        variants: From the best to the cheapest.
    """
    cheapest = variants[-1]
    rarer = (Level(2 * hop, 1, cheapest), Level(4 * hop, 1, cheapest), Level(4 * hop, 2, cheapest))
    return (*(Level(hop, 1, variant) for variant in variants), *rarer)


def worthwhile(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The variants of a manifest, dearest first, without those of which a cheaper one recognises as much or more.

    Args:
        variants: What the manifest says of each; `top1` where it was measured, without which a variant stays.
    """
    chosen, best = [], 0.0
    for name, facts in reversed(list(variants.items())):
        top1 = facts.get("top1")
        if isinstance(top1, (int, float)) and top1 <= best:
            continue
        best = best if top1 is None else float(top1)
        chosen.append(name)
    return chosen[::-1]


@dataclass(frozen=True)
class Decision:
    """What the governor decided, and why.

    Args:
        time: Seconds, by the clock of the measurements.
        cause: Over the budget of `latency` or of `cpu`, or `relief`: well under it.
        latency: The 95th percentile in seconds over the recent windows; None if there were too few.
        cpu: The share of the CPU, 0 to 1; None if it was not measured.
        budget: What it was compared with.
        before: The level's number until now, 0 the best.
        after: The number from now on; the same if there is no cheaper one left.
        level: That level.
    """

    time: float
    cause: Cause
    latency: float | None
    cpu: float | None
    budget: Budget
    before: int
    after: int
    level: Level

    def to_dict(self) -> dict[str, Any]:
        """For JSON: milliseconds, shares."""
        return {
            "decision": self.cause,
            "time": round(self.time, 3),
            "latency_ms": _round(self.latency, 1e3),
            "budget_ms": _round(self.budget.latency, 1e3),
            "cpu": _round(self.cpu),
            "max_cpu": _round(self.budget.cpu),
            "before": self.before,
            "after": self.after,
            **self.level.to_dict(),
        }

    def __str__(self) -> str:
        measured = []
        if self.latency is not None and self.budget.latency is not None:
            measured.append(f"latency {self.latency * 1e3:.1f} ms of {self.budget.latency * 1e3:g} ms")
        if self.cpu is not None and self.budget.cpu is not None:
            measured.append(f"CPU {self.cpu:.0%} of {self.budget.cpu:.0%}")
        done = f"level {self.before} to {self.after}: {self.level}"
        if self.before == self.after:
            done = f"level {self.after} is the cheapest there is: {self.level}"
        return f"governor: {', '.join(measured)}; {done}"


class Governor:
    """Chooses the level that keeps a stream within its budget.

    One level down as soon as two recent windows, and their 95th percentile, are over the budget of latency, or two
    samples of the CPU are on average; each level is given a few windows before it is judged. One level up when the
    stream was well under the budget for some seconds; if that proves too early, the next try waits twice as long.

    Args:
        budget: What to keep within.
        levels: From the best to the cheapest; `ladder` makes the usual ones.

    Raises:
        UsageError: There is no level.
    """

    def __init__(self, budget: Budget, levels: Sequence[Level]) -> None:
        if not levels:
            raise UsageError("a governor needs at least one level")
        self.budget = budget
        self.levels = tuple(levels)
        self.number = 0  # of the present level
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._cpu: deque[float] = deque(maxlen=_CPU_SAMPLES)
        self._easy_since: float | None = None
        self._went_up_at: float | None = None
        self._patience = _PATIENCE
        self._told = False  # that there is no cheaper level

    @property
    def level(self) -> Level:
        """The present level."""
        return self.levels[self.number]

    def update(self, now: float, latency: float | None = None, cpu: float | None = None) -> Decision | None:
        """Takes measurements in.

        Args:
            now: Seconds, on any clock that does not run backwards.
            latency: Of the window that was just recognised, in seconds.
            cpu: The process's share of the machine's CPU since the last sample, 0 to 1.

        Returns:
            What was decided, if anything; `level` is the new one by then.
        """
        if latency is not None:
            self._latencies.append(latency)
        if cpu is not None:
            self._cpu.append(cpu)
        cause = self._over()
        if cause is not None:
            self._easy_since = None
            return self._down(now, cause)
        if not self._easy():
            self._easy_since = None
            return None
        if self._easy_since is None:
            self._easy_since = now
        return self._up(now) if now - self._easy_since >= self._patience else None

    @property
    def _p95(self) -> float | None:
        """By the nearest rank."""
        ordered = sorted(self._latencies)
        return ordered[math.ceil(0.95 * len(ordered)) - 1] if len(ordered) >= _ENOUGH else None

    @property
    def _share(self) -> float | None:
        return sum(self._cpu) / len(self._cpu) if len(self._cpu) == _CPU_SAMPLES else None

    def _over(self) -> Cause | None:
        latency, cpu, p95, share = self.budget.latency, self.budget.cpu, self._p95, self._share
        if latency is not None and p95 is not None and p95 > latency and self._late(latency) >= _LATE:
            return "latency"
        return "cpu" if cpu is not None and share is not None and share > cpu else None

    def _late(self, latency: float) -> int:
        return sum(value > latency for value in self._latencies)

    def _easy(self) -> bool:
        """Whether the next better level would be within the budget, by what is known."""
        if self.number == 0:
            return False
        latency, cpu, p95, share = self.budget.latency, self.budget.cpu, self._p95, self._share
        if latency is not None and (p95 is None or p95 > _EASY_LATENCY * latency):
            return False
        better = self.levels[self.number - 1]
        # Windows come more often by this; what another variant costs is not known, and taken to be twice as much.
        more = self.level.hop / better.hop if better.variant == self.level.variant else 2.0
        return cpu is None or (share is not None and share * more <= _EASY_CPU * cpu)

    def _down(self, now: float, cause: Cause) -> Decision | None:
        if self.number + 1 == len(self.levels):
            if self._told:
                return None
            self._told = True
            return self._decide(now, cause, self.number)
        if self._went_up_at is not None:
            too_early = now - self._went_up_at < _TRIAL
            self._patience = min(2 * self._patience, _MOST_PATIENCE) if too_early else _PATIENCE
            self._went_up_at = None
        return self._decide(now, cause, self.number + 1)

    def _up(self, now: float) -> Decision:
        self._went_up_at = now
        self._told = False
        return self._decide(now, "relief", self.number - 1)

    def _decide(self, now: float, cause: Cause, after: int) -> Decision:
        before, self.number = self.number, after
        decision = Decision(now, cause, self._p95, self._share, self.budget, before, after, self.level)
        self._easy_since = None
        if before != after:  # the new level is judged by its own windows
            self._latencies.clear()
            self._cpu.clear()
        return decision


class CpuMeter:
    """Measures the share of the machine's CPU that this process takes.

    Args:
        interval: Seconds from one sample to the next.
        clock: Seconds that pass.
        process: CPU seconds of this process, all threads.
        cpus: How many cores the machine has; None asks.
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
        self._cpus = cpus or os.cpu_count() or 1
        self._then, self._used = clock(), process()

    def sample(self) -> float | None:
        """The share since the last sample, 0 to 1; None until the interval is over."""
        now = self._clock()
        elapsed = now - self._then
        if elapsed < self._interval:
            return None
        used = self._process()
        share = (used - self._used) / (elapsed * self._cpus)
        self._then, self._used = now, used
        return share


def _round(value: float | None, factor: float = 1.0) -> float | None:
    return None if value is None else round(value * factor, 3)
