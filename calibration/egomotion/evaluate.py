"""Measure a trained egomotion-nano: ``python -m vmp_edge.calibration.egomotion.evaluate DIR [--footage FOLDER]``.

Measures the model on procedural clips that training never drew and, with ``--footage``, on real video. Writes
``accuracy.json`` and pictures (confusion, curves, example clips) into DIR. ``--release`` copies the weights, with the
accuracy inside, and the pictures to their places in the checkout.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vmp_edge.cli.output import remark, say
from vmp_edge.cli.stopping import exit_code, stoppable
from vmp_edge.cli.streams import safe_streams
from vmp_edge.errors import UsageError, VmpError
from vmp_edge.models import VideoMamba, load_checkpoint, zoo

from .. import measure, plots
from ..train.loop import save
from . import dataset
from .camera import LABELS
from .dataset import Pool
from .footage import make_footage_pool
from .train import NAME, predict

Confusion = NDArray[np.int64]


def confusion(model: VideoMamba, pool: Pool) -> Confusion:
    """Count clips by true (rows) and recognised (columns) label."""
    logits, labels = predict(model, pool)
    return measure.confusion(labels.numpy(), logits.argmax(1).numpy(), len(LABELS))


def summary(table: Confusion) -> dict[str, Any]:
    """Return top-1 accuracy over all clips and by label, and the confusion matrix itself."""
    recall = np.diag(table) / table.sum(1)
    return {
        "clips": int(table.sum()),
        "top1": round(float(np.trace(table) / table.sum()), 4),
        "recall": {label: round(float(value), 4) for label, value in zip(LABELS, recall, strict=True)},
        "confusion": table.tolist(),
    }


def plot_confusion(tables: dict[str, Confusion], path: Path) -> None:
    """Draw each test set's confusion matrix, in percent of the true label."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(tables), 5.6), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        plots.draw_confusion(axes, table, LABELS)
        axes.set_title(f"{title}: {100 * np.trace(table) / table.sum():.1f}% of {table.sum()} clips")
    figure.savefig(path, dpi=110)


def plot_examples(pool: Pool, path: Path) -> None:
    """Draw the first clip of each label in a row with its name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 9), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(LABELS), 1)):
        axes.imshow(np.concatenate(list(pool.clips[row]), axis=1))
        axes.set_xticks([])
        axes.set_yticks([pool.clips.shape[2] / 2], [LABELS[row]], fontsize=8)
        axes.tick_params(length=0)
    figure.savefig(path, dpi=80, bbox_inches="tight")


def plot_curves(history: list[dict[str, float]], path: Path) -> None:
    """Draw loss and accuracy over the epochs."""
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
    """Measure a folder's weights and write the results and pictures into the folder.

    Args:
        folder: Output of the training.
        footage: Folder of real videos; None measures on procedural clips alone.
        clips: Number of procedural clips.

    Returns:
        The content of ``accuracy.json``.

    Raises:
        UsageError: There are no weights in the folder.
    """
    weights = folder / f"{NAME}.pth"
    if not weights.is_file():
        raise UsageError(f"{weights} does not exist: train first, with this folder as --output")
    model = load_checkpoint(weights)
    pool = dataset.make_pool("test", clips, folder / "test.npy")
    tables = {"procedural": confusion(model, pool)}
    results: dict[str, Any] = {"procedural": summary(tables["procedural"])}
    if footage is not None:
        real, counts = make_footage_pool(footage)
        tables["real footage"] = confusion(model, real)
        results["footage"] = {**summary(tables["real footage"]), "selection": counts}
    (folder / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n")
    plot_confusion(tables, folder / "egomotion-confusion.png")
    plot_examples(pool, folder / "egomotion-clips.png")
    if (folder / "history.json").is_file():
        plot_curves(json.loads((folder / "history.json").read_text())["epochs"], folder / "egomotion-curves.png")
    return results


def release(folder: Path, results: dict[str, Any]) -> None:
    """Copy weights and pictures to their places in the checkout."""
    content = torch.load(folder / f"{NAME}.pth", weights_only=True)
    content["accuracy"] = {name: {"top1": row["top1"], "clips": row["clips"]} for name, row in results.items()}
    zoo.FOLDER.mkdir(exist_ok=True)
    save(content, zoo.FOLDER / f"{NAME}.pth")
    images = Path(__file__).resolve().parents[2] / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for picture in folder.glob("egomotion-*.png"):
        shutil.copyfile(picture, images / picture.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vmp_edge.calibration.egomotion.evaluate", description=__doc__)
    parser.add_argument("folder", type=Path, help="the training's --output")
    parser.add_argument("--footage", type=Path, help="folder of real videos, searched recursively")
    parser.add_argument("--clips", type=int, default=2000, help="procedural test clips (default 2000)")
    parser.add_argument("--release", action="store_true", help="update the checkout's weights and pictures")
    options = parser.parse_args(arguments)
    try:
        results = evaluate(options.folder, options.footage, options.clips)
        if options.release:
            release(options.folder, results)
    except VmpError as error:
        remark(str(error))
        return 1
    except KeyboardInterrupt as stop:
        remark("stopped")
        return exit_code(stop)
    for name, row in results.items():
        say(f"{name}: {100 * row['top1']:.1f}% top-1 on {row['clips']} clips")
    return 0


if __name__ == "__main__":
    with safe_streams(), stoppable():
        raise SystemExit(main())
