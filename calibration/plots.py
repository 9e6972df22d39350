"""Plot measurements: confusion matrices, bars by label, bars by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ACCENT, QUIET, ALARM, INK = "#2b6cb0", "#a9b4c0", "#c2410c", "#26313d"
_MOST_NAMED = 40  # with more classes there is no room for names and numbers


def draw_confusion(axes: Any, table: NDArray[np.int64], labels: Sequence[str]) -> None:
    """Draw a confusion matrix in percent of the true label.

    Args:
        axes: matplotlib's axes to draw on.
        table: Number of clips by true (rows) and recognised (columns) label.
        labels: Names of the labels.
    """
    share = 100 * table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    axes.set_xlabel("recognised")
    axes.set_ylabel("true")
    if len(labels) > _MOST_NAMED:
        return
    for row, column in np.argwhere(table):
        tone = "white" if share[row, column] > 50 else "black"
        axes.text(column, row, f"{share[row, column]:.0f}", ha="center", va="center", color=tone, fontsize=8)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)


def confusion_figure(table: NDArray[np.int64], labels: Sequence[str]) -> Figure:
    """Make a figure of one confusion matrix, as large as its labels need."""
    from matplotlib.figure import Figure

    side = 2.6 + 0.42 * min(len(labels), _MOST_NAMED // 2)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    draw_confusion(axes, table, labels)
    _simplify(axes)
    return figure


def label_figure(series: Mapping[str, Sequence[float]], labels: Sequence[str]) -> Figure:
    """Make a figure of how much of each label is recognised, with a bar for each model.

    Args:
        series: Shares, 0 to 1, one for each label, by the model's name. The first model is highlighted.
        labels: Names of the labels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 1.3 + 0.42 * len(labels)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * height
        axes.barh(places, 100 * np.array(values), 0.9 * height, label=name, color=(ACCENT, QUIET)[min(i, 1)])
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("recognised, % of the label's clips")
    if len(series) > 1:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), frameon=False)
    _simplify(axes, grid="x")
    return figure


def bars_figure(values: Mapping[str, float], unit: str) -> Figure:
    """Make a figure of a few bars with their numbers; the first bar is highlighted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 0.8 + 0.36 * len(values)), layout="constrained")
    axes = figure.subplots()
    colours = [ACCENT] + [QUIET] * (len(values) - 1)
    bars = axes.barh(list(values), list(values.values()), 0.62, color=colours)
    axes.bar_label(bars, fmt=lambda value: f"{value:.3g} {unit}", padding=4, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(values.values()))
    axes.set_xticks([])
    _simplify(axes)
    axes.spines["bottom"].set_visible(False)
    return figure


def layers_figure(layers: Mapping[str, float]) -> Figure:
    """Make a figure of each layer's signal-to-noise ratio; the worst tenth is highlighted.

    Args:
        layers: Decibels by the layer's name, in the model's order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.0 + 0.2 * len(layers)), layout="constrained")
    axes = figure.subplots()
    values = np.array(list(layers.values()))
    worst = np.sort(values)[max(0, len(values) // 10 - 1)]
    axes.barh(range(len(values)), values, 0.7, color=[ALARM if value <= worst else ACCENT for value in values])
    axes.set_yticks(range(len(values)), list(layers), fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("signal-to-noise ratio, dB")
    _simplify(axes, grid="x")
    return figure


def _simplify(axes: Any, grid: str | None = None) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=INK)
    if grid:
        axes.grid(axis=grid, alpha=0.3)
        axes.set_axisbelow(True)
