"""Measure few-shot accuracy: how well prototypes of a model's features tell classes apart that it has not seen.

python benchmarks/fewshot.py --data runs/ut_interaction/clips.csv --surveillance runs/surv_fight/fold-0.pth

An episode draws N classes, K example videos of each, and a query video of each, whose scene is not among the examples'
scenes. The features come from models trained on other data; `vmp_edge.gallery` makes the prototypes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.calibration.decoding import Input, Prepare, Sampling, Video
from vmp_edge.calibration.train import fit, footage, inspection, start
from vmp_edge.calibration.train.recipe import ClipsRecipe
from vmp_edge.cli.output import progress_bar
from vmp_edge.gallery import Gallery
from vmp_edge.models import VideoMamba, load_checkpoint, zoo
from vmp_edge.preprocessing import Preprocessing

RESULT = Path(__file__).parent / "results" / "fewshot.md"
INTRODUCTION = """# Few-shot classes

ut_interaction: 96 videos, 6 classes in 16 scenes, all cut to one size and length. An episode draws N classes and one
scene. The queries come from this scene, and K example videos of each class from the other scenes. Each video gives
three clips: an example video adds all three, a query is their mean. Prototypes and thresholds are those of
`vmp-edge enroll`, without negatives except in the last rows.

Accuracy is that of the nearest prototype, in percent: the mean of {episodes} episodes with its 95% interval (over draws
of episodes from these videos, not over other videos). AUROC: how well the largest similarity separates queries of the N
classes from queries of the other classes; 0.5 is chance. Accepted: percent of the queries of either kind that pass the
threshold of a class.

- pixels: frames of 16x16 pixels less their mean over the videos, without a model.
- egomotion-nano: trained to name the camera's motion; not trained on any of these videos.
- trained on surv_fight: egomotion-nano trained further on videos with and without fights; not trained on any of these
  videos.
- trained on the other three classes: egomotion-nano trained further on the three classes that an episode does not draw
  from; four models, from two divisions of the six classes. They have seen the scenes and people in other actions, so
  these rows are the most favourable. In the last rows, the videos that the models were trained on are the gallery's
  negatives.

The rule for the thresholds (the mean, not the least, similarity of left-out examples) was chosen on these episodes.

| features | N | K | chance | accuracy | AUROC | known accepted | others accepted |
|---|---|---|---|---|---|---|---|"""
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "fewshot.png"
SHOTS = (1, 3, 5)
CLIPS = 3  # clips of a video; each is an example, like the windows of a stream
# Divisions of the classes into halves; a model is trained on one half and tested on the other.
HALVES = (((0, 1, 2), (3, 4, 5)), ((0, 2, 4), (1, 3, 5)))
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Videos:
    """Features of N videos: float32 (N, CLIPS, C), with their classes and scenes, int64 (N,)."""

    features: Vectors
    labels: npt.NDArray[np.int64]
    scenes: npt.NDArray[np.int64]


@dataclass
class Tally:
    """The results of episodes.

    Attributes:
        accuracies: Accuracy of each episode.
        known: Largest similarity of each query of the drawn classes.
        unknown: Largest similarity of each query of the other classes.
        accepted: For each query of the drawn classes, True if it passed a threshold.
        mistaken: The same for queries of the other classes.
    """

    accuracies: list[float] = dataclasses.field(default_factory=list)
    known: list[float] = dataclasses.field(default_factory=list)
    unknown: list[float] = dataclasses.field(default_factory=list)
    accepted: list[bool] = dataclasses.field(default_factory=list)
    mistaken: list[bool] = dataclasses.field(default_factory=list)

    def accuracy(self) -> tuple[float, float]:
        """Return mean accuracy in percent, and half the width of its 95% interval."""
        mean, spread = 100 * np.mean(self.accuracies), 100 * np.std(self.accuracies, ddof=1)
        return float(mean), float(1.96 * spread / np.sqrt(len(self.accuracies)))

    def row(self) -> str:
        """Return the table's cells: accuracy, its interval, AUROC, percent of known and unknown queries accepted."""
        cells = ["{:.1f} ± {:.1f}".format(*self.accuracy())]
        if self.unknown:
            truth = [1] * len(self.known) + [0] * len(self.unknown)
            cells += [f"{roc_auc_score(truth, self.known + self.unknown):.3f}"]
            cells += [f"{100 * np.mean(self.accepted):.0f}", f"{100 * np.mean(self.mistaken):.0f}"]
        else:
            cells += ["-"] * 3
        return " | ".join(cells)


@dataclass(frozen=True)
class Part:
    """Features, the classes that episodes draw from, and whether the videos of other classes are negatives."""

    videos: Videos
    classes: Sequence[int]
    negatives: bool = False


def episode(part: Part, ways: int, shots: int, rng: np.random.Generator, tally: Tally) -> None:
    """Draw one episode, and add the results of its queries to the tally.

    Args:
        part: See `Part`.
        ways: Number of classes to draw.
        shots: Number of example videos of each class.
        rng: Source of all randomness.
        tally: Gets the results.
    """
    videos, classes = part.videos, part.classes
    scenes = rng.permutation(np.unique(videos.scenes))
    order = rng.permutation(classes)
    inside, outside = order[:ways], order[ways:]
    held_out, supporting = scenes[0], scenes[1:]
    gallery = Gallery("benchmark", videos.features.shape[2])
    for label in inside:
        candidates = np.flatnonzero((videos.labels == label) & np.isin(videos.scenes, supporting))
        for index in rng.choice(candidates, shots, replace=False):
            gallery.add(str(label), videos.features[index])
    if part.negatives:
        others = ~np.isin(videos.labels, classes) & np.isin(videos.scenes, supporting)
        gallery.add_negatives(videos.features[others].reshape(-1, gallery.size))
    prototypes = np.stack([entry.prototype for entry in gallery.classes.values()])
    thresholds = gallery.thresholds()
    correct = []
    for label in order:
        for index in np.flatnonzero((videos.labels == label) & (videos.scenes == held_out)):
            query = unit(unit(videos.features[index]).mean(0))
            similar = prototypes @ query
            best = gallery.names[similar.argmax()]
            passed = any(similar[k] >= thresholds[name] for k, name in enumerate(gallery.names))
            if label in outside:
                tally.unknown.append(float(similar.max()))
                tally.mistaken.append(passed)
                continue
            correct.append(best == str(label))
            tally.known.append(float(similar.max()))
            tally.accepted.append(passed)
    if correct:
        tally.accuracies.append(float(np.mean(correct)))


def unit(x: Vectors) -> Vectors:
    """Scale vectors (..., C) to unit length."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), np.float32)


def prepare_clips(clips: ClipSet, model_input: Input) -> list[Video]:
    """Return each video's clips in the form that a model takes."""
    prepare = Prepare((model_input,), Sampling(clips=CLIPS))
    return [prepare(entry)[0] for entry in clips.entries]


def features_of(model: VideoMamba, videos: list[Video]) -> Vectors:
    with torch.inference_mode():
        return np.stack([model.forward_features(torch.from_numpy(np.ascontiguousarray(v))).numpy() for v in videos])


def pixels_of(videos: list[Video]) -> Vectors:
    """Return the pictures themselves, shrunk to 16x16, less the set's mean: features without a model."""
    tensors = [torch.from_numpy(np.ascontiguousarray(video)) for video in videos]
    flat = np.stack([torch.nn.functional.adaptive_avg_pool3d(x, (None, 16, 16)).flatten(1).numpy() for x in tensors])
    return np.asarray(flat - flat.mean((0, 1)), np.float32)


def checkpoint(path: Path) -> tuple[VideoMamba, Input]:
    """Load a model of `vmp-edge train`, with the clips that it takes."""
    content = torch.load(path, weights_only=True)
    model = load_checkpoint(path)
    preprocessing = Preprocessing.from_manifest(content["preprocessing"], model.options.image_size)
    return model, Input(model.options.num_frames, preprocessing)


def train_on(classes: Sequence[int], clips: ClipSet, epochs: int, folder: Path) -> Path:
    """Train a model on some of the classes, in all scenes, unless the folder has it already; return its path."""
    entries = [entry for entry in clips.entries if clips.labels.index(str(entry.label)) in classes]
    subset = dataclasses.replace(clips, entries=tuple(dataclasses.replace(entry, fold=0) for entry in entries))
    folder.mkdir(parents=True, exist_ok=True)
    begin = start.load()
    subset, seen, _ = inspection.look_at_all(subset, progress_bar, workers=0)
    seconds = [one.geometry.seconds for one in seen]
    frames, span = begin.model.options.num_frames, float(np.median(seconds))
    pixels = footage.decode(subset, frames, span, begin.preprocessing, seconds, folder, progress_bar, workers=0)
    job = fit.Job("halves", begin, ClipsRecipe(epochs=epochs), subset.labels, pixels)
    return fit.fit(job, folder, "training", progress_bar).path


@dataclass(frozen=True)
class Row:
    """A row of the table: `ways` classes, `shots` examples of each."""

    name: str
    ways: int
    shots: int
    tally: Tally

    def __str__(self) -> str:
        return f"| {self.name} | {self.ways} | {self.shots} | {100 / self.ways:.1f} | {self.tally.row()} |"


def measure(name: str, parts: Sequence[Part], episodes: int, all_ways: tuple[int, ...] = (3, 6)) -> list[Row]:
    """Return the rows for one kind of features; the parts take turns."""
    rows = []
    for ways, shots in itertools.product(all_ways, SHOTS):
        tally, rng = Tally(), np.random.default_rng(0)
        for number in range(episodes):
            episode(parts[number % len(parts)], ways, shots, rng, tally)
        rows.append(Row(name, ways, shots, tally))
        print(rows[-1], flush=True)
    return rows


def draw(rows: Sequence[Row]) -> None:
    """Draw accuracy over the number of examples, for docs/enroll.md."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, ways in zip(panels, (3, 6), strict=True):
        for name in dict.fromkeys(row.name for row in rows if row.ways == ways):
            series = [row for row in rows if (row.name, row.ways) == (name, ways)]
            heights, errors = zip(*(row.tally.accuracy() for row in series), strict=True)
            axes.errorbar([row.shots for row in series], heights, errors, marker="o", capsize=3, label=name)
        axes.axhline(100 / ways, color="grey", linestyle="--", label="chance")
        axes.set(title=f"{ways} classes", xlabel="examples of each class", xticks=SHOTS, ylim=(0, 100))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy, percent")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(PICTURE, dpi=110)


def measure_all(args: argparse.Namespace) -> list[Row]:
    """Measure all kinds of features, and return the table's rows."""
    clips = clipset.read(args.data, "group")
    labels = np.array([clips.labels.index(str(entry.label)) for entry in clips.entries])
    names = sorted({str(entry.group) for entry in clips.entries})
    scenes = np.array([names.index(str(entry.group)) for entry in clips.entries])

    def part(features: Vectors, classes: Sequence[int] = range(len(clips.labels))) -> Part:
        return Part(Videos(features, labels, scenes), classes)

    nano = zoo.load("egomotion-nano")
    models = {
        "egomotion-nano": (nano.module, Input(nano.module.options.num_frames, nano.preprocessing, nano.frame_rate)),
        "trained on surv_fight": checkpoint(args.surveillance),
    }
    rows: list[Row] = []
    for name, (model, model_input) in models.items():
        videos = prepare_clips(clips, model_input)
        if not rows:
            rows += measure("pixels", [part(pixels_of(videos))], args.episodes)
        rows += measure(name, [part(features_of(model, videos))], args.episodes)
    parts = []
    for number, halves in enumerate(HALVES):
        for train_classes, test_classes in (halves, halves[::-1]):
            folder = args.halves / f"{number}-{''.join(map(str, train_classes))}"
            model, model_input = checkpoint(train_on(train_classes, clips, args.epochs, folder))
            parts.append(part(features_of(model, prepare_clips(clips, model_input)), test_classes))
    rows += measure("trained on the other three classes", parts, args.episodes, (2, 3))
    with_negatives = [dataclasses.replace(half, negatives=True) for half in parts]
    return rows + measure("the same, those as negatives", with_negatives, args.episodes, (2,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CSV with path, label, group; videos of one geometry")
    parser.add_argument("--surveillance", type=Path, required=True, help="a model trained on surv_fight")
    parser.add_argument(
        "--halves", type=Path, default=Path("runs/halves"), help="folder that keeps the models trained here"
    )
    parser.add_argument("--epochs", type=int, default=70, help="epochs of their training (default: 70)")
    parser.add_argument("--episodes", type=int, default=600, help="episodes for each row of the table (default: 600)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure_all(args)
    draw(rows)
    command = " ".join(["python", *sys.argv])
    RESULT.write_text(
        "\n".join([INTRODUCTION.format(episodes=args.episodes), *map(str, rows), "", "Made by:", "```", command, "```"])
        + "\n"
    )


if __name__ == "__main__":
    main()
