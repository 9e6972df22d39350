"""`Governor`: keeps a stream within a budget of latency and CPU by changing how much the stream recognises.

The governor takes measurements and returns decisions. It has no clock and changes nothing itself: the stream carries
the decisions out. docs/adaptive.md explains the rules.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UsageError
from .cpu_meter import CpuMeter as CpuMeter  # it was defined here once

Cause = Literal["latency", "cpu", "relief"]

_RECENT = 32  # windows that the 95th percentile is taken over
_MIN_WINDOWS = 4  # windows at a level before the level is judged
_MIN_LATE = 2  # windows over the budget before the governor acts: a single late window is an accident
_CPU_SAMPLES = 2
_EASY_LATENCY, _EASY_CPU = 0.75, 0.9  # shares of the budget that count as "well under"; the CPU's is for one level up
_PATIENCE, _MAX_PATIENCE = 5.0, 300.0  # seconds well under the budget before the governor goes up
_TRIAL = 10.0  # seconds within which going down again shows that going up was too early


@dataclass(frozen=True)
class Budget:
    """The latency and the CPU that a stream may use.

    Args:
        latency: Seconds from picking a window to its result, in 95 of 100 windows. None allows any latency.
        cpu: Share of the machine's CPU that the process may take, 0 to 1; all cores together are 1. None allows any.

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
    """A level of a governor: one way to run a stream.

    Args:
        hop: Frames from one window to the next.
        slower: Factor by which a window's frames are further apart than the stream's options say.
        variant: Name of the bundle's variant that recognises. None is the bundle itself.
    """

    hop: int
    slower: int = 1
    variant: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the level as plain values, for JSON."""
        return {"hop": self.hop, "slower": self.slower, "variant": self.variant}

    def __str__(self) -> str:
        text = f"every {self.hop} frames" if self.hop > 1 else "every frame"
        text += f", frames {self.slower} times as far apart" if self.slower > 1 else ""
        return text + (f", variant {self.variant}" if self.variant is not None else "")


def ladder(hop: int, variants: Sequence[str | None] = (None,)) -> tuple[Level, ...]:
    """Return the usual levels, from the best to the cheapest.

    The variants come first, because they make each window cheaper. Then come longer hops, which make windows rarer. The
    spacing of a window's frames is changed last, because the model learnt motion at one frame rate.

    Args:
        hop: Hop of the best level.
        variants: Names of variants, from the best to the cheapest. None is the bundle itself.
    """
    cheapest = variants[-1]
    rarer = (Level(2 * hop, 1, cheapest), Level(4 * hop, 1, cheapest), Level(4 * hop, 2, cheapest))
    return (*(Level(hop, 1, variant) for variant in variants), *rarer)


def worthwhile(variants: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the variants that are worth their cost, from the dearest to the cheapest.

    A variant is left out if a cheaper variant recognises as much or more.

    Args:
        variants: The manifest's facts about each variant, from the dearest to the cheapest. `top1` is the measured
            accuracy; a variant without it stays.
    """
    names, best = [], 0.0
    for name, facts in reversed(list(variants.items())):
        top1 = facts.get("top1")
        if isinstance(top1, (int, float)) and top1 <= best:
            continue
        best = best if top1 is None else float(top1)
        names.append(name)
    return names[::-1]


@dataclass(frozen=True)
class Decision:
    """A decision of the governor, and its reason.

    Args:
        time: Seconds, by the clock of the measurements.
        cause: `latency` or `cpu` if the stream was over that budget; `relief` if it was well under.
        latency: The 95th percentile in seconds over the recent windows. None if there were too few windows.
        cpu: The share of the CPU, 0 to 1. None if it was not measured.
        budget: The budget that the measurements were compared with.
        before: Number of the level until now; 0 is the best.
        after: Number of the level from now on. It equals `before` if there is no cheaper level left.
        level: The level from now on.
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
        """Return the decision as plain values, for JSON: latencies in milliseconds, CPU as shares of 1."""
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
        outcome = f"level {self.before} to {self.after}: {self.level}"
        if self.before == self.after:
            outcome = f"level {self.after} is the cheapest there is: {self.level}"
        return f"governor: {', '.join(measured)}; {outcome}"


class Governor:
    """Chooses the level that keeps a stream within its budget.

    It goes one level down as soon as two recent windows and their 95th percentile are over the budget of latency, or
    two samples of the CPU are over its budget on average. Each level gets a few windows before it is judged. It goes
    one level up when the stream was well under the budget for some seconds. If that proves too early, the next try
    waits twice as long.

    Args:
        budget: The budget to keep within.
        levels: The levels from the best to the cheapest; `ladder` makes the usual levels.

    Raises:
        UsageError: There is no level.
    """

    def __init__(self, budget: Budget, levels: Sequence[Level]) -> None:
        if not levels:
            raise UsageError("a governor needs at least one level")
        self.budget = budget
        self.levels = tuple(levels)
        self.number = 0  # number of the present level
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._cpu: deque[float] = deque(maxlen=_CPU_SAMPLES)
        self._easy_since: float | None = None
        self._went_up_at: float | None = None
        self._patience = _PATIENCE
        self._reported = False  # a decision has said that there is no cheaper level

    @property
    def level(self) -> Level:
        """The present level."""
        return self.levels[self.number]

    def update(self, now: float, latency: float | None = None, cpu: float | None = None) -> Decision | None:
        """Take measurements, and decide.

        Args:
            now: Seconds, on any clock that does not run backwards.
            latency: Seconds that the newest window took, or None if no window was recognised.
            cpu: The process's share of the machine's CPU since the last sample, 0 to 1. None if there is no new sample.

        Returns:
            The decision, or None if there is nothing to decide. `level` is the new level by then.
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
        """The 95th percentile of the recent latencies, by the nearest rank."""
        ordered = sorted(self._latencies)
        return ordered[math.ceil(0.95 * len(ordered)) - 1] if len(ordered) >= _MIN_WINDOWS else None

    @property
    def _share(self) -> float | None:
        return sum(self._cpu) / len(self._cpu) if len(self._cpu) == _CPU_SAMPLES else None

    def _over(self) -> Cause | None:
        latency, cpu, p95, share = self.budget.latency, self.budget.cpu, self._p95, self._share
        if latency is not None and p95 is not None and p95 > latency and self._late(latency) >= _MIN_LATE:
            return "latency"
        return "cpu" if cpu is not None and share is not None and share > cpu else None

    def _late(self, latency: float) -> int:
        return sum(value > latency for value in self._latencies)

    def _easy(self) -> bool:
        """Return whether the next better level would be within the budget, as far as that is known."""
        if self.number == 0:
            return False
        latency, cpu, p95, share = self.budget.latency, self.budget.cpu, self._p95, self._share
        if latency is not None and (p95 is None or p95 > _EASY_LATENCY * latency):
            return False
        better = self.levels[self.number - 1]
        # Factor by which the CPU's share grows one level up. The cost of another variant is unknown; twice is assumed.
        growth = self.level.hop / better.hop if better.variant == self.level.variant else 2.0
        return cpu is None or (share is not None and share * growth <= _EASY_CPU * cpu)

    def _down(self, now: float, cause: Cause) -> Decision | None:
        if self.number + 1 == len(self.levels):
            if self._reported:
                return None
            self._reported = True
            return self._decide(now, cause, self.number)
        if self._went_up_at is not None:
            too_early = now - self._went_up_at < _TRIAL
            self._patience = min(2 * self._patience, _MAX_PATIENCE) if too_early else _PATIENCE
            self._went_up_at = None
        return self._decide(now, cause, self.number + 1)

    def _up(self, now: float) -> Decision:
        self._went_up_at = now
        self._reported = False
        return self._decide(now, "relief", self.number - 1)

    def _decide(self, now: float, cause: Cause, after: int) -> Decision:
        before, self.number = self.number, after
        decision = Decision(now, cause, self._p95, self._share, self.budget, before, after, self.level)
        self._easy_since = None
        if before != after:  # the new level is judged by its own windows
            self._latencies.clear()
            self._cpu.clear()
        return decision


def _round(value: float | None, factor: float = 1.0) -> float | None:
    return None if value is None else round(value * factor, 3)
