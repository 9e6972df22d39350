"""The causal convolution made of ordinary tensor operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """Compute `reference.causal_conv_silu` as a sum of shifted slices, without transposing.

    Args:
        x: (B, L, D) inputs.
        weight: (D, K) taps; the last column multiplies the current step.
        bias: (D,) bias, or None.
        reverse: Let each step see the K - 1 steps after it instead of the K - 1 steps before it.

    Returns:
        (B, L, D), in the dtype of ``x``.
    """
    length, taps = x.shape[1], weight.shape[1]
    padded = F.pad(x, (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    y = x * weight[:, -1] if bias is None else x * weight[:, -1] + bias
    for tap in range(taps - 1):
        start = taps - 1 - tap if reverse else tap
        y = y + padded[:, start : start + length] * weight[:, tap]
    return y * torch.sigmoid(y)
