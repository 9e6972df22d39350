"""Row masks for masked pre-training, and a student that sees only the patches that are left.

VideoMamba (arXiv 2403.06977, section 3.3) masks whole rows of patches, as its one-dimensional convolutions read
neighbouring tokens together, and random holes would tear them apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vmp_edge.models import VideoMamba

CLIP_ROW = "clip-row"  # the same rows of all frames
FRAME_ROW = "frame-row"  # other rows of each frame
MASKS = (CLIP_ROW, FRAME_ROW)


def visible_rows(side: int, ratio: float) -> int:
    """Return how many of a frame's rows stay visible: at most the share `ratio` is masked, and at least one stays."""
    return max(1, side - int(ratio * side + 1e-9))


def draw(count: int, steps: int, side: int, ratio: float, mask: str, generator: torch.Generator) -> Tensor:
    """Draw which patches of clips stay visible.

    Args:
        count: Number of clips, B.
        steps: Tubelets of a clip.
        side: Patches along a frame's side.
        ratio: Share of the rows to mask, at most.
        mask: One of `MASKS`.
        generator: Source of all randomness.

    Returns:
        Indices of patches in the order of the tokens, frame by frame and row by row, ascending, int64 (B, V).
    """
    rows = visible_rows(side, ratio)
    different = 1 if mask == CLIP_ROW else steps
    order = torch.rand(count, different, side, generator=generator).argsort(-1)[:, :, :rows].sort(-1).values
    chosen = order.expand(count, steps, rows)
    first = torch.arange(steps)[None, :, None] * side * side + chosen * side
    return (first[..., None] + torch.arange(side)).flatten(1)


def forward_visible(model: VideoMamba, video: Tensor, visible: Tensor) -> Tensor:
    """Compute a model's tokens from some of the patches.

    With all patches visible, it is `VideoMamba.forward_tokens`. Layers that scan place by place do so over the patches
    that are left.

    Args:
        model: The model.
        video: float32 (B, 3, T, S, S).
        visible: Ascending indices of patches, int64 (B, V).

    Returns:
        The tokens after the final norm, float32 (B, 1 + V, C): the class token first.
    """
    steps, side = model.options.grid
    tokens = model.embed(video)
    tokens = torch.cat([tokens[:, :1], _pick(tokens[:, 1:], visible)], dim=1)
    place, time = visible % (side * side), visible // (side * side)
    there = torch.argsort(place * steps + time, dim=1)
    back = torch.argsort(there, dim=1)
    for index, layer in enumerate(model.layers):
        if model.options.scans_time_first(index):
            tokens = _reorder(layer(_reorder(tokens, there)), back)
        else:
            tokens = layer(tokens)
    normed: Tensor = model.norm_f(tokens)
    return normed


def _pick(tokens: Tensor, indices: Tensor) -> Tensor:
    """Return some of the tokens (B, L, C), by their indices (B, V)."""
    return tokens.gather(1, indices[..., None].expand(-1, -1, tokens.shape[2]))


def _reorder(tokens: Tensor, order: Tensor) -> Tensor:
    """Bring all tokens but the first into another order (B, V)."""
    return torch.cat([tokens[:, :1], _pick(tokens[:, 1:], order)], dim=1)
