"""Mix pairs of clips: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def mix(
    video: Tensor, labels: Tensor, classes: int, mixup: float, cutmix: float, seed: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Mix each clip with its neighbour: the first with the second, the third with the fourth, and so on.

    Where both kinds of mixing are wanted, each pair gets one of them.

    Args:
        video: float32 (B, 3, T, S, S) with an even B.
        labels: int64 (B,).
        classes: Number of classes.
        mixup: Parameter of the Beta distribution of the shares in which pixels are averaged; 0 does not average.
        cutmix: That of the shares of the picture that are exchanged, as one box for all frames; 0 does not exchange.
        seed: Decides the shares, with a pair's place: a number for all clips, and the place of the first of these.

    Returns:
        The mixed videos, and the share of each class, float32 (B, classes).
    """
    shares = F.one_hot(labels, classes).float()
    if not mixup and not cutmix:
        return video, shares
    video, result = video.clone(), shares.clone()
    for first in range(0, len(video), 2):
        rng = np.random.default_rng([seed[0], seed[1] + first, 1])
        pair = video[first : first + 2]
        other = pair.flip(0)
        if mixup and (not cutmix or rng.random() < 0.5):
            share = float(rng.beta(mixup, mixup))
            mixed = torch.lerp(other, pair, share)
        else:
            mixed, share = _exchange(pair, other, float(rng.beta(cutmix, cutmix)), rng)
        video[first : first + 2] = mixed
        result[first : first + 2] = torch.lerp(shares[first : first + 2].flip(0), shares[first : first + 2], share)
    return video, result


def _exchange(pair: Tensor, other: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Put a box of the other clip into each clip of a pair; return them and the share that stays."""
    size = pair.shape[-1]
    side = round(size * (1 - share) ** 0.5)
    left, top = (int(value) for value in rng.integers(0, size - side + 1, 2))
    mixed = pair.clone()
    mixed[..., top : top + side, left : left + side] = other[..., top : top + side, left : left + side]
    return mixed, 1 - (side / size) ** 2
