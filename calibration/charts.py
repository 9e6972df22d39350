"""What the charts and tables of a report show: the selection where there is too much to look at.

The charts themselves are HTML, drawn by the template. So they fit any screen and every script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmp_edge.formatting import milliseconds, number, percent, size

from .evaluation import MOST_SHOWN, Evaluation

WORST = 20  # rows of a chart of which only the worst are shown


@dataclass(frozen=True)
class Bar:
    """A row of a chart.

    Attributes:
        name: The row's name.
        note: What follows the name in faint letters.
        values: For each model, the bar's length, 0 to 1, and its number as a text.
    """

    name: str
    note: str
    values: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Bars:
    """A chart of bars.

    Attributes:
        rows: The rows.
        total: Number of the rows that there would be if all were shown.
    """

    rows: tuple[Bar, ...]
    total: int


def by_label(models: Sequence[Evaluation]) -> Bars:
    """Return how much of each label the models recognise; of too many labels, those that the first knows worst.

    Args:
        models: The evaluations of one or two models on the same videos.
    """
    tables = [model.by_label() for model in models]
    labels = list(tables[0])
    shown = labels
    if len(labels) > MOST_SHOWN:
        shown = sorted(labels, key=lambda label: (tables[0][label]["recall"], -tables[0][label]["clips"]))[:WORST]
    rows = [
        Bar(
            label,
            f"{tables[0][label]['clips']:,}",
            tuple((float(table[label]["recall"]), percent(table[label]["recall"])) for table in tables),
        )
        for label in shown
    ]
    return Bars(tuple(rows), len(labels))


def layers(ratios: Mapping[str, float]) -> Bars:
    """Return the layers with the lowest signal-to-noise ratios, the lowest first.

    Args:
        ratios: Decibels by the layer's name.
    """
    worst = sorted(ratios, key=lambda name: ratios[name])[:WORST]
    longest = max((ratios[name] for name in worst), default=0.0)
    rows = [
        Bar(name, "", ((max(0.0, ratios[name]) / longest if longest > 0 else 0.0, decibels(ratios[name])),))
        for name in worst
    ]
    return Bars(tuple(rows), len(ratios))


def decibels(value: float) -> str:
    """Return a signal-to-noise ratio with its unit."""
    return f"{value:.1f} dB" if np.isfinite(value) else "unknown"


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of the classes that occur, or the most frequent mistakes where these are too many.

    Attributes:
        labels: Names of the matrix's rows and columns; empty if the mistakes are shown.
        rows: For each true label, the count and the share of the label's videos by recognised label.
        mistakes: True label, recognised label, count, and number of the true label's videos.
        classes: Number of the classes that occur.
    """

    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[int, float], ...], ...]
    mistakes: tuple[tuple[str, str, int, int], ...]
    classes: int


def confusion(evaluation: Evaluation) -> Confusion | None:
    """Return what the report shows of mistakes; None if only one class occurs."""
    occurring = evaluation.occurring()
    if len(occurring) < 2:
        return None
    if len(occurring) > MOST_SHOWN:
        return Confusion((), (), tuple(evaluation.confused(WORST)), len(occurring))
    table = evaluation.confusion[np.ix_(occurring, occurring)]
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    rows = tuple(
        tuple((int(count), float(share)) for count, share in zip(*pair, strict=True))
        for pair in zip(table, shares, strict=True)
    )
    return Confusion(tuple(evaluation.labels[i] for i in occurring), rows, (), len(occurring))


def performance(names: Sequence[str], models: Sequence[Evaluation]) -> list[list[str]]:
    """Return a table of the models' sizes and speeds, the first row its head; columns that nobody fills are left out.

    Args:
        names: The models' names.
        models: Their evaluations.
    """
    rows = [["", *names]]
    facts = [model.facts for model in models]
    if any("bytes" in fact for fact in facts):
        rows.append(["size of all files", *(size(fact["bytes"]) if "bytes" in fact else "" for fact in facts)])
    if any("threads" in fact for fact in facts):
        rows.append(["threads", *(_threads(fact) for fact in facts)])
    timings = [model.timing for model in models]
    if any(timings):
        spans: dict[str, list[str]] = {"a clip, median": [], "middle half of the runs": [], "fastest and slowest": []}
        for timing in timings:
            low, middle, high = timing.quartiles if timing else (np.nan,) * 3
            whole = (timing.seconds.min(), timing.seconds.max()) if timing else (np.nan,) * 2
            spans["a clip, median"].append(milliseconds(1e3 * middle))
            spans["middle half of the runs"].append(span(low, high))
            spans["fastest and slowest"].append(span(*whole))
        rows += [[name, *values] for name, values in spans.items()]
    return rows if len(rows) > 1 else []


def span(low: float, high: float) -> str:
    """Return a range of durations, given in seconds: `12.1 to 12.9 ms`."""
    first, second = milliseconds(1e3 * low), milliseconds(1e3 * high)
    same_unit = first.split()[-1] == second.split()[-1]
    return f"{first.split()[0] if same_unit else first} to {second}"


def ratio(quartiles: tuple[float, float, float]) -> str:
    """Return a ratio with its middle half: `1.32 (1.29 to 1.35)`."""
    low, middle, high = map(number, quartiles)
    return f"{middle} ({low} to {high})"


def _threads(facts: Mapping[str, Any]) -> str:
    threads = facts.get("threads")
    return "the engine's default" if threads is None else str(threads)
