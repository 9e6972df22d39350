"""The results of measuring: how well a model recognises labelled videos, and how two models compare."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError

from .clipset import Entry
from .decoding import Skipped
from .timing import Speed, Timing

TOP = 5  # of "top-5"
MOST_SHOWN = 30  # classes for which a confusion matrix can be read
_PLACES = 4  # decimals of shares in JSON
_DEVIATIONS = 1.959964  # of a normal distribution, on both sides of the mean: they hold 95%


@dataclass(frozen=True, eq=False)  # comparing arrays does not give one truth value
class Evaluation:
    """The results of a model on a clip set.

    Attributes:
        name: The model's name.
        labels: The model's classes.
        entries: The N videos that could be used.
        scores: Softmax, the mean over a video's clips, float32 (N, classes).
        seconds: Duration of every run of the model; each run takes one clip. Other processes decode meanwhile.
        skipped: The videos that could not be used.
        facts: Further facts about the model, see `Subject`.
        timing: How long the model takes while nothing is decoded, in turns with the others; None if it was not timed.
        labelled: Whether the videos' labels are true. If not, they are what another model recognises, with which this
            one is compared: shares of them are agreement and say nothing about accuracy.
        damaged: The videos that were used although a part of them cannot be decoded, and what is wrong with them.
        stream: The results of the same model on the windows that a stream sees of the videos, if they were measured.
            Its `skipped` are those of the videos that are too short or too slow for a window.
    """

    name: str
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    scores: NDArray[np.float32]
    seconds: NDArray[np.float64]
    skipped: tuple[Skipped, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    timing: Timing | None = None
    labelled: bool = True
    damaged: tuple[Skipped, ...] = ()
    stream: Evaluation | None = None

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Index of each video's label, (N,)."""
        index = {label: i for i, label in enumerate(self.labels)}
        return np.array([index[str(entry.label)] for entry in self.entries], np.int64)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """Index of the label with each video's highest score, (N,)."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """True for each video that was recognised, (N,)."""
        return np.asarray(self.predictions == self.truth)

    @property
    def top1(self) -> float:
        """Share of the videos whose label has the highest score; 0 if there are no videos."""
        return _share(self.correct)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of top-1, see `wilson`. It takes the videos as independent of each other."""
        return wilson(int(self.correct.sum()), len(self.entries))

    @property
    def chance(self) -> float:
        """Top-1 of guessing among all classes."""
        return 1 / len(self.labels)

    @property
    def majority(self) -> tuple[str, float] | None:
        """The most frequent label, and top-1 of always giving it; None if there are no videos."""
        counts = Counter(str(entry.label) for entry in self.entries)
        if not counts:
            return None
        label = max(sorted(counts), key=lambda name: counts[name])
        return label, counts[label] / len(self.entries)

    @property
    def groups(self) -> int:
        """Number of groups that the videos belong to, scenes or people for example; 0 if they belong to none."""
        return len({entry.group for entry in self.entries if entry.group is not None})

    @property
    def top5(self) -> float | None:
        """Share of the videos whose label is among the five highest; None if there are five classes or fewer."""
        if len(self.labels) <= TOP:
            return None
        best = np.argsort(-self.scores, axis=1, kind="stable")[:, :TOP]
        return _share((best == self.truth[:, None]).any(1))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Number of videos by true (rows) and recognised (columns) label."""
        return confusion(self.truth, self.predictions, len(self.labels))

    @property
    def milliseconds(self) -> dict[str, float]:
        """Median and 95th percentile of a run's duration; 0 if there was no run."""
        seconds = self.seconds if self.timing is None else self.timing.seconds
        p50, p95 = np.percentile(seconds, (50, 95)) * 1e3 if len(seconds) else (0.0, 0.0)
        return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}

    def by_label(self) -> dict[str, dict[str, Any]]:
        """Count each label that occurs.

        Returns:
            By label: ``clips``, the number of its videos; ``recall``, the share of these that was recognised;
            ``precision``, the share of the videos recognised as this label that show it, None if there are none.
        """
        table = self.confusion
        rows: dict[str, dict[str, Any]] = {}
        for i, label in enumerate(self.labels):
            count, predicted = int(table[i].sum()), int(table[:, i].sum())
            if count:
                precision = round(table[i, i] / predicted, _PLACES) if predicted else None
                rows[label] = {"clips": count, "recall": round(table[i, i] / count, _PLACES), "precision": precision}
        return rows

    def occurring(self) -> list[int]:
        """Return the indices of the classes that occur, as a video's label or as what was recognised."""
        return [int(i) for i in np.flatnonzero(self.confusion.sum(0) + self.confusion.sum(1))]

    def confused(self, count: int) -> list[tuple[str, str, int, int]]:
        """Return the most frequent mistakes, the most frequent first.

        Args:
            count: Largest number of mistakes to return.

        Returns:
            For each, the true label, the recognised one, how often it was made, and the number of the label's videos.
        """
        mistakes = self.confusion.copy()
        np.fill_diagonal(mistakes, 0)
        places = sorted(np.argwhere(mistakes).tolist(), key=lambda place: -mistakes[place[0], place[1]])
        totals = self.confusion.sum(1)
        return [
            (self.labels[true], self.labels[wrong], int(mistakes[true, wrong]), int(totals[true]))
            for true, wrong in places[:count]
        ]

    def by_fold(self) -> dict[int, float]:
        """Return each fold's top-1; empty if there are no folds."""
        folds = np.array([-1 if entry.fold is None else entry.fold for entry in self.entries])
        return {int(fold): float(self.correct[folds == fold].mean()) for fold in np.unique(folds) if fold >= 0}

    def worst(self, count: int) -> list[int]:
        """Return the numbers of the videos whose own label got the lowest scores, lowest first."""
        own = self.scores[np.arange(len(self.entries)), self.truth]
        return [int(i) for i in np.argsort(own, kind="stable")[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return all results in the form that the command line prints; without true labels, none about accuracy."""
        return {
            "bundle": self.name,
            **self.facts,
            "clips": len(self.entries),
            "labelled": self.labelled,
            **(self._accuracy() if self.labelled else {}),
            "engine_ms": self.milliseconds,
            "timing": None if self.timing is None else self.timing.to_dict(),
            "skipped": [{"path": str(video.path), "reason": video.reason} for video in self.skipped],
            "damaged": [{"path": str(video.path), "reason": video.reason} for video in self.damaged],
            **({} if self.stream is None else {"stream": self.stream.as_stream()}),
        }

    def as_stream(self) -> dict[str, Any]:
        """Return the results on a stream's windows in the form that the command line prints."""
        return {
            "clips": len(self.entries),
            "top1": round(self.top1, _PLACES),
            "top1_interval": [round(share, _PLACES) for share in self.interval],
            "skipped": [{"path": str(video.path), "reason": video.reason} for video in self.skipped],
        }

    def _accuracy(self) -> dict[str, Any]:
        folds, majority = self.by_fold(), self.majority
        shown = self.occurring() if len(self.labels) > MOST_SHOWN else list(range(len(self.labels)))
        values: dict[str, Any] = {
            "top1": round(self.top1, _PLACES),
            "top1_interval": [round(share, _PLACES) for share in self.interval],
            "top5": None if self.top5 is None else round(self.top5, _PLACES),
            "chance": round(self.chance, _PLACES),
            "majority": None if majority is None else {"label": majority[0], "top1": round(majority[1], _PLACES)},
            "groups": self.groups,
            "by_label": self.by_label(),
            "confusion": {
                "labels": [self.labels[i] for i in shown],
                "counts": self.confusion[np.ix_(shown, shown)].tolist(),
            },
        }
        if folds:
            values["folds"] = {str(fold): round(value, _PLACES) for fold, value in folds.items()}
            values["folds_mean"] = round(float(np.mean(list(folds.values()))), _PLACES)
        return values


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same videos.

    Attributes:
        subject: The evaluation of the model that is judged.
        baseline: The evaluation of the model that it is compared with.
    """

    subject: Evaluation
    baseline: Evaluation

    @property
    def agreement(self) -> float:
        """Share of the videos that both models recognise as the same label, right or wrong; 0 if there are none."""
        return _share(self.subject.predictions == self.baseline.predictions)

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the agreement, see `wilson`."""
        return wilson(len(self.subject.entries) - len(self.differing), len(self.subject.entries))

    @property
    def drop(self) -> float:
        """Points of top-1 (0 to 100) by which the subject is below the baseline; negative if it is above."""
        return 100 * (self.baseline.top1 - self.subject.top1)

    @property
    def differing(self) -> list[int]:
        """Numbers of the videos that the models recognise as different labels."""
        return [int(i) for i in np.flatnonzero(self.subject.predictions != self.baseline.predictions)]

    @property
    def speed(self) -> Speed | None:
        """How many times as fast as the baseline the subject is; None if they were not timed."""
        subject, baseline = self.subject, self.baseline
        if subject.timing is None or baseline.timing is None:
            return None
        threads = subject.facts.get("threads")
        same = threads == baseline.facts.get("threads")
        if threads is None:  # each engine has a default of its own
            same = same and subject.facts.get("engine") == baseline.facts.get("engine")
        return Speed.of(subject.timing, baseline.timing, same)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in the form that the command line prints."""
        subject, baseline, speed = self.subject, self.baseline, self.speed
        return {
            "bundle": baseline.name,
            **baseline.facts,
            **({"top1": round(baseline.top1, _PLACES), "drop_points": round(self.drop, 2)} if subject.labelled else {}),
            "agreement": round(self.agreement, _PLACES),
            "agreement_interval": [round(share, _PLACES) for share in self.agreement_interval],
            "speed": None if speed is None else round(speed.quartiles[1], 3),
            "speed_measured": None if speed is None else speed.to_dict(),
            "engine_ms": baseline.milliseconds,
            "timing": None if baseline.timing is None else baseline.timing.to_dict(),
            "largest_score_difference": round(
                float(np.abs(subject.scores - baseline.scores).max(initial=0.0)), _PLACES
            ),
            "differing": [
                {
                    "path": str(subject.entries[i].path),
                    "label": subject.entries[i].label if subject.labelled else None,
                    "recognised": subject.labels[subject.predictions[i]],
                    "baseline": baseline.labels[baseline.predictions[i]],
                }
                for i in self.differing
            ],
        }


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95% confidence interval of a share, 0 to 1.

    Args:
        right: Number of the cases that are counted.
        count: Number of all cases. Without any, nothing is known: the interval is 0 to 1.
    """
    if not count:
        return 0.0, 1.0
    share, weight = right / count, _DEVIATIONS**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    low, high = (0.0 if right == 0 else middle - half), (1.0 if right == count else middle + half)
    return max(0.0, low), min(1.0, high)


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else 0.0


def confusion(truth: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count clips by true (rows) and recognised (columns) class, (classes, classes), from class indices (N,)."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, predictions), 1)
    return table


def merge(parts: Iterable[Evaluation], name: str) -> Evaluation:
    """Merge the evaluations of several folds: each fold's videos, recognised by the fold's own model.

    The facts and the timing are the first fold's.

    Args:
        parts: One evaluation for each fold.
        name: The merged evaluation's name.

    Raises:
        UsageError: The models have different labels.
    """
    evaluations = list(parts)
    first = evaluations[0]
    if any(part.labels != first.labels for part in evaluations):
        raise UsageError(f"the models of {name} have different labels")
    streams = [part.stream for part in evaluations if part.stream is not None]
    return Evaluation(
        name,
        first.labels,
        tuple(entry for part in evaluations for entry in part.entries),
        np.concatenate([part.scores for part in evaluations]),
        np.concatenate([part.seconds for part in evaluations]),
        tuple(video for part in evaluations for video in part.skipped),
        first.facts,
        first.timing,
        first.labelled,
        tuple(video for part in evaluations for video in part.damaged),
        merge(streams, name) if len(streams) == len(evaluations) else None,
    )
