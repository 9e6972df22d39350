"""Measure how a gallery's classes are told apart: by the nearest prototype, and by the linear classifier.

python benchmarks/takes.py --data ut_interaction.csv --group sequence --one-geometry --teacher efficientnet-lite0

An episode draws classes, some takes of each from most groups, and the queries from another group. Both ways are
measured as `vmp-edge run --gallery` uses them (`vmp_edge.matcher`), on the same takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from vmp_edge import matcher
from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet
from vmp_edge.calibration.decoding import Input, Prepare, Sampling, Skipped, in_workers
from vmp_edge.calibration.pretrain import teachers
from vmp_edge.calibration.pretrain.teachers import Teacher
from vmp_edge.calibration.train import geometry, inspection
from vmp_edge.cli.output import progress_bar
from vmp_edge.gallery import Gallery
from vmp_edge.models import zoo
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.progress import note
from vmp_edge.separation import LEAST_TAKES

RESULTS = Path(__file__).parent / "results" / "takes.md"
INTRODUCTION = """# Telling enrolled classes apart

Galleries of three classes, and both ways in which `vmp-edge run --gallery` tells them apart: the nearest prototype, and
the linear classifier, which it uses from the third take of each class on, and which is measured with two takes, too. A
query comes from a group (a scene, a film) that none of the examples comes from. Each video is a take of {clips} clips,
and a query is the mean feature of its clips.

- right: percent of the queries of enrolled classes that are recognised as their class.
- accepted: percent of the queries of enrolled classes that are taken for any of them.
- others accepted: the same for queries of classes that are neither enrolled nor among the negatives.

Right can be at most accepted. Negatives are twice as many videos as a class has takes, of half of the other classes.
The classifier's rules were chosen on clips of ut_interaction, so its figures there may be a little too good.
{mean}
"""
COLUMNS = (
    *("features", "takes", "negatives", "prototypes: right", "accepted", "others accepted"),
    *("linear: right", "accepted", "others accepted"),
)
HEAD = f"\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
WAYS = 3
TAKES = (2, 3, 5, 8)
CLIPS = 2
FRAMES = 4  # of a clip that an image teacher sees
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Videos:
    """Features of N videos, float32 (N, CLIPS, C), with their classes and groups, int64 (N,)."""

    features: Vectors
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]


@dataclass
class Tally:
    """What one way made of the queries: for enrolled classes whether it was right and accepted, and for others."""

    right: list[bool] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    mistaken: list[bool] = field(default_factory=list)

    def row(self) -> str:
        return " | ".join(f"{100 * np.mean(values):.0f}" for values in (self.right, self.accepted, self.mistaken))


def compute(clips: ClipSet, teacher: Teacher | None, workers: int) -> tuple[ClipSet, dict[str, Vectors]]:
    """Return the usable videos, and their features by egomotion-nano and by an image teacher."""
    nano = zoo.load("egomotion-nano")
    inputs = [Input(nano.module.options.num_frames, nano.preprocessing, nano.frame_rate)]
    if teacher is not None:
        inputs.append(Input(FRAMES, Preprocessing(teacher.size, mean=(0.0,) * 3, std=(1.0,) * 3)))
    rows: list[list[Vectors]] = []
    entries = []
    job = Prepare(tuple(inputs), Sampling(clips=CLIPS))
    for entry, result in progress_bar(in_workers(job, clips.entries, workers), total=len(clips), desc="features"):
        if isinstance(result, Skipped):
            note(f"left out: {result.path}: {result.reason}")
            continue
        entries.append(entry)
        videos = [torch.from_numpy(np.ascontiguousarray(video)) for video in result]
        with torch.inference_mode():
            found = [nano.module.forward_features(videos[0]).numpy()]
            if teacher is not None:
                found.append(teacher.features(videos[1], FRAMES, 1).mean((1, 2, 3)).numpy())
        rows.append(found)
    names = ["egomotion-nano", *([] if teacher is None else [f"{teacher.name}, mean over frames"])]
    features = {name: np.stack([row[index] for row in rows]).astype(np.float32) for index, name in enumerate(names)}
    return dataclasses.replace(clips, entries=tuple(entries)), features


def episode(videos: Videos, takes: int, negatives: bool, rng: np.random.Generator, tallies: Sequence[Tally]) -> None:
    """Draw one episode, and add what both ways make of its queries to their tallies."""
    groups, order = rng.permutation(np.unique(videos.groups)), rng.permutation(np.unique(videos.labels))
    inside, outside = order[:WAYS], order[WAYS:]
    held_out = videos.groups == groups[0]
    gallery = Gallery("benchmark", videos.features.shape[2])
    for label in inside:
        candidates = np.flatnonzero((videos.labels == label) & ~held_out)
        for index in rng.choice(candidates, min(takes, len(candidates)), replace=False):
            gallery.add(str(label), videos.features[index])
    if negatives:
        half, outside = outside[: len(outside) // 2], outside[len(outside) // 2 :]
        candidates = np.flatnonzero(np.isin(videos.labels, half) & ~held_out)
        for index in rng.choice(candidates, min(2 * takes, len(candidates)), replace=False):
            gallery.add_negatives(videos.features[index])
    known = np.flatnonzero(held_out & np.isin(videos.labels, inside))
    others = np.flatnonzero(held_out & np.isin(videos.labels, outside))
    truth = [gallery.names.index(str(label)) for label in videos.labels[known]]
    for tally, way in zip(tallies, (lambda gallery: None, matcher.separate), strict=True):
        with (
            mock.patch.object(matcher, "separate", way),
            mock.patch.object(matcher, "ENOUGH_TAKES", LEAST_TAKES),
            mock.patch.object(matcher, "check_fits"),
        ):
            recognise = matcher.Matcher(gallery, mock.Mock())
        for indices, is_known in ((known, True), (others, False)):
            if not len(indices):
                continue
            queries = videos.features[indices].mean(1)
            guesses = recognise.combine(np.ones((len(queries), 1), np.float32), queries).argmax(1) - 1
            if is_known:
                tally.right += (guesses == truth).tolist()
                tally.accepted += (guesses >= 0).tolist()
            else:
                tally.mistaken += (guesses >= 0).tolist()


def measure(name: str, videos: Videos, episodes: int) -> list[str]:
    """Return the rows for one kind of features."""
    rows = []
    for takes in TAKES:
        for negatives in (False, True):
            rng, tallies = np.random.default_rng(0), (Tally(), Tally())
            for _ in range(episodes):
                episode(videos, takes, negatives, rng, tallies)
            cells = [name, str(takes), "yes" if negatives else "no", *(tally.row() for tally in tallies)]
            rows.append(f"| {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of class folders, or a CSV with path and label")
    parser.add_argument("--group", default="group", help="the CSV's column of groups (default: group)")
    parser.add_argument("--name", help="the set's name in the table (default: that of its folder)")
    parser.add_argument("--one-geometry", type=Path, metavar="DIR", help="cut all videos to one size and length first")
    parser.add_argument("--teacher", help="an image teacher as for `vmp-edge pretrain`, for features of frames")
    parser.add_argument("--features", type=Path, metavar="FILE", help="keeps the features, or has them already (.npz)")
    parser.add_argument("--episodes", type=int, default=300, help="episodes of each row (default: 300)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips = clipset.read(args.data, args.group)
    if args.one_geometry is not None:
        clips, seen, _ = inspection.look_at_all(clips, progress_bar, args.workers)
        sizes = [one.geometry for one in seen]
        clips, _ = geometry.bring_to_one(clips, sizes, args.one_geometry, progress_bar, args.workers)
    teacher = teachers.load(args.teacher) if args.teacher is not None else None
    if args.features is not None and args.features.exists():
        with np.load(args.features) as known:
            features = {name: known[name] for name in known.files}
        assert all(len(one) == len(clips) for one in features.values())
    else:
        clips, features = compute(clips, teacher, args.workers)
        if args.features is not None:
            np.savez(args.features, **features)  # type: ignore[arg-type]
    labels = np.array([clips.labels.index(str(entry.label)) for entry in clips.entries])
    groups = np.unique([str(entry.group) for entry in clips.entries], return_inverse=True)[1]
    rows = [row for name, one in features.items() for row in measure(name, Videos(one, labels, groups), args.episodes)]
    name = args.name or Path(args.data).parent.name
    cut = ", all cut to one size and length" if args.one_geometry is not None else ""
    title = f"\n## {name}: {len(clips)} videos of {len(clips.labels)} classes, {groups.max() + 1} groups{cut}\n"
    made = ["", "Made by:", "```", " ".join(["python", *sys.argv]), "```"]
    mean = f"The figures are means of {args.episodes} episodes."
    before = RESULTS.read_text() if RESULTS.exists() else INTRODUCTION.format(clips=CLIPS, mean=mean)
    parts = [part for part in before.split("\n## ")[1:] if not part.startswith(f"{name}:")]
    kept = "".join(f"\n## {part}" for part in parts)
    text = INTRODUCTION.format(clips=CLIPS, mean=mean) + kept + "\n".join([title + HEAD, *rows, *made]) + "\n"
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
