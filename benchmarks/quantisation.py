"""Measure what int8 costs in accuracy, and which parts of the recipes are worth having, and write the table.

Models and clips: egomotion-nano on its procedural test clips and on footage (`--footage`); the models of
`vmp-edge train --folds` on the videos of their folds (`--folds NAME=DIR`), each calibrated on videos of
the other folds; and videomambapro-tiny with random weights of a trained model's statistics.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import CALIBRATION, Case, egomotion, egomotion_footage, folds, frames, tiny
from engines import ENGINES, Run, in_pytorch
from numpy.typing import NDArray
from weights import weights_table

from vmp_edge.calibration import quantisation
from vmp_edge.calibration.quantisation import Recipe
from vmp_edge.compile import graph
from vmp_edge.recognizer import softmax

FOLDER = Path(__file__).parent / "results"
RESULTS = {
    "accuracy": FOLDER / "quantisation.md",
    "ablation": FOLDER / "recipes.md",
    "weights": FOLDER / "weights.md",
}
PRECISIONS = ("int8", "int8-dynamic", "int8-weight-only")


@dataclass(frozen=True)
class Outcome:
    """The figures of one case: top-1 of float and int8 in percent, agreement in percent, cosine of all logits."""

    videos: int
    float_top1: float | None
    top1: float | None
    agreement: float
    cosine: float


Outcomes = dict[tuple[str, str, str], list[Outcome]]  # by data, recipe and engine


def logits_of(case: Case, run: Run) -> list[NDArray[np.float32]]:
    """Return the logits of each video, (clips, classes)."""
    with torch.no_grad():
        return [np.concatenate([run(video[i : i + 1]) for i in range(len(video))]) for video in case.videos]


def compare(case: Case, quantised: Sequence[NDArray[np.float32]], reference: Sequence[NDArray[np.float32]]) -> Outcome:
    """Compare the logits of int8 with those of float, see `logits_of`."""
    guesses, expected = (
        np.array([np.mean([softmax(row) for row in video], 0).argmax() for video in logits])
        for logits in (quantised, reference)
    )
    a, b = np.concatenate(quantised).ravel(), np.concatenate(reference).ravel()
    top1 = [None, None]
    if case.labels is not None:
        top1 = [100 * float((indices == case.labels).mean()) for indices in (expected, guesses)]
    cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return Outcome(len(guesses), *top1, 100 * float((guesses == expected).mean()), cosine)


def measure(cases: Sequence[Case], recipes: dict[str, Recipe], engines: Sequence[str]) -> Outcomes:
    """Measure all recipes on all cases and engines."""
    outcomes: Outcomes = {}
    for case in cases:
        program = graph.export(case.model)
        calibration = [frames(case, video[None]) for video in case.calibration]
        expected = logits_of(case, in_pytorch(case, program))
        for name, recipe in recipes.items():
            quantised = quantisation.quantise(program, recipe, calibration)
            for engine in engines:
                with tempfile.TemporaryDirectory() as folder:
                    run = ENGINES[engine](case, quantised, name, Path(folder))
                    outcome = compare(case, logits_of(case, run), expected)
                print(f"{case.data}: {name}, {engine}: {outcome}", file=sys.stderr, flush=True)
                outcomes.setdefault((case.data, name, engine), []).append(outcome)
    return outcomes


def ablation(base: Recipe) -> dict[str, Recipe]:
    """Return the static recipe, and recipes that differ from it in one part each, by the names of the table's rows."""
    small = ("*.dt_down", "*.dt_up", "*.B", "*.C")
    changes: dict[str, dict[str, Any]] = {
        "the recipe `int8`": {},
        "inputs: percentile 99.999": {"ranges": "percentile"},
        "inputs: mse": {"ranges": "mse"},
        "outputs: percentile 99.99": {"percentile": 99.99},
        "outputs: percentile 99.9": {"percentile": 99.9},
        "outputs: mse": {"outputs": "mse"},
        "outputs: minmax": {"outputs": "minmax"},
        "outputs in float": {"outputs": None},
        "outputs in float; inputs: percentile 99.999": {"outputs": None, "ranges": "percentile"},
        "outputs in float; inputs: mse": {"outputs": None, "ranges": "mse"},
        "everything static": {"dynamic": ()},
        "static but dt, B, C": {"dynamic": small},
        "static but out and head": {"dynamic": ("*.out", "head")},
        "dynamic but the patches": {"dynamic": ("blocks.*", "head")},
        "everything static, also the norms' means": {"dynamic": (), "keep_float": ()},
        "smoothed in_x, in_z (0.5)": {"smooth": 0.5, "smoothed": ("*.in_x", "*.in_z")},
        "smoothed out (0.5)": {"smooth": 0.5, "smoothed": ("*.out",)},
        "rotated out": {"rotated": ("*.out",)},
        "rotated in_x, in_z": {"rotated": ("*.in_x", "*.in_z")},
        "static but dt, B, C; rotated out": {"dynamic": small, "rotated": ("*.out",)},
        "static but dt, B, C; smoothed out (0.5)": {"dynamic": small, "smooth": 0.5, "smoothed": ("*.out",)},
    }
    return {name: dataclasses.replace(base, **values) for name, values in changes.items()}


def mean(outcomes: Sequence[Outcome], name: str) -> float:
    return float(np.mean([getattr(outcome, name) for outcome in outcomes]))


def accuracy_table(outcomes: Outcomes) -> list[str]:
    head = ["model and clips", "videos", "float top-1", "precision", "engine", "top-1", "points", "agreement"]
    rows = ["| " + " | ".join([*head, "cosine of logits"]) + " |", "|---" * (len(head) + 1) + "|"]
    for (data, precision, engine), parts in outcomes.items():
        count = sum(part.videos for part in parts)
        agreement = sum(part.agreement * part.videos for part in parts) / count
        cells = ("", "", "")
        if parts[0].top1 is not None:
            top1, float_top1 = mean(parts, "top1"), mean(parts, "float_top1")
            cells = (f"{float_top1:.2f}", f"{top1:.2f}", f"{top1 - float_top1:+.2f}")
        rows.append(
            f"| {data} | {count} | {cells[0]} | {precision} | {engine} | {cells[1]} | {cells[2]} | {agreement:.2f} "
            f"| {mean(parts, 'cosine'):.4f} |"
        )
    return rows


def ablation_table(outcomes: Outcomes) -> list[str]:
    data = list(dict.fromkeys(data for data, *_ in outcomes))
    rows = ["| recipe | " + " | ".join(f"{name}: cosine, agreement" for name in data) + " |"]
    rows += ["|---" * (1 + len(data)) + "|"]
    for name in dict.fromkeys(name for _, name, _ in outcomes):
        columns = [outcomes[d, name, "torch"] for d in data]
        cells = [f"{mean(parts, 'cosine'):.4f}, {mean(parts, 'agreement'):.1f}" for parts in columns]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return rows


def time_build() -> str:
    """Return the duration of a whole int8 build of egomotion-nano in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vmp_edge", "build", "--target", "host", "--precision", "int8"]
        start = time.perf_counter()
        subprocess.run([*command, "--output", f"{folder}/b"], check=True, capture_output=True)
        return f"{time.perf_counter() - start:.0f} s"


TITLES = {
    "accuracy": f"""# Accuracy in int8

Top-1 in percent. For data sets with folds it is the mean over the folds: each fold's videos are recognised by the model
that was not trained on them, calibrated on {CALIBRATION} videos of the other folds. Agreement: percent of the videos
that int8 and float recognise as the same label. Cosine: between the logits of all clips of a case. The programs are
those that the engines run; float is the exported program in PyTorch.
""",
    "ablation": """# Which parts of the recipe `int8` are worth it

PyTorch runs the quantised programs, with the same numbers as the engines: integers in float arithmetic. Each row
changes one part of the recipe. The clips are procedural validation clips and those that the head of the table names.
Cosine: between the logits of all clips of a case. Agreement: percent of the videos that int8 and float recognise as the
same label.
""",
    "weights": """# Weights in int8

The model is a videomambapro-tiny at 8x224x224. All that TVM holds: the weights, padded to whole registers, and the
parts that stay in float: decay rates, convolutions, biases and positions. Files also contain code; model_int8.md has
their sizes.
""",
}


def make_cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases of a table, apart from videomambapro-tiny."""
    split = "validation" if options.what == "ablation" else "test"
    with tempfile.TemporaryDirectory() as scratch:
        clips_folder = options.clips_folder or Path(scratch)
        if options.clips:
            yield from egomotion("calibration", split, options.clips, clips_folder)
        if options.footage:
            yield from egomotion_footage(options.footage, clips_folder)
        for text in options.folds:
            name, _, place = text.partition("=")
            yield from folds(name, Path(place), options.only_folds)


def make_rows(options: argparse.Namespace) -> list[str]:
    """Measure, and return the rows of the table."""
    if options.what == "weights":
        return weights_table(PRECISIONS)
    cases = [*make_cases(options), *(() if options.without_tiny else tiny())]
    if options.what == "ablation":
        return ablation_table(measure(cases, ablation(quantisation.load("int8")), ["torch"]))
    recipes = {name: quantisation.load(name) for name in options.precisions}
    return accuracy_table(measure(cases, recipes, options.engines))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=RESULTS, help="which table")
    parser.add_argument("--folds", action="append", default=[], metavar="NAME=DIR", help="output of the training")
    parser.add_argument("--footage", type=Path, metavar="DIR", help="real videos for egomotion-nano")
    parser.add_argument("--clips", type=int, default=1000, help="procedural clips, 0 for none (default: %(default)s)")
    parser.add_argument("--clips-folder", type=Path, metavar="DIR", help="folder that keeps them (default: none)")
    parser.add_argument("--only-folds", type=int, metavar="N", help="the first folds of each set (default: all)")
    parser.add_argument("--without-tiny", action="store_true", help="leave out videomambapro-tiny, which is slowest")
    parser.add_argument("--engines", nargs="+", default=["executorch", "tvm"], choices=ENGINES, help="default: both")
    parser.add_argument("--precisions", nargs="+", default=[*PRECISIONS], choices=PRECISIONS, help="default: all")
    parser.add_argument("--output", type=Path, help="file for the table (default: in results/)")
    parser.add_argument("--time-build", action="store_true", help="also time a whole build of egomotion-nano")
    parser.add_argument("--note", action="append", default=[], help="a sentence to add below the table")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    rows = make_rows(options)
    notes = [*options.note]
    if options.time_build:
        notes.append(f"A whole int8 build of egomotion-nano, which draws clips and measures on 500: {time_build()}.")
    command = " ".join(["python benchmarks/quantisation.py", *sys.argv[1:]])
    lines = [TITLES[options.what], *rows, "", *(f"- {note}" for note in notes), "", f"Made by `{command}`.", ""]
    (options.output or RESULTS[options.what]).write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
