"""How well a model recognises labelled videos, and how far two models agree."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.recognizer import Recognizer, load, softmax

from .clipset import ClipSet, ClipSetError, Entry
from .decoding import Input, Prepare, Progress, Sampling, Skipped, Video, explained, in_workers

TOP = 5  # of "top-5"
FOLD = "{fold}"  # in the path of a bundle, stands for the fold's number
_PLACES = 4  # decimals of shares in JSON


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        name: for messages and tables.
        labels: one per class, in the order of the logits.
        input: what it takes.
        run: float32 (1, 3, T, S, S) to logits, float32 (1, classes); features may follow them.
        facts: what else is known of it: ``engine``, ``precision``, ``bytes``.
    """

    name: str
    labels: tuple[str, ...]
    input: Input
    run: Callable[[Video], NDArray[np.float32]]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, recognizer: Recognizer) -> Subject:
        """A loaded bundle, of any engine."""
        manifest = recognizer.manifest
        facts = {
            "model": manifest.name,
            "target": manifest.target,
            "engine": manifest.engine,
            "precision": manifest.precision,
            "bytes": sum(entry.size for entry in manifest.files.values()),
        }
        name = str(recognizer.bundle.path)
        return cls(name, manifest.labels, Input.of(manifest), recognizer.predict_video, facts)


@dataclass(frozen=True, eq=False)  # arrays don't compare to one truth
class Evaluation:
    """What a model made of a clip set.

    Attributes:
        name: the model's.
        labels: its classes.
        entries: the N videos that could be used.
        scores: float32 (N, classes), softmax, the mean over a video's clips.
        seconds: of every run of the model, one clip each.
        skipped: the videos that could not be used.
        facts: what is known of the model.
    """

    name: str
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    scores: NDArray[np.float32]
    seconds: NDArray[np.float64]
    skipped: tuple[Skipped, ...] = ()
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def truth(self) -> NDArray[np.int64]:
        """Index of each video's label, (N,)."""
        place = {label: i for i, label in enumerate(self.labels)}
        return np.array([place[str(entry.label)] for entry in self.entries], np.int64)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """Index of the label with each video's highest score, (N,)."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each video was recognised, (N,)."""
        return np.asarray(self.predictions == self.truth)

    @property
    def top1(self) -> float:
        """Share of the videos whose label has the highest score."""
        return float(self.correct.mean())

    @property
    def top5(self) -> float | None:
        """Share of the videos whose label is among the five highest; None where five or fewer classes say nothing."""
        if len(self.labels) <= TOP:
            return None
        best = np.argsort(-self.scores, axis=1, kind="stable")[:, :TOP]
        return float((best == self.truth[:, None]).any(1).mean())

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Videos by true (rows) and recognised (columns) label."""
        return confusion(self.truth, self.predictions, len(self.labels))

    @property
    def milliseconds(self) -> dict[str, float]:
        """Median and 95th percentile of a run."""
        p50, p95 = np.percentile(self.seconds, (50, 95)) * 1e3
        return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}

    def by_label(self) -> dict[str, dict[str, Any]]:
        """Videos of each label that occurs, the share recognised, and the share of what was taken for it that was."""
        table = self.confusion
        found: dict[str, dict[str, Any]] = {}
        for i, label in enumerate(self.labels):
            count, taken = int(table[i].sum()), int(table[:, i].sum())
            if count:
                precision = round(table[i, i] / taken, _PLACES) if taken else None
                found[label] = {"clips": count, "recall": round(table[i, i] / count, _PLACES), "precision": precision}
        return found

    def by_fold(self) -> dict[int, float]:
        """Top-1 of each fold; empty without folds."""
        folds = np.array([-1 if entry.fold is None else entry.fold for entry in self.entries])
        return {int(fold): float(self.correct[folds == fold].mean()) for fold in np.unique(folds) if fold >= 0}

    def worst(self, count: int) -> list[int]:
        """Numbers of the videos whose own label got the lowest scores, lowest first."""
        own = self.scores[np.arange(len(self.entries)), self.truth]
        return [int(i) for i in np.argsort(own, kind="stable")[:count]]

    def to_dict(self) -> dict[str, Any]:
        """All of it as the command line prints it."""
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
            "skipped": [{"path": str(one.path), "reason": one.reason} for one in self.skipped],
        }
        if folds:
            values["folds"] = {str(fold): round(value, _PLACES) for fold, value in folds.items()}
            values["folds_mean"] = round(float(np.mean(list(folds.values()))), _PLACES)
        return values


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same videos.

    Attributes:
        subject: what is judged.
        baseline: what it is compared with.
    """

    subject: Evaluation
    baseline: Evaluation

    @property
    def agreement(self) -> float:
        """Share of the videos that both take for the same, right or wrong."""
        return float((self.subject.predictions == self.baseline.predictions).mean())

    @property
    def drop(self) -> float:
        """Points of top-1 (0 to 100) that the subject has less; negative if it has more."""
        return 100 * (self.baseline.top1 - self.subject.top1)

    @property
    def differing(self) -> list[int]:
        """Numbers of the videos that they take for different things."""
        return [int(i) for i in np.flatnonzero(self.subject.predictions != self.baseline.predictions)]

    @property
    def speed(self) -> float:
        """How many times as fast the subject is, by medians; both ran in turns on the same clips."""
        return float(np.median(self.baseline.seconds) / np.median(self.subject.seconds))

    def to_dict(self) -> dict[str, Any]:
        """As the command line prints it."""
        one, two = self.subject, self.baseline
        return {
            "bundle": two.name,
            **two.facts,
            "top1": round(two.top1, _PLACES),
            "drop_points": round(self.drop, 2),
            "agreement": round(self.agreement, _PLACES),
            "speed": round(self.speed, 3),
            "engine_ms": two.milliseconds,
            "largest_score_difference": round(float(np.abs(one.scores - two.scores).max()), _PLACES),
            "differing": [
                {
                    "path": str(one.entries[i].path),
                    "label": one.entries[i].label,
                    "recognised": one.labels[one.predictions[i]],
                    "baseline": two.labels[two.predictions[i]],
                }
                for i in self.differing
            ],
        }


def confusion(truth: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Clips by true (rows) and recognised (columns) class, (classes, classes), from indices (N,)."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, predictions), 1)
    return table


def evaluate(
    subjects: Sequence[Subject],
    clips: ClipSet,
    sampling: Sampling | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure models on the same videos; every clip goes through all of them before the next.

    Args:
        subjects: the models; with the same labels, if there are several.
        clips: labelled videos.
        sampling: which frames; uniform, one clip of a video, if None.
        workers: see `in_workers`.
        progress: makes a progress bar, as `tqdm.tqdm` does; None shows nothing.

    Returns:
        One evaluation for each model.

    Raises:
        UsageError: a video has no label, or one that a model doesn't know; models have different labels.
        ClipSetError: no video can be used.
        BundleError: an engine failed.
    """
    check_labels(subjects, clips)
    inputs = tuple(dict.fromkeys(subject.input for subject in subjects))
    places = [inputs.index(subject.input) for subject in subjects]
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    scores: list[list[NDArray[np.float32]]] = [[] for _ in subjects]
    seconds: list[list[float]] = [[] for _ in subjects]
    with closing(in_workers(Prepare(inputs, sampling or Sampling()), clips.entries, workers)) as results:
        shown = progress(results, total=len(clips), desc="clips", unit="clip") if progress else results
        for entry, result in shown:
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            entries.append(entry)
            for subject, place, ours, times in zip(subjects, places, scores, seconds, strict=True):
                ours.append(_scores(subject, result[place], times))
    if not entries:
        raise ClipSetError(f"{clips.name} has no videos that can be used{explained(skipped)}")
    shared = (tuple(skipped),)
    return [
        Evaluation(s.name, s.labels, tuple(entries), np.stack(ours), np.array(times), *shared, s.facts)
        for s, ours, times in zip(subjects, scores, seconds, strict=True)
    ]


def check_labels(subjects: Sequence[Subject], clips: ClipSet) -> None:
    """Raise UsageError unless every video has a label, every label is every model's, and the models' are the same."""
    first = subjects[0]
    for other in subjects[1:]:
        if other.labels != first.labels:
            raise UsageError(f"{first.name} and {other.name} have different labels and cannot be compared")
    if unlabelled := [entry.path.name for entry in clips.entries if entry.label is None]:
        raise UsageError(f"{clips.name} has {len(unlabelled)} videos without a label, {unlabelled[0]} for one")
    if unknown := [label for label in clips.labels if label not in first.labels]:
        raise UsageError(
            f"{first.name} does not know the label {', '.join(unknown[:TOP])} of {clips.name}; "
            f"its labels are {', '.join(first.labels[:TOP])}{', ...' if len(first.labels) > TOP else ''}"
        )


def _scores(subject: Subject, videos: Video, seconds: list[float]) -> NDArray[np.float32]:
    """The mean scores over a video's clips, (classes,); the seconds of each run are added to the list."""
    total = np.zeros(len(subject.labels), np.float64)
    for i in range(len(videos)):
        start = time.perf_counter()
        logits = subject.run(videos[i : i + 1])
        seconds.append(time.perf_counter() - start)
        total += softmax(logits[0, : len(subject.labels)])
    return (total / len(videos)).astype(np.float32)


def merged(parts: Iterable[Evaluation], name: str) -> Evaluation:
    """The evaluations of several folds as one: each fold's videos, recognised by the fold's own model."""
    several = list(parts)
    first = several[0]
    if any(part.labels != first.labels for part in several):
        raise UsageError(f"the models of {name} have different labels")
    return Evaluation(
        name,
        first.labels,
        tuple(entry for part in several for entry in part.entries),
        np.concatenate([part.scores for part in several]),
        np.concatenate([part.seconds for part in several]),
        tuple(one for part in several for one in part.skipped),
        first.facts,
    )


def evaluate_bundles(
    bundles: Sequence[str],
    clips: ClipSet,
    sampling: Sampling | None = None,
    *,
    threads: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure bundles, of any engines, on the same videos.

    Args:
        bundles: their folders; with ``{fold}`` in one, the videos of each fold are for the bundle of that fold.
        clips: labelled videos, with folds if a bundle's path asks for them.
        sampling: see `evaluate`.
        threads: for the engines; None takes the bundles'.
        workers: see `in_workers`.
        progress: see `evaluate`.

    Returns:
        One evaluation for each path, over all folds.

    Raises:
        UsageError, ClipSetError, BundleError: as `evaluate` and `load`.
    """
    if not any(FOLD in path for path in bundles):
        return _evaluate_loaded(bundles, clips, sampling, threads, workers, progress)
    if not clips.folds:
        raise UsageError(f"{clips.name} has no folds for {FOLD}: give a CSV with a column `fold`")
    parts = [
        _evaluate_loaded(
            [path.replace(FOLD, str(fold)) for path in bundles], clips.fold(fold), sampling, threads, workers, progress
        )
        for fold in clips.folds
    ]
    return [merged(several, path) for path, several in zip(bundles, zip(*parts, strict=True), strict=True)]


def _evaluate_loaded(
    bundles: Sequence[str],
    clips: ClipSet,
    sampling: Sampling | None,
    threads: int | None,
    workers: int | None,
    progress: Progress | None,
) -> list[Evaluation]:
    with ExitStack() as stack:
        subjects = [Subject.of(stack.enter_context(load(path, threads))) for path in bundles]
        return evaluate(subjects, clips, sampling, workers=workers, progress=progress)
