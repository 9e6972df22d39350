"""Measure how well models recognise labelled videos. `vmp_edge.calibration.evaluation` has the results' classes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.recognizer import Recognizer, load, softmax

from .clipset import ClipSet, ClipSetError, Entry
from .decoding import Input, Prepare, Progress, Sampling, Skipped, Video, describe_skipped, in_workers
from .evaluation import TOP, Comparison, Evaluation, confusion, merge

__all__ = [
    "FOLD",
    "TOP",
    "Comparison",
    "Evaluation",
    "Subject",
    "check_labels",
    "confusion",
    "evaluate",
    "evaluate_bundles",
    "merge",
]

FOLD = "{fold}"  # in a bundle's path, stands for the fold's number


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: For messages and tables.
        labels: One for each class, in the order of the logits.
        input: The clips that the model takes.
        run: Function from a video, float32 (1, 3, T, S, S), to logits, float32 (1, classes), after which features may
            follow.
        facts: Further facts about the model: ``engine``, ``precision``, ``bytes``.
    """

    name: str
    labels: tuple[str, ...]
    input: Input
    run: Callable[[Video], NDArray[np.float32]]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, recognizer: Recognizer) -> Subject:
        """Return a loaded bundle, of any engine, as a model to measure."""
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


def evaluate(
    subjects: Sequence[Subject],
    clips: ClipSet,
    sampling: Sampling | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure models on the same videos. Every video goes through all models before the next video.

    Args:
        subjects: The models; several models must have the same labels.
        clips: Labelled videos.
        sampling: Which frames to take; None takes one uniform clip of each video.
        workers: See `in_workers`.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.

    Returns:
        One evaluation for each model.

    Raises:
        UsageError: A video has no label or one that a model does not know, or the models have different labels.
        ClipSetError: No video can be used.
        BundleError: An engine failed.
    """
    check_labels(subjects, clips)
    inputs = tuple(dict.fromkeys(subject.input for subject in subjects))
    tallies = [_Tally(subject) for subject in subjects]
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    damaged: list[Skipped] = []
    with closing(in_workers(Prepare(inputs, sampling or Sampling()), clips.entries, workers)) as results:
        for entry, result in progress(results, total=len(clips), desc="clips", unit="clip") if progress else results:
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            entries.append(entry)
            if result.damage is not None:
                damaged.append(Skipped(entry.path, result.damage))
            for tally in tallies:
                tally.add(result[inputs.index(tally.subject.input)])
    if not entries:
        raise ClipSetError(f"{clips.name} has no videos that can be used{describe_skipped(skipped)}")
    return [tally.evaluation(entries, skipped, damaged) for tally in tallies]


def check_labels(subjects: Sequence[Subject], clips: ClipSet) -> None:
    """Check that all models have the same labels, and that every video has one of them.

    Raises:
        UsageError: The models' labels differ, or a video has no label or one that the models do not know.
    """
    first = subjects[0]
    for subject in subjects[1:]:
        if subject.labels != first.labels:
            raise UsageError(f"{first.name} and {subject.name} have different labels and cannot be compared")
    if unlabelled := [entry.path.name for entry in clips.entries if entry.label is None]:
        raise UsageError(f"{clips.name} has {len(unlabelled)} videos without a label, {unlabelled[0]} for one")
    if unknown := [label for label in clips.labels if label not in first.labels]:
        raise UsageError(
            f"{first.name} does not know the label {', '.join(unknown[:TOP])} of {clips.name}; "
            f"its labels are {', '.join(first.labels[:TOP])}{', ...' if len(first.labels) > TOP else ''}"
        )


class _Tally:
    """Runs a model on videos and collects its scores and times.

    Args:
        subject: The model.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._scores: list[NDArray[np.float32]] = []
        self._seconds: list[float] = []

    def add(self, videos: Video) -> None:
        """Run the model on each clip of a video, (clips, 3, T, S, S), and keep the mean scores."""
        classes = len(self.subject.labels)
        total = np.zeros(classes, np.float64)
        for i in range(len(videos)):
            start = time.perf_counter()
            logits = self.subject.run(videos[i : i + 1])
            self._seconds.append(time.perf_counter() - start)
            total += softmax(logits[0, :classes])
        self._scores.append((total / len(videos)).astype(np.float32))

    def evaluation(
        self, entries: Sequence[Entry], skipped: Sequence[Skipped], damaged: Sequence[Skipped]
    ) -> Evaluation:
        """Return the results for the videos that were added, in their order."""
        subject = self.subject
        scores, seconds = np.stack(self._scores), np.array(self._seconds)
        left_out, facts = tuple(skipped), subject.facts
        return Evaluation(
            subject.name, subject.labels, tuple(entries), scores, seconds, left_out, facts, damaged=tuple(damaged)
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
        bundles: Their folders. If a path contains ``{fold}``, each fold's videos are for the bundle of that fold.
        clips: Labelled videos, with folds if a bundle's path asks for them.
        sampling: See `evaluate`.
        threads: Number of the engines' threads; None takes the bundles' numbers.
        workers: See `in_workers`.
        progress: See `evaluate`.

    Returns:
        One evaluation for each path, over all folds.

    Raises:
        UsageError, ClipSetError, BundleError: See `evaluate` and `load`.
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
    return [merge(folds, path) for path, folds in zip(bundles, zip(*parts, strict=True), strict=True)]


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
