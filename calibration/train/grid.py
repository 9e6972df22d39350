"""Maps of features, from which a student learns: taken from a model's tokens, and brought onto the student's grid."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vmp_edge.models import VideoMamba


def scaled(pictures: Tensor, size: int) -> Tensor:
    """Scale square pictures (B, C, S, S) to another side."""
    old = pictures.shape[-1]
    if old == size:
        return pictures
    return F.interpolate(pictures, (size, size), mode="bilinear", antialias=size < old, align_corners=False)


def on_grid(maps: Tensor, steps: int, side: int) -> Tensor:
    """Bring maps of features onto another grid: by averaging where it is coarser, else by interpolation.

    Args:
        maps: (B, t, h, w, C).
        steps: New t.
        side: New h and w.

    Returns:
        (B, steps, side, side, C).
    """
    if maps.shape[1:4] == (steps, side, side):
        return maps
    x = maps.permute(0, 4, 1, 2, 3)
    coarser = (min(x.shape[2], steps), min(x.shape[3], side), min(x.shape[4], side))
    x = F.adaptive_avg_pool3d(x, coarser)
    if coarser != (steps, side, side):
        x = F.interpolate(x, (steps, side, side), mode="trilinear", align_corners=False)
    return x.permute(0, 2, 3, 4, 1)


def patch_maps(model: VideoMamba, tokens: Tensor) -> Tensor:
    """Return a model's tokens (B, 1 + L, C) without the first one as maps (B, t, h, w, C)."""
    steps, side = model.options.grid
    return tokens[:, 1:].reshape(len(tokens), steps, side, side, -1)
