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
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    return _convolve(x, padded, weight, bias, reverse)


def causal_conv_silu_with_state(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute `reference.causal_conv_silu` with its state, as `causal_conv_silu` does without.

    Args:
        x, weight, bias, reverse: As in `causal_conv_silu`.
        state: (B, K - 1, D) inputs scanned before the first step, the oldest first, or None for zeros.

    Returns:
        (B, L, D), in the dtype of ``x``, and the last inputs, (B, K - 1, D), in that of ``state``, or of ``x``.
    """
    taps = weight.shape[1]
    if taps == 1:
        return causal_conv_silu(x, weight, bias), x[:, :0] if state is None else state.clone()
    before = (x[:, :1] * 0.0).expand(-1, taps - 1, -1) if state is None else state.to(x.dtype)
    seen = torch.cat([x, _turned(before)] if reverse else [before, x], 1)
    last = _turned(seen[:, : taps - 1]) if reverse else seen[:, x.shape[1] :]
    return _convolve(x, seen, weight, bias, reverse), last if state is None else last.to(state.dtype)


def _turned(rows: Tensor) -> Tensor:
    """Return rows in reversed order, by slices and not by a flip."""
    return torch.cat([rows[:, i : i + 1] for i in range(rows.shape[1] - 1, -1, -1)], 1)


def _convolve(x: Tensor, seen: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """Convolve x (B, L, D), of which `seen` (B, L + K - 1, D) has the K - 1 steps before it, too, and apply SiLU."""
    length, taps = x.shape[1], weight.shape[1]
    y = x * weight[:, -1] if bias is None else x * weight[:, -1] + bias
    for tap in range(taps - 1):
        start = taps - 1 - tap if reverse else tap
        y = y + seen[:, start : start + length] * weight[:, tap]
    return y * torch.sigmoid(y)
