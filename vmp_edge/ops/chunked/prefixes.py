"""Prefixes of the recurrence h_k = decay_k h_{k-1} + increment_k by doubling, for the form ``"hillis-steele"``."""

from __future__ import annotations

import torch
from torch import Tensor


def prefixes(decay: Tensor, increment: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Combine each position with all positions that are scanned before it.

    Args:
        decay: (R, K, N, D) decays.
        increment: (R, K, N, D) increments of the state.
        reverse: Scan k from the end.

    Returns:
        The products of the decays up to each position, and the states there from a start of zero, both (R, K, N, D).
    """
    step, length = 1, increment.shape[1]
    while step < length:
        if reverse:
            moved = decay[:, :-step] * increment[:, step:] + increment[:, :-step]
            increment = torch.cat([moved, increment[:, -step:]], 1)
            decay = torch.cat([decay[:, :-step] * decay[:, step:], decay[:, -step:]], 1)
        else:
            moved = decay[:, step:] * increment[:, :-step] + increment[:, step:]
            increment = torch.cat([increment[:, :step], moved], 1)
            decay = torch.cat([decay[:, :step], decay[:, step:] * decay[:, :-step]], 1)
        step *= 2
    return decay, increment


def previous_states(states: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """Return the state before each position.

    Args:
        states: (R, K, N, D) states after each position.
        first: (R, 1, N, D) state before the first scanned position.
        reverse: The positions are scanned from the end.

    Returns:
        (R, K, N, D).
    """
    if reverse:
        return torch.cat([states[:, 1:], first], 1)
    return torch.cat([first, states[:, :-1]], 1)
