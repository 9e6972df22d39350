"""Transformations of a clip that turn one label into another: extra training data that is exactly right.

Mirroring swaps left with right and the sense of a roll; transposing swaps the axes (a camera that turns left moves
the picture to the right, and the transposed picture down, as one that tilts up does); running backwards swaps
everything that has a direction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .camera import LABELS

_ROLL = {"roll-clockwise": "roll-counter-clockwise"}
_LEFT_RIGHT = {"pan-left": "pan-right"}
_UP_DOWN = {"tilt-up": "tilt-down"}
_IN_OUT = {"zoom-in": "zoom-out"}
_AXES = {"pan-left": "tilt-up", "pan-right": "tilt-down"}


def _swapped(*pairs: dict[str, str]) -> Tensor:
    """Label index -> label index under the exchange of the named pairs."""
    both = {a: b for pair in pairs for a, b in [*pair.items(), *((v, k) for k, v in pair.items())]}
    return torch.tensor([LABELS.index(both.get(label, label)) for label in LABELS])


# name -> (new label of each label, what happens to a (B, T, H, W, 3) batch)
SYMMETRIES = {
    "mirror": _swapped(_LEFT_RIGHT, _ROLL),
    "upside-down": _swapped(_UP_DOWN, _ROLL),
    "transpose": _swapped(_AXES, _ROLL),
    "reverse": _swapped(_LEFT_RIGHT, _UP_DOWN, _IN_OUT, _ROLL),
}


def apply(name: str, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Transform a whole batch.

    Args:
        name: a key of `SYMMETRIES`.
        clips: (B, T, H, W, 3), H equal to W for ``transpose``.
        labels: (B,) indices into `LABELS`.

    Returns:
        The transformed clips (a view where possible) and their labels.
    """
    moved = {
        "mirror": lambda: clips.flip(3),
        "upside-down": lambda: clips.flip(2),
        "transpose": lambda: clips.transpose(2, 3),
        "reverse": lambda: clips.flip(1),
    }[name]()
    return moved, SYMMETRIES[name][labels]
