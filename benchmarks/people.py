"""Measure what recognises actions of real people: baselines on clips with folds, beside trainings by `vmp-edge train`.

Baselines: the nearest neighbour by pixels, and linear classifiers on the features of egomotion-nano and of a frozen
image network. Each fold's clips are recognised by what was fitted on the other folds. What is measured is kept in the
output folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from vmp_edge import linear
from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.calibration.decoding import Input, Prepare, Sampling, Skipped, Video, in_workers
from vmp_edge.calibration.evaluation import wilson
from vmp_edge.calibration.pretrain import teachers
from vmp_edge.calibration.train import head, start
from vmp_edge.formatting import interval
from vmp_edge.preprocessing import Preprocessing

RESULTS = Path(__file__).parent / "results" / "people.md"
OWN = "egomotion-nano"
FRAMES = 8
PIXELS = (24, 18)  # width and height of the grey pictures that are compared
INTRODUCTION = """# Actions of real people

Clips of people, recognised by what has not seen clips of the same source: top-1 of the clips in percent, with the 95%
interval, over all folds and fold by fold. Chance is {chance:.1f} by the number of classes, and {commonest:.1f} by
always naming the commonest. *Of the stream* is what windows give, as a camera's frames come. A *linear classifier* is
fitted to frozen features; its strength of regularisation is chosen on the training folds alone.
"""

Predict = Callable[[NDArray[Any], NDArray[np.int64], NDArray[Any], NDArray[Any]], NDArray[np.int64]]


def videos(clips: ClipSet, preprocessing: Preprocessing, workers: int | None, words: str) -> list[Video]:
    """Return one clip of each video, float32 (1, 3, T, S, S)."""
    job = Prepare((Input(FRAMES, preprocessing),), Sampling())
    result = []
    for entry, values in tqdm(in_workers(job, clips.entries, workers), total=len(clips), desc=words):
        if isinstance(values, Skipped):
            raise SystemExit(f"{entry.path} cannot be used: {values.reason}")
        result.append(values[0][:1])
    return result


def pixels(clips: ClipSet, workers: int | None) -> NDArray[np.float32]:
    """Return small grey pictures of each clip, with one mean and spread for all clips."""
    rows = []
    for video in videos(clips, Preprocessing(4 * PIXELS[0], mean=(0, 0, 0), std=(1, 1, 1)), workers, "pixels"):
        grey = video[0].mean(0)
        small = np.stack([cv2.resize(frame, PIXELS, interpolation=cv2.INTER_AREA) for frame in grey]).ravel()
        rows.append((small - small.mean()) / (small.std() + 1e-6))
    return np.stack(rows).astype(np.float32)


def own_features(clips: ClipSet, workers: int | None) -> NDArray[np.float32]:
    """Return egomotion-nano's features of each clip, (N, C)."""
    begin = start.load(OWN)
    return head.features(begin.model, videos(clips, begin.preprocessing, workers, OWN))[:, 0]


def teacher_features(clips: ClipSet, teacher: teachers.Teacher, workers: int | None) -> NDArray[np.float32]:
    """Return the mean and the spread of an image network's features over the frames of each clip, (N, 2 C)."""
    rows = []
    for video in videos(clips, Preprocessing(teacher.size, mean=(0, 0, 0), std=(1, 1, 1)), workers, teacher.name):
        features = teacher.features(torch.from_numpy(video), FRAMES, 1)[0, :, 0, 0].numpy()
        rows.append(np.concatenate([features.mean(0), features.std(0)]))
    return np.stack(rows)


def nearest(known: NDArray[Any], classes: NDArray[np.int64], _: NDArray[Any], asked: NDArray[Any]) -> NDArray[np.int64]:
    """Return the class of each clip's nearest neighbour among the known ones."""
    distances = np.square(known).sum(1) - 2 * asked @ known.T
    return classes[distances.argmin(1)]


def linearly(
    known: NDArray[Any], classes: NDArray[np.int64], groups: NDArray[Any], asked: NDArray[Any]
) -> NDArray[np.int64]:
    """Return the class of each clip by a linear classifier of standardised features."""
    mean, spread = known.mean(0), known.std(0) + 1e-6
    classifier = linear.fit((known - mean) / spread, classes, groups, most_folds=head.FOLDS)
    return np.asarray(classifier.scores((asked - mean) / spread).argmax(1), np.int64)


def cross_validate(clips: ClipSet, features: NDArray[np.float32], predict: Predict) -> NDArray[np.int64]:
    """Recognise each fold's clips by the others; return the index of each clip's label."""
    classes = np.array([clips.labels.index(str(entry.label)) for entry in clips.entries])
    groups = np.array([str(entry.group) for entry in clips.entries])
    folds = np.array([entry.fold for entry in clips.entries])
    result = np.empty_like(classes)
    for fold in clips.folds:
        other = folds != fold
        result[~other] = predict(features[other], classes[other], groups[other], features[~other])
    return result


def measured(clips: ClipSet, guesses: NDArray[np.int64]) -> dict[str, Any]:
    """Return accuracies in the form of a training's ``results.json``."""
    right = np.array([clips.labels[guess] == entry.label for guess, entry in zip(guesses, clips.entries, strict=True)])
    folds = np.array([entry.fold for entry in clips.entries])
    labels = np.array([str(entry.label) for entry in clips.entries])
    return {
        "correct": int(right.sum()),
        "clips": len(right),
        "folds": {str(fold): float(right[folds == fold].mean()) for fold in clips.folds},
        "by_label": {label: {"recall": float(right[labels == label].mean())} for label in clips.labels},
    }


def row(name: str, results: dict[str, Any]) -> str:
    """Return a row of the table."""
    count = results["clips"]
    right = results.get("correct", round(results.get("top1", 0) * count))
    folds = ", ".join(f"{100 * value:.1f}" for value in results["folds"].values())
    stream = results.get("stream", {}).get("top1")
    shown = f"{100 * stream:.1f}" if stream is not None else "-"
    return f"| {name} | **{100 * right / count:.1f}** | {interval(wilson(right, count))} | {folds} | {shown} |"


def by_label(results: dict[str, dict[str, Any]], labels: tuple[str, ...]) -> list[str]:
    """Return the table of accuracies by label."""
    lines = [f"| label | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    for label in labels:
        recalls = [values["by_label"][label]["recall"] for values in results.values()]
        lines.append(f"| {label} | {' | '.join(f'{100 * recall:.0f}' for recall in recalls)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trainings", nargs="*", metavar="NAME=DIR", help="outputs of `vmp-edge train --folds`")
    parser.add_argument("--data", required=True, help="CSV with path, label, fold and a column of groups")
    parser.add_argument("--group", default="source", help="the column of groups (default: source)")
    parser.add_argument("--teacher", help="an image network, see `vmp-edge pretrain --help`")
    parser.add_argument("--output", type=Path, required=True, help="folder that keeps what was measured")
    parser.add_argument("--workers", type=int, help="processes that decode (default: one a core)")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: all cores)")
    parser.add_argument("--command", action="append", default=[], help="a command that made the outputs, to be quoted")
    parser.add_argument("--note", action="append", default=[], help="a sentence to add below the table")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    clips = clipset.read(options.data, options.group)
    baselines: dict[str, tuple[Callable[[], NDArray[np.float32]], Predict]] = {
        "pixels, nearest neighbour": (lambda: pixels(clips, options.workers), nearest),
        f"{OWN}, linear classifier": (lambda: own_features(clips, options.workers), linearly),
    }
    if options.teacher:
        teacher = teachers.load(options.teacher)
        name = f"{Path(options.teacher).stem.split('-5')[0]}, linear classifier"
        baselines[name] = (lambda: teacher_features(clips, teacher, options.workers), linearly)
    results = {}
    for name, (features, predict) in baselines.items():
        place = options.output / f"{name.split(',')[0]}.npy"
        if not place.exists():
            np.save(place, features())
        known = place.with_suffix(".json")
        if not known.exists():
            known.write_text(json.dumps(measured(clips, cross_validate(clips, np.load(place), predict))))
        results[name] = json.loads(known.read_text())
    for text in options.trainings:
        name, _, folder = text.partition("=")
        results[name] = json.loads((Path(folder) / "results.json").read_text())
    counts = np.unique([str(entry.label) for entry in clips.entries], return_counts=True)[1]
    introduction = INTRODUCTION.format(chance=100 / len(counts), commonest=100 * counts.max() / counts.sum())
    lines = [
        introduction,
        "| what | top-1 | 95% | by fold | of the stream |",
        "|---|---|---|---|---|",
        *(row(*entry) for entry in results.items()),
        "",
        *(f"- {note}" for note in options.note),
        "",
        "## By label",
        "",
        *by_label(results, clips.labels),
        "",
        "Made by:",
        "```",
        *options.command,
        "```",
    ]
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
