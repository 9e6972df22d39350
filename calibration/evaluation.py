"""The results of measuring: how well a model recognises labelled videos, and how two models compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError

from .clipset import Entry
from .decoding import Skipped

TOP = 5  # of "top-5"
_PLACES = 4  # decimals of shares in JSON


@dataclass(frozen=True, eq=False)  # comparing arrays does not give one truth value
class Evaluation:
    """The results of a model on a clip set.

    Attributes:
        name: The model's name.
        labels: The model's classes.
        entries: The N videos that could be used.
        scores: Softmax, the mean over a video's clips, float32 (N, classes).
        seconds: Duration of every run of the model; each run takes one clip.
        skipped: The videos that could not be used.
        facts: Further facts about the model, see `Subject`.
        damaged: The videos that were used although a part of them cannot be decoded, and what is wrong with them.
    """

    name: str
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    scores: NDArray[np.float32]
    seconds: NDArray[np.float64]
    skipped: tuple[Skipped, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    damaged: tuple[Skipped, ...] = ()

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
        """Share of the videos whose label has the highest score."""
        return float(self.correct.mean())

    @property
    def top5(self) -> float | None:
        """Share of the videos whose label is among the five highest; None if there are five classes or fewer."""
        if len(self.labels) <= TOP:
            return None
        best = np.argsort(-self.scores, axis=1, kind="stable")[:, :TOP]
        return float((best == self.truth[:, None]).any(1).mean())

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Number of videos by true (rows) and recognised (columns) label."""
        return confusion(self.truth, self.predictions, len(self.labels))

    @property
    def milliseconds(self) -> dict[str, float]:
        """Median and 95th percentile of a run's duration."""
        p50, p95 = np.percentile(self.seconds, (50, 95)) * 1e3
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

    def by_fold(self) -> dict[int, float]:
        """Return each fold's top-1; empty if there are no folds."""
        folds = np.array([-1 if entry.fold is None else entry.fold for entry in self.entries])
        return {int(fold): float(self.correct[folds == fold].mean()) for fold in np.unique(folds) if fold >= 0}

    def worst(self, count: int) -> list[int]:
        """Return the numbers of the videos whose own label got the lowest scores, lowest first."""
        own = self.scores[np.arange(len(self.entries)), self.truth]
        return [int(i) for i in np.argsort(own, kind="stable")[:count]]

    def to_dict(self) -> dict[str, Any]:
        """Return all results in the form that the command line prints."""
        folds = self.by_fold()
        values: dict[str, Any] = {
            "bundle": self.name,
            **self.facts,
            "clips": len(self.entries),
            "top1": round(self.top1, _PLACES),
            "top5": None if self.top5 is None else round(self.top5, _PLACES),
            "by_label": self.by_label(),
            "confusion": {"labels": list(self.labels), "counts": self.confusion.tolist()},
            "engine_ms": self.milliseconds,
            "skipped": [{"path": str(video.path), "reason": video.reason} for video in self.skipped],
            "damaged": [{"path": str(video.path), "reason": video.reason} for video in self.damaged],
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
        """Share of the videos that both models recognise as the same label, right or wrong."""
        return float((self.subject.predictions == self.baseline.predictions).mean())

    @property
    def drop(self) -> float:
        """Points of top-1 (0 to 100) by which the subject is below the baseline; negative if it is above."""
        return 100 * (self.baseline.top1 - self.subject.top1)

    @property
    def differing(self) -> list[int]:
        """Numbers of the videos that the models recognise as different labels."""
        return [int(i) for i in np.flatnonzero(self.subject.predictions != self.baseline.predictions)]

    @property
    def speed(self) -> float:
        """Speed of the subject over that of the baseline, by medians; both ran in turns on the same clips."""
        return float(np.median(self.baseline.seconds) / np.median(self.subject.seconds))

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison in the form that the command line prints."""
        subject, baseline = self.subject, self.baseline
        return {
            "bundle": baseline.name,
            **baseline.facts,
            "top1": round(baseline.top1, _PLACES),
            "drop_points": round(self.drop, 2),
            "agreement": round(self.agreement, _PLACES),
            "speed": round(self.speed, 3),
            "engine_ms": baseline.milliseconds,
            "largest_score_difference": round(float(np.abs(subject.scores - baseline.scores).max()), _PLACES),
            "differing": [
                {
                    "path": str(subject.entries[i].path),
                    "label": subject.entries[i].label,
                    "recognised": subject.labels[subject.predictions[i]],
                    "baseline": baseline.labels[baseline.predictions[i]],
                }
                for i in self.differing
            ],
        }


def confusion(truth: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count clips by true (rows) and recognised (columns) class, (classes, classes), from class indices (N,)."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, predictions), 1)
    return table


def merge(parts: Iterable[Evaluation], name: str) -> Evaluation:
    """Merge the evaluations of several folds: each fold's videos, recognised by the fold's own model.

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
    return Evaluation(
        name,
        first.labels,
        tuple(entry for part in evaluations for entry in part.entries),
        np.concatenate([part.scores for part in evaluations]),
        np.concatenate([part.seconds for part in evaluations]),
        tuple(video for part in evaluations for video in part.skipped),
        first.facts,
        tuple(video for part in evaluations for video in part.damaged),
    )
