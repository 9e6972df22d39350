"""Measure a trained egomotion-nano: ``python -m vmp_edge.calibration.egomotion.evaluate DIR [--footage FOLDER]``.

Measures it on procedural clips that training never drew, and on real video where a folder of it is given. Writes
``accuracy.json`` and pictures (confusion, curves, example clips) into DIR; ``--release`` puts the weights,
with what was measured inside, and the pictures where the project keeps them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vmp_edge.errors import UsageError, VmpError
from vmp_edge.models import VideoMamba, load_checkpoint, zoo

from .. import measure, plots
from ..training import save
from . import dataset
from .camera import LABELS
from .dataset import Pool
from .footage import make_footage_pool
from .train import NAME, predict

Confusion = NDArray[np.int64]


def confusion(model: VideoMamba, pool: Pool) -> Confusion:
    """Clips by true (rows) and recognised (columns) label."""
    logits, labels = predict(model, pool)
    return measure.confusion(labels.numpy(), logits.argmax(1).numpy(), len(LABELS))


def summary(table: Confusion) -> dict[str, Any]:
    """Top-1 accuracy over all clips and by label, and the table itself."""
    recall = np.diag(table) / table.sum(1)
    return {
        "clips": int(table.sum()),
        "top1": round(float(np.trace(table) / table.sum()), 4),
        "recall": {label: round(float(value), 4) for label, value in zip(LABELS, recall, strict=True)},
        "confusion": table.tolist(),
    }


def plot_confusion(tables: dict[str, Confusion], path: Path) -> None:
    """One panel for each test set, in percent of the true label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(tables), 5.6), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        plots.draw_confusion(axes, table, LABELS)
        axes.set_title(f"{title}: {100 * np.trace(table) / table.sum():.1f}% of {table.sum()} clips")
    figure.savefig(path, dpi=110)


def plot_examples(pool: Pool, path: Path) -> None:
    """The first clip of each label, a row each, named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 9), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(LABELS), 1)):
        axes.imshow(np.concatenate(list(pool.clips[row]), axis=1))
        axes.set_xticks([])
        axes.set_yticks([pool.clips.shape[2] / 2], [LABELS[row]], fontsize=8)
        axes.tick_params(length=0)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def plot_curves(history: list[dict[str, float]], path: Path) -> None:
    """Loss and accuracy over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in history]
    left.plot(epochs, [entry["loss"] for entry in history], label="training, smoothed labels")
    left.plot(epochs, [entry["validation_loss"] for entry in history], label="validation")
    left.set_ylabel("cross-entropy")
    left.legend()
    right.plot(epochs, [100 * entry["validation_accuracy"] for entry in history], color="C1")
    right.axhline(95, color="grey", linewidth=0.8, linestyle="--")
    right.set_ylabel("validation top-1, %")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def evaluate(folder: Path, footage: Path | None, clips: int) -> dict[str, Any]:
    """Measure ``folder``'s weights and write table and pictures beside them.

    Raises:
        UsageError: there are no weights in the folder.
    """
    weights = folder / f"{NAME}.pth"
    if not weights.is_file():
        raise UsageError(f"{weights} does not exist: train first, into this folder")
    model = load_checkpoint(weights)
    pool = dataset.make_pool("test", clips, folder / "test.npy")
    tables = {"procedural": confusion(model, pool)}
    measured: dict[str, Any] = {"procedural": summary(tables["procedural"])}
    if footage is not None:
        real, counts = make_footage_pool(footage)
        tables["real footage"] = confusion(model, real)
        measured["footage"] = {**summary(tables["real footage"]), "selection": counts}
    (folder / "accuracy.json").write_text(json.dumps(measured, indent=1) + "\n")
    plot_confusion(tables, folder / "egomotion-confusion.png")
    plot_examples(pool, folder / "egomotion-clips.png")
    if (folder / "history.json").is_file():
        plot_curves(json.loads((folder / "history.json").read_text())["epochs"], folder / "egomotion-curves.png")
    return measured


def release(folder: Path, measured: dict[str, Any]) -> None:
    """Put weights and pictures where the checkout keeps them."""
    content = torch.load(folder / f"{NAME}.pth", weights_only=True)
    content["accuracy"] = {name: {"top1": m["top1"], "clips": m["clips"]} for name, m in measured.items()}
    zoo.FOLDER.mkdir(exist_ok=True)
    save(content, zoo.FOLDER / f"{NAME}.pth")
    images = Path(__file__).resolve().parents[2] / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("egomotion-*.png"):
        shutil.copyfile(picture, images / picture.name)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vmp_edge.calibration.egomotion.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="the training's --output")
    parser.add_argument("--footage", type=Path, help="folder of real videos, searched recursively")
    parser.add_argument("--clips", type=int, default=2000, help="procedural test clips (default 2000)")
    parser.add_argument("--release", action="store_true", help="update the checkout's weights and pictures")
    options = parser.parse_args(arguments)
    try:
        measured = evaluate(options.folder, options.footage, options.clips)
        if options.release:
            release(options.folder, measured)
    except VmpError as error:
        print(error, file=sys.stderr)
        return 1
    for name, result in measured.items():
        print(f"{name}: {100 * result['top1']:.1f}% top-1 on {result['clips']} clips")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
