"""Pictures of a training: its curves, and the confusion matrix of what was held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmp_edge.files import whole

from ..evaluation import Evaluation
from ..plots import draw_confusion
from .loop import TOP1

Histories = Mapping[str, Sequence[Mapping[str, float]]]
_NAMES = {"held-out": "held-out model", "model": "final model"}


def curves(histories: Histories, chance: float, path: Path) -> None:
    """Draw loss and top-1 over the epochs.

    Args:
        histories: Records of the epochs by the name of the model, see `Trainer`.
        chance: Top-1 of guessing.
        path: The PNG file.
    """
    from matplotlib.figure import Figure

    measured = {name: history for name, history in histories.items() if history and TOP1 in history[0]}
    figure = Figure(figsize=(9 if measured else 5, 3.2), layout="constrained")
    panels: list[Any] = list(figure.subplots(1, 2 if measured else 1, squeeze=False)[0])
    for name, history in histories.items():
        epochs = [record["epoch"] for record in history]
        shown = _NAMES.get(name, name.replace("-", " "))
        panels[0].plot(epochs, [record["loss"] for record in history], label=f"{shown}, training")
        if name in measured:
            losses = [record["held_out_loss"] for record in history]
            panels[0].plot(epochs, losses, "--", label=f"{shown}, held-out clips")
            top1 = [100 * record[TOP1] for record in history]
            best = max(range(len(top1)), key=lambda i: (top1[i], i))
            panels[1].plot(epochs, top1, label=f"{shown}, one window of each clip")
            panels[1].plot(epochs[best], top1[best], "o", color="tab:red", label=f"kept: epoch {epochs[best]:.0f}")
    panels[0].set(xlabel="epoch", ylabel="loss", title="loss")
    if measured:
        panels[1].axhline(100 * chance, color="grey", linestyle=":", label="chance")
        panels[1].set(xlabel="epoch", ylabel="percent", ylim=(0, 103), title="top-1 of held-out clips")
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize="small", loc="best")
    _save(figure, path)


def confusion(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix of the classes that occur, in percent of the true class.

    Args:
        evaluation: The results on the held-out clips.
        path: The PNG file.
    """
    from matplotlib.figure import Figure

    shown = evaluation.occurring()
    side = min(14.0, max(4.2, 2.6 + 0.36 * len(shown)))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    draw_confusion(axes, evaluation.confusion[np.ix_(shown, shown)], [evaluation.labels[i] for i in shown])
    axes.set_title(f"held-out clips, percent of each true class ({len(evaluation.entries)} clips)", fontsize="medium")
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with whole(path) as place:
        figure.savefig(place, dpi=110)
