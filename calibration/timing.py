"""Time models in turns, so that what disturbs one of them disturbs the others as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge import contention
from vmp_edge.contention import OtherLoad
from vmp_edge.formatting import number, percent, quantity

Progress = Callable[..., Any]  # makes a progress bar, like `tqdm.tqdm`

ROUNDS = 30  # runs of each model, unless they take longer than the budget
LEAST_ROUNDS = 7  # of a claim, even of models that take longer
FEWEST_ROUNDS = 3  # of models so slow that `LEAST_ROUNDS` would take longer than `PATIENCE`
MOST_ROUNDS = 1000  # of models so fast that `ROUNDS` of them are over before the load can be measured
LEAST_SECONDS = 1.0  # for all rounds: the system counts the load in hundredths of a second
BUDGET = 10.0  # seconds for all rounds
PATIENCE = 60.0  # seconds for the least number of rounds
SPREAD = 0.1  # of a quiet measurement: the middle half is at most this share of the median wide


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Timing:
    """How long the runs of a model took that were timed in turns with other models.

    Attributes:
        seconds: Duration of each run, one in each round, float64 (rounds,).
        other_load: Share of the usable CPUs that other programs took meanwhile, 0 to 1; None if that is not known.
    """

    seconds: NDArray[np.float64]
    other_load: float | None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile, in seconds."""
        return _quartiles(self.seconds)

    @property
    def doubt(self) -> str | None:
        """Why the times are no claim, as a part of a sentence; None if the measurement was quiet."""
        return _doubt(self.quartiles, len(self.seconds), self.other_load, "times")

    def to_dict(self) -> dict[str, Any]:
        """Return the timing in the form that the command line prints, in milliseconds."""
        return {
            "rounds": len(self.seconds),
            "quartiles_ms": [round(1e3 * value, 3) for value in self.quartiles],
            "range_ms": [round(1e3 * float(self.seconds.min()), 3), round(1e3 * float(self.seconds.max()), 3)],
            "other_load": None if self.other_load is None else round(self.other_load, 3),
            "doubt": self.doubt,
        }


@dataclass(frozen=True)
class Speed:
    """How many times as fast as another model a model is, from the rounds in which both ran.

    Attributes:
        quartiles: Lower quartile, median and upper quartile of the rounds' ratios.
        rounds: Number of rounds.
        doubt: Why the ratio is no claim, as a part of a sentence; None if it is one.
    """

    quartiles: tuple[float, float, float]
    rounds: int
    doubt: str | None

    @classmethod
    def of(cls, subject: Timing, baseline: Timing, same_threads: bool = True) -> Speed:
        """Compare two models that were timed in turns.

        Args:
            subject: The model that is judged.
            baseline: The model that it is compared with.
            same_threads: Whether both certainly had the same number of threads.
        """
        quartiles = _quartiles(baseline.seconds / subject.seconds)
        doubt = _doubt(quartiles, len(subject.seconds), subject.other_load, "ratios")
        if doubt is None and not same_threads:
            doubt = "measured with numbers of threads that may differ; not a claim: give both the same with --threads"
        return cls(quartiles, len(subject.seconds), doubt)

    @property
    def claim(self) -> str | None:
        """The comparison in words that follow "is"; None if there is doubt."""
        low, middle, high = self.quartiles
        if self.doubt is not None:
            return None
        return "about as fast" if low <= 1 <= high else f"{number(middle)} times as fast"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in the form that the command line prints."""
        quartiles = [round(value, 3) for value in self.quartiles]
        return {"rounds": self.rounds, "quartiles": quartiles, "doubt": self.doubt}


def in_turns(
    runs: Sequence[Callable[[], object]],
    rounds: int = ROUNDS,
    budget: float = BUDGET,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    load: Callable[[], OtherLoad] = OtherLoad,
) -> list[Timing]:
    """Time functions in turns: each runs once in every round, in the reverse order in every second one.

    Args:
        runs: The functions. Each runs once more before the rounds, untimed.
        rounds: Number of rounds, at least 1. If they take less than `LEAST_SECONDS`, there are more.
        budget: Seconds after which no new round begins, if there have been `LEAST_ROUNDS`; of very slow models
            `FEWEST_ROUNDS` are enough.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.
        clock: Gives seconds.
        load: Starts to measure the load of other programs.
    """
    bar = progress(total=rounds, desc="speed", unit="round") if progress else None
    for run in runs:
        run()
    seconds: list[list[float]] = [[] for _ in runs]
    others, begin = load(), clock()
    for done in range(MOST_ROUNDS):
        if _is_enough(done, clock() - begin, rounds, budget):
            break
        order = range(len(runs))
        for i in reversed(order) if done % 2 else order:
            start = clock()
            runs[i]()
            seconds[i].append(clock() - start)
        if bar is not None and done < rounds:
            bar.update(1)
    share = others.share()
    if bar is not None:
        bar.close()
    return [Timing(np.array(values), share) for values in seconds]


def _is_enough(done: int, passed: float, rounds: int, budget: float) -> bool:
    if done >= rounds:
        return passed >= LEAST_SECONDS
    least = FEWEST_ROUNDS if passed > max(budget, PATIENCE) else LEAST_ROUNDS
    return done >= least and passed > budget


def _quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
    return low, middle, high


def _doubt(quartiles: tuple[float, float, float], rounds: int, other_load: float | None, what: str) -> str | None:
    low, middle, high = quartiles
    if (text := contention.doubt(other_load)) is not None:
        return text
    if rounds < LEAST_ROUNDS:
        return f"measured in {quantity(rounds, 'round')}, which are few; not a claim"
    if not high - low <= SPREAD * middle:
        width = percent((high - low) / middle)
        return f"measured unevenly; not a claim: the middle half of the {what} spans {width} of the median"
    return None
