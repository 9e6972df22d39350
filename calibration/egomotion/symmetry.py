"""Transform clips so that one label becomes another: more training data, whose labels are exactly right.

Mirroring swaps left and right, and the direction of a roll. Transposing swaps the axes: a camera that pans left moves
the picture to the right, so the transposed picture moves down, as if the camera tilted up. Playing backwards swaps
every direction.
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


def _swap(*pairs: dict[str, str]) -> Tensor:
    """Return the new index of each label when the labels of each pair are swapped."""
    both = {a: b for pair in pairs for a, b in [*pair.items(), *((v, k) for k, v in pair.items())]}
    return torch.tensor([LABELS.index(both.get(label, label)) for label in LABELS])


# By name, the new index of each label.
SYMMETRIES = {
    "mirror": _swap(_LEFT_RIGHT, _ROLL),
    "upside-down": _swap(_UP_DOWN, _ROLL),
    "transpose": _swap(_AXES, _ROLL),
    "reverse": _swap(_LEFT_RIGHT, _UP_DOWN, _IN_OUT, _ROLL),
}


def apply(name: str, clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Transform a whole batch.

    Args:
        name: A key of `SYMMETRIES`.
        clips: (B, T, H, W, 3), H equal to W for ``transpose``.
        labels: Indices into `LABELS`, (B,).

    Returns:
        The transformed clips (a view where possible) and their labels.
    """
    result = {
        "mirror": lambda: clips.flip(3),
        "upside-down": lambda: clips.flip(2),
        "transpose": lambda: clips.transpose(2, 3),
        "reverse": lambda: clips.flip(1),
    }[name]()
    return result, SYMMETRIES[name][labels]
