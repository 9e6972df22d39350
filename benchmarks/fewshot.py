"""Few-shot episodes on labelled videos: how well prototypes of a model's features tell classes that it has not seen.

python benchmarks/fewshot.py --data runs/ut_interaction/clips.csv --surveillance runs/surv_fight/fold-0.pth

An episode draws N classes, K example videos of each, and a query video of each, all from other scenes than the query's.
The features are those of models trained on something else; the prototypes are those of `vmp_edge.gallery`.
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
from vmp_edge.calibration.actions import dataset
from vmp_edge.calibration.actions.train import ActionsTraining, train_fold
from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.calibration.decoding import Input, Prepare, Sampling, Video
from vmp_edge.cli.output import progress_bar
from vmp_edge.gallery import Gallery
from vmp_edge.models import VideoMamba, load_checkpoint, zoo
from vmp_edge.preprocessing import Preprocessing

RESULT = Path(__file__).parent / "results" / "fewshot.md"
INTRODUCTION = """# Few-shot classes

ut_interaction: 96 videos, 6 classes of 16 scenes, all cut to one size and length. An episode draws N classes and one
scene; K example videos of each class come from the other scenes, the queries from that one. Each video is three clips:
three examples of one take, or a query of their mean. The prototypes and thresholds are those of `vmp-edge enroll`,
without negatives but in the last lines.

Accuracy is of the nearest prototype, in percent, the mean of {episodes} episodes with its 95% interval (over draws of
episodes from these videos, not over other videos). AUROC: how well the largest similarity tells queries of the N
classes from those of the classes left out; 0.5 is chance. Accepted: percent of the queries of either kind that pass
the threshold of a class.

- pixels: the frames of 16x16 pixels less their mean over the videos, no model.
- egomotion-nano: trained to name the camera's motion; not trained on any of these videos.
- trained on surv_fight: egomotion-nano trained further on fights and none; not trained on any of these videos.
- trained on the other three classes: egomotion-nano trained further on the three classes that an episode does not draw
  from; four models, of two divisions of the six classes. They saw the scenes and people, in other actions: the most
  favourable lines. In the last ones, the videos that they were trained on are the gallery's negatives.

The thresholds' rule (the mean, not the least, similarity of left-out examples) was chosen on these episodes.

| features | N | K | chance | accuracy | AUROC | known accepted | others accepted |
|---|---|---|---|---|---|---|---|"""
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "fewshot.png"
SHOTS = (1, 3, 5)
CLIPS = 3  # of a video, each an example, as windows of a stream are
NOBODY = -1  # a fold that no video is in: nothing is held out of a training
HALVES = (((0, 1, 2), (3, 4, 5)), ((0, 2, 4), (1, 3, 5)))  # of the classes: trained on one, tested on the other
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Videos:
    """Features of N videos: float32 (N, CLIPS, C), with their classes and scenes, int64 (N,)."""

    features: Vectors
    labels: npt.NDArray[np.int64]
    scenes: npt.NDArray[np.int64]


@dataclass
class Tally:
    """What episodes gave: each one's accuracy; similarities of known and unknown queries; how many were accepted."""

    accuracies: list[float] = dataclasses.field(default_factory=list)
    known: list[float] = dataclasses.field(default_factory=list)
    unknown: list[float] = dataclasses.field(default_factory=list)
    accepted: list[bool] = dataclasses.field(default_factory=list)
    mistaken: list[bool] = dataclasses.field(default_factory=list)

    def accuracy(self) -> tuple[float, float]:
        """Mean accuracy in percent, and half the width of its 95% interval."""
        mean, spread = 100 * np.mean(self.accuracies), 100 * np.std(self.accuracies, ddof=1)
        return float(mean), float(1.96 * spread / np.sqrt(len(self.accuracies)))

    def row(self) -> str:
        """Accuracy with its interval, AUROC, share of known and of unknown queries that pass the thresholds."""
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
    """Features with the classes that they may be tested on, and whether the other classes are negatives."""

    videos: Videos
    classes: Sequence[int]
    negatives: bool = False


def episode(part: Part, ways: int, shots: int, rng: np.random.Generator, to: Tally) -> None:
    """Draws one episode and adds what comes out: a query of each class, and of each class that was left out."""
    videos, classes = part.videos, part.classes
    scenes = rng.permutation(np.unique(videos.scenes))
    chosen = rng.permutation(classes)
    inside, outside = chosen[:ways], chosen[ways:]
    held_out, supporting = scenes[0], scenes[1:]
    gallery = Gallery("benchmark", videos.features.shape[2])
    for label in inside:
        able = np.flatnonzero((videos.labels == label) & np.isin(videos.scenes, supporting))
        for index in rng.choice(able, shots, replace=False):
            gallery.add(str(label), videos.features[index])
    if part.negatives:
        others = ~np.isin(videos.labels, classes) & np.isin(videos.scenes, supporting)
        gallery.add_negatives(videos.features[others].reshape(-1, gallery.size))
    prototypes = np.stack([one.prototype for one in gallery.classes.values()])
    thresholds = gallery.thresholds()
    right = []
    for label in chosen:
        for index in np.flatnonzero((videos.labels == label) & (videos.scenes == held_out)):
            query = unit(unit(videos.features[index]).mean(0))
            similar = prototypes @ query
            best = gallery.names[similar.argmax()]
            passed = any(similar[k] >= thresholds[name] for k, name in enumerate(gallery.names))
            if label in outside:
                to.unknown.append(float(similar.max()))
                to.mistaken.append(passed)
                continue
            right.append(best == str(label))
            to.known.append(float(similar.max()))
            to.accepted.append(passed)
    if right:
        to.accuracies.append(float(np.mean(right)))


def unit(x: Vectors) -> Vectors:
    """Vectors (..., C) at unit length."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), np.float32)


def prepared(clips: ClipSet, taken: Input) -> list[Video]:
    """Each video's clips as a model takes them."""
    prepare = Prepare((taken,), Sampling(clips=CLIPS))
    return [prepare(entry)[0] for entry in clips.entries]


def features_of(model: VideoMamba, videos: list[Video]) -> Vectors:
    with torch.inference_mode():
        return np.stack([model.forward_features(torch.from_numpy(np.ascontiguousarray(v))).numpy() for v in videos])


def pixels_of(videos: list[Video]) -> Vectors:
    """The pictures themselves, shrunk to 16x16, less the set's mean: what can be told without a model."""
    given = [torch.from_numpy(np.ascontiguousarray(video)) for video in videos]
    flat = np.stack([torch.nn.functional.adaptive_avg_pool3d(x, (None, 16, 16)).flatten(1).numpy() for x in given])
    return np.asarray(flat - flat.mean((0, 1)), np.float32)


def checkpoint(path: Path) -> tuple[VideoMamba, Input]:
    """A model of `python -m vmp_edge.calibration.actions`, and what it takes."""
    content = torch.load(path, weights_only=True)
    model = load_checkpoint(path)
    preprocessing = Preprocessing.from_manifest(content["preprocessing"], model.options.image_size)
    return model, Input(model.options.num_frames, preprocessing)


def trained_on(half: Sequence[int], clips: ClipSet, epochs: int, folder: Path) -> Path:
    """A model trained on some of the classes, all scenes; taken from the folder if it is there."""
    recipe = ActionsTraining(epochs=epochs)
    entries = [entry for entry in clips.entries if clips.labels.index(str(entry.label)) in half]
    some = dataclasses.replace(clips, entries=tuple(entries))
    folder.mkdir(parents=True, exist_ok=True)
    pixels = dataset.load(some, recipe.frames, recipe.image_size, progress_bar, workers=0)
    return train_fold(recipe, pixels, some.labels, NOBODY, folder, progress_bar)


@dataclass(frozen=True)
class Row:
    """A line of the table: `ways` classes, `shots` examples of each."""

    name: str
    ways: int
    shots: int
    tally: Tally

    def __str__(self) -> str:
        return f"| {self.name} | {self.ways} | {self.shots} | {100 / self.ways:.1f} | {self.tally.row()} |"


def measure(name: str, parts: Sequence[Part], episodes: int, all_ways: tuple[int, ...] = (3, 6)) -> list[Row]:
    """Lines for one kind of features; the parts take turns."""
    found = []
    for ways, shots in itertools.product(all_ways, SHOTS):
        tally, rng = Tally(), np.random.default_rng(0)
        for number in range(episodes):
            episode(parts[number % len(parts)], ways, shots, rng, tally)
        found.append(Row(name, ways, shots, tally))
        print(found[-1], flush=True)
    return found


def draw(found: Sequence[Row]) -> None:
    """Accuracy over the number of examples, for docs/enroll.md."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, ways in zip(panels, (3, 6), strict=True):
        for name in dict.fromkeys(row.name for row in found if row.ways == ways):
            some = [row for row in found if (row.name, row.ways) == (name, ways)]
            heights, errors = zip(*(row.tally.accuracy() for row in some), strict=True)
            axes.errorbar([row.shots for row in some], heights, errors, marker="o", capsize=3, label=name)
        axes.axhline(100 / ways, color="grey", linestyle="--", label="chance")
        axes.set(title=f"{ways} classes", xlabel="examples of each class", xticks=SHOTS, ylim=(0, 100))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy, percent")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CSV with path, label, group; videos of one geometry")
    parser.add_argument("--surveillance", type=Path, required=True, help="a model trained on surv_fight")
    parser.add_argument("--halves", type=Path, default=Path("runs/halves"), help="folder of the models trained here")
    parser.add_argument("--epochs", type=int, default=70, help="of those (default: 70)")
    parser.add_argument("--episodes", type=int, default=600, help="of each line of the table (default: 600)")
    args = parser.parse_args()
    torch.set_num_threads(1)
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
    found: list[Row] = []
    for name, (model, taken) in models.items():
        videos = prepared(clips, taken)
        if not found:
            found += measure("pixels", [part(pixels_of(videos))], args.episodes)
        found += measure(name, [part(features_of(model, videos))], args.episodes)
    parts = []
    for number, halves in enumerate(HALVES):
        for trained, tested in (halves, halves[::-1]):
            path = trained_on(trained, clips, args.epochs, args.halves / f"{number}-{''.join(map(str, trained))}")
            model, taken = checkpoint(path)
            parts.append(part(features_of(model, prepared(clips, taken)), tested))
    found += measure("trained on the other three classes", parts, args.episodes, (2, 3))
    with_negatives = [dataclasses.replace(one, negatives=True) for one in parts]
    found += measure("the same, those as negatives", with_negatives, args.episodes, (2,))
    draw(found)
    command = " ".join(["python", *sys.argv])
    RESULT.write_text(
        "\n".join(
            [INTRODUCTION.format(episodes=args.episodes), *map(str, found), "", "Made by:", "```", command, "```"]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
