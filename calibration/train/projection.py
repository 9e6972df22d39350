"""The projection of an image network's maps to tokens, chosen by the clips to train on, without their labels."""

from __future__ import annotations

import numpy as np
import torch

from vmp_edge.models import VideoMamba

from .footage import Footage

_MOST_CLIPS = 256  # that are looked at


@torch.no_grad()
def choose(model: VideoMamba, footage: Footage) -> None:
    """Project the maps of a model's stem to their principal components on the clips, scaled to a mean square of 1.

    There are far fewer clips than the maps have channels, so that a projection that is learnt from random weights
    remembers the clips. The principal components keep what differs between frames, and know no label.

    Args:
        model: Has a stem; gets the projection.
        footage: The clips.
    """
    stem, options = model.patch_embed.stem, model.options
    assert stem is not None
    chosen = np.unique(np.linspace(0, len(footage) - 1, min(len(footage), _MOST_CLIPS)).round().astype(int))
    device = next(model.parameters()).device
    count, total = 0, torch.zeros(1, device=device, dtype=torch.float64)
    products = torch.zeros(1, device=device, dtype=torch.float64)
    for index in chosen:
        video = torch.from_numpy(footage.middle(int(index))).to(device)
        rows = stem(video[0].transpose(0, 1)).movedim(1, -1).flatten(0, 2).double()  # (T * h * w, channels)
        count, total, products = count + len(rows), total + rows.sum(0), products + rows.T @ rows
    mean = total / count
    variances, directions = torch.linalg.eigh(products / count - torch.outer(mean, mean))  # the smallest first
    kept = directions[:, -options.embed_dim :].flip(1)
    scale = variances[-options.embed_dim :].mean().clamp(min=1e-12).sqrt()
    model.patch_embed.proj.weight.copy_((kept.T / scale).float()[:, :, None, None, None])
    assert model.patch_embed.proj.bias is not None
    model.patch_embed.proj.bias.copy_((-(mean @ kept) / scale).float())
