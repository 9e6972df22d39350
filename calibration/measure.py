"""Measure how well models recognise labelled videos. `vmp_edge.calibration.evaluation` has the results' classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from vmp_edge.errors import UsageError
from vmp_edge.formatting import quantity
from vmp_edge.recognizer import load

from . import shared
from .clipset import ClipSet, ClipSetError, Entry
from .decoding import Prepare, Progress, Sampling, Skipped, describe_skipped, in_workers
from .evaluation import TOP, Comparison, Evaluation, confusion, merge
from .sharing import Parts, Share, identity
from .tally import StreamTally, Subject, Tally
from .timing import in_turns

__all__ = [
    "FOLD",
    "TOP",
    "Comparison",
    "Evaluation",
    "NoUsableVideoError",
    "Subject",
    "check_labels",
    "confusion",
    "evaluate",
    "evaluate_bundles",
    "merge",
]

FOLD = "{fold}"  # in a bundle's path, stands for the fold's number


class NoUsableVideoError(ClipSetError):
    """No video of a clip set can be used.

    Args:
        message: The message.
        evaluations: The evaluation of each model, without videos; they name those that cannot be used.
    """

    def __init__(self, message: str, evaluations: Sequence[Evaluation]) -> None:
        super().__init__(message)
        self.evaluations = tuple(evaluations)


def evaluate(
    subjects: Sequence[Subject],
    clips: ClipSet,
    sampling: Sampling | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    rounds: int = 0,
    stream: bool = False,
    parts: Parts | None = None,
) -> list[Evaluation]:
    """Measure models on the same videos. Every video goes through all models before the next video.

    Args:
        subjects: The models; several models must have the same labels.
        clips: Labelled videos. If none has a label, what the last of several models recognises stands for the labels.
        sampling: Which frames to take; None takes one uniform clip of each video.
        workers: See `in_workers`.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.
        rounds: Number of rounds in which the models are timed in turns afterwards, while nothing is decoded; 0 leaves
            that out, and so does a model that cannot be timed.
        stream: Whether to measure also, on labelled videos, what a stream sees of them: `Evaluation.stream`.
        parts: Where several processes that share the videos put what they find; None if this one has them all. Shared
            work is not timed.

    Returns:
        One evaluation for each model.

    Raises:
        SharePendingError: Other processes are not done yet.
        UsageError: A video has no label or one that a model does not know, the models have different labels, or a
            model whose frames are not cropped should see several crops.
        NoUsableVideoError: No video can be used.
        BundleError: An engine failed.
    """
    check_labels(subjects, clips)
    sampling = sampling or Sampling()
    _check_crops(subjects, sampling)
    tallies = [Tally(subject) for subject in subjects]
    stream = stream and has_labels(clips)
    if parts is None:
        evaluations = _run_all(tallies, clips, sampling, workers, progress, stream)
    else:
        rounds = 0
        evaluations = _run_share(tallies, clips, sampling, workers, progress, stream, parts)
    if not has_labels(clips):
        evaluations = _labelled_by(evaluations[-1], evaluations)
    if not evaluations[0].entries:
        text = f"{clips.name} has no videos that can be used{describe_skipped(evaluations[0].skipped)}"
        raise NoUsableVideoError(text, evaluations)
    if not rounds or not all(subject.can_be_timed for subject in subjects):
        return evaluations
    timings = in_turns([tally.repeat for tally in tallies], rounds, progress=progress)
    return [dataclasses.replace(one, timing=timing) for one, timing in zip(evaluations, timings, strict=True)]


def _run_all(
    tallies: Sequence[Tally],
    clips: ClipSet,
    sampling: Sampling,
    workers: int | None,
    progress: Progress | None,
    stream: bool,
) -> list[Evaluation]:
    """Run models on all videos, and if `stream` is true also on the windows that a stream sees of them."""
    inputs = tuple(dict.fromkeys(tally.subject.input for tally in tallies))
    job = Prepare(inputs, sampling, stream)
    streams = [StreamTally(tally.subject) for tally in tallies]
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    damaged: list[Skipped] = []
    with closing(in_workers(job, clips.entries, workers)) as results:
        for entry, result in progress(results, total=len(clips), desc="clips", unit="clip") if progress else results:
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            entries.append(entry)
            if result.damage is not None:
                damaged.append(Skipped(entry.path, result.damage))
            for tally in tallies:
                tally.add(result[inputs.index(tally.subject.input)])
            for windows in streams if job.stream else ():
                windows.add(entry, result.windows[inputs.index(windows.subject.input)])
    evaluations = [tally.evaluation(entries, skipped, damaged) for tally in tallies]
    if not job.stream:
        return evaluations
    pairs = zip(evaluations, streams, strict=True)
    return [dataclasses.replace(one, stream=windows.evaluation()) for one, windows in pairs]


def _run_share(
    tallies: Sequence[Tally],
    clips: ClipSet,
    sampling: Sampling,
    workers: int | None,
    progress: Progress | None,
    stream: bool,
    parts: Parts,
) -> list[Evaluation]:
    """Run models on this process's share of the videos, and put together what all processes found, if all are done."""
    if parts.own() is None:
        share = ClipSet(clips.name, tuple(parts.share.of(clips.entries)))
        found = _run_all(tallies, share, sampling, parts.share.workers(workers), progress, stream)
        parts.write(shared.packed(found, clips, parts.share))
    with parts.together("gives the result") as every:
        return [
            shared.unpacked(every, number, tally.subject.name, tally.subject.labels, tally.subject.facts, clips)
            for number, tally in enumerate(tallies)
        ]


def check_labels(subjects: Sequence[Subject], clips: ClipSet) -> None:
    """Check that all models have the same labels, and that every video has one of them.

    Several models can be compared on videos none of which has a label.

    Raises:
        UsageError: The models' labels differ, or a video has no label or one that the models do not know.
    """
    first = subjects[0]
    for subject in subjects[1:]:
        if subject.labels != first.labels:
            raise UsageError(f"{first.name} and {subject.name} have different labels and cannot be compared")
    unlabelled = [entry.path.name for entry in clips.entries if entry.label is None]
    if unlabelled and (len(subjects) == 1 or has_labels(clips)):
        count = quantity(len(unlabelled), "video")
        raise UsageError(
            f"{clips.name} has {count} without a label, {unlabelled[0]} for one: give every video its label; only a "
            "comparison of two models does without any"
        )
    if unknown := [label for label in clips.labels if label not in first.labels]:
        word = "label" if len(unknown) == 1 else "labels"
        raise UsageError(
            f"{first.name} does not know the {word} {', '.join(unknown[:TOP])} of {clips.name}; "
            f"its labels are {', '.join(first.labels[:TOP])}{', ...' if len(first.labels) > TOP else ''}"
        )


def _check_crops(subjects: Sequence[Subject], sampling: Sampling) -> None:
    for subject in subjects:
        resize = subject.input.preprocessing.resize
        if sampling.crops > 1 and resize != "crop":
            raise UsageError(f"{subject.name} resizes its frames by {resize}, so there is 1 crop, not {sampling.crops}")


def has_labels(clips: ClipSet) -> bool:
    """Return whether any of the videos has a label."""
    return any(entry.label is not None for entry in clips.entries)


def _labelled_by(reference: Evaluation, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Return evaluations of unlabelled videos with what one of the models recognises for the labels."""
    entries = tuple(
        dataclasses.replace(entry, label=reference.labels[i])
        for entry, i in zip(reference.entries, reference.predictions, strict=True)
    )
    return [dataclasses.replace(one, entries=entries, labelled=False) for one in evaluations]


def evaluate_bundles(
    bundles: Sequence[str],
    clips: ClipSet,
    sampling: Sampling | None = None,
    *,
    threads: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    rounds: int = 0,
    stream: bool = False,
    gallery: Path | None = None,
    threshold: float | None = None,
    share: Share | None = None,
) -> list[Evaluation]:
    """Measure bundles, of any engines, on the same videos.

    Args:
        bundles: Their folders. If a path contains ``{fold}``, each fold's videos are for the bundle of that fold.
        clips: Labelled videos, with folds if a bundle's path asks for them.
        sampling: See `evaluate`.
        threads: Number of the engines' threads; None takes the bundles' numbers.
        workers: See `in_workers`.
        progress: See `evaluate`.
        rounds: See `evaluate`. Of several folds, the first one's models are timed.
        stream: See `evaluate`.
        gallery, threshold: See `load`.
        share: Which of several processes that share the videos this one is; they work in the same folder. None has all
            videos.

    Returns:
        One evaluation for each path, over all folds.

    Raises:
        UsageError, ClipSetError, BundleError: See `evaluate` and `load`.
    """
    if not any(FOLD in path for path in bundles):
        return _evaluate_loaded(
            bundles, clips, sampling, threads, workers, progress, rounds, stream, gallery, threshold, share
        )
    if share is not None and not share.is_whole:
        raise UsageError(f"{FOLD}: the bundles of folds cannot be shared between processes; give each fold its own run")
    if not clips.folds:
        raise UsageError(f"{clips.name} has no folds for {FOLD}: give a CSV with a column `fold`")
    parts = [
        _evaluate_loaded(
            [path.replace(FOLD, str(fold)) for path in bundles],
            clips.fold(fold),
            sampling,
            threads,
            workers,
            progress,
            rounds if fold == clips.folds[0] else 0,
            stream,
            gallery,
            threshold,
            None,
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
    rounds: int,
    stream: bool,
    gallery: Path | None,
    threshold: float | None,
    share: Share | None,
) -> list[Evaluation]:
    with ExitStack() as stack:
        loaded = [stack.enter_context(load(path, threads, gallery, threshold)) for path in bundles]
        for recognizer in loaded:
            recognizer.require_classes()
        subjects = [Subject.of(recognizer, threads) for recognizer in loaded]
        parts = None
        if share is not None and not share.is_whole:
            models = [[subject.facts["sha256"], subject.labels] for subject in subjects]
            content = None if gallery is None else identity(Path(gallery).read_bytes().hex())
            facts = (models, content, threshold, vars(sampling or Sampling()), stream)
            key = identity("evaluate", *facts, videos=clips.entries)
            parts = Parts(Path.cwd(), key, share)
        return evaluate(
            subjects, clips, sampling, workers=workers, progress=progress, rounds=rounds, stream=stream, parts=parts
        )
