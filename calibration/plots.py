"""Plot confusion matrices as pictures, for documents. A report has its own charts, see `charts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
