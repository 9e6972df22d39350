"""The scan by PyTorch's scan operator: the form ``"scan"``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .tokens import Direction, Tokens, clear_first


def scan(tokens: Tokens, direction: Direction, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scan token after token.

    A step is six operations on tensors that are small enough for a CPU's first-level cache.

    Args:
        tokens: All tokens, in forward order.
        direction: How the tokens are scanned.
        state: (B, N, D) state before the first scanned token.

    Returns:
        The state term, (B, L, D), in forward order, and the last state, (B, N, D).
    """
    from torch._higher_order_ops.scan import scan as scan_operator

    def step(state: Tensor, token: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        delta, du, B, C = token  # (B, 1, D), (B, 1, D), (B, N, 1), (B, 1, N)
        decayed = torch.exp(delta * direction.rate) * state
        state = decayed + du * B
        return state, torch.matmul(C, decayed if direction.mask else state)

    delta, du, B, C = (t.transpose(0, 1) for t in tokens)
    token_matrices = (delta[:, :, None], du[:, :, None], B[..., None], C[:, :, None])
    last, y = scan_operator(step, state, token_matrices, reverse=direction.reverse)
    return y.squeeze(2).transpose(0, 1), last


def scan_both(tokens: Tokens, forward: Direction, backward: Direction, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scan both directions by one scan, of the tokens and, as more items of the batch, of the tokens flipped.

    Args:
        tokens: All tokens, in forward order.
        forward: How the tokens are scanned forwards, without a mask.
        backward: How the tokens are scanned backwards, with or without a mask.
        state: (2 B, N, D) states before the first scanned token, those of the forward direction first.

    Returns:
        The sum of both state terms, (B, L, D), in forward order, and the last state of the forward direction,
        (B, N, D).
    """
    batch = len(tokens.B)
    both = Tokens(*(torch.cat([t, t.flip(1)]) for t in tokens))
    rate = torch.cat([direction.rate.expand(batch, -1, -1) for direction in (forward, backward)])
    y, last = scan(both, Direction(rate, False, backward.mask), state)
    y, y_b = y[:batch], y[batch:]
    if backward.mask:  # the mask left the tokens' own contributions out of the forward direction, too
        y = y + tokens.du * (tokens.B * tokens.C).sum(2, keepdim=True)
        y_b = clear_first(y_b, False)
    return y + y_b.flip(1), last[:batch]
