"""Write the table of accuracies that `vmp-edge train --folds` measured, from its output folders."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vmp_edge.calibration.train.measuring import SAMPLING

RESULTS = Path(__file__).parent / "results" / "actions.md"
INTRODUCTION = """# Real action clips

Small models of egomotion-nano's architecture, trained by cross-validation, on which the costs of quantising are
measured. They do not come with the package. Top-1 in percent: each fold's videos are recognised by the model that was
not trained on them, with the weights after the last epoch. *Geometry alone* is a random forest on the videos' width,
height and length with the same folds: the accuracy that a model could reach without looking at the pictures. Chance is
the share of the commonest label.
"""


def row(name: str, results: dict[str, Any]) -> str:
    """Return a data set's row."""
    counts = [label["clips"] for label in results["by_label"].values()]
    after = results.get("geometry_control_after")
    geometry = f"{100 * results['geometry_control']:.1f}" + (f", cut to one {100 * after:.1f}" if after else "")
    folds = ", ".join(f"{100 * value:.1f}" for value in results["folds"].values())
    return (
        f"| {name} | {results['init']} | {sum(counts)} | {len(counts)} "
        f"| {100 * max(counts) / sum(counts):.1f} "
        f"| {geometry} | {folds} | **{100 * results['folds_mean']:.1f}** ± {100 * results['folds_deviation']:.1f} |"
    )


def notes(name: str, results: dict[str, Any]) -> str:
    """Return a data set's note: the cut of its videos, its recipe, and its labels."""
    cut, recipe, size = results["geometry"], results["recipe"], results["image_size"]
    window = (
        f"the middle {cut['width']}x{cut['height']} pixels and {cut['seconds']:.2f} s of every video"
        if cut
        else "whole videos"
    )
    labels = ", ".join(f"{label} {100 * value['recall']:.0f}%" for label, value in results["by_label"].items())
    return (
        f"- {name}, from {results['init']}: {window}; {results['sampling']['frames']} frames of {size}x{size}, "
        f"{recipe['epochs']} epochs, batches of {recipe['batch']}, mean of {SAMPLING.clips} clips of a video. By "
        f"label: {labels}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outputs", nargs="+", metavar="NAME=DIR", help="a data set's name and the training's --output")
    parser.add_argument("--command", action="append", default=[], help="a command that made the outputs, to be quoted")
    parser.add_argument("--note", action="append", default=[], help="a sentence to add below the table")
    options = parser.parse_args()
    measured = {}
    for text in options.outputs:
        name, _, folder = text.partition("=")
        measured[text] = name, json.loads((Path(folder) / "results.json").read_text())
    lines = [
        INTRODUCTION,
        "| data | start | videos | labels | chance | geometry alone | top-1 by fold | mean |",
        "|---|---|---|---|---|---|---|---|",
        *(row(*entry) for entry in measured.values()),
        "",
        *(notes(*entry) for entry in measured.values()),
        *(f"- {note}" for note in options.note),
        "",
        "Made by:",
        "```",
        *options.command,
        "```",
    ]
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
