"""Tokens, the direction in which they are scanned, and positions among them, for every form of the scan."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Direction(NamedTuple):
    """A way to scan the tokens.

    Attributes:
        rate: Decay rates A, transposed: (N, D), or (B, N, D) for rates of each batch item.
        reverse: Scan from the last token to the first.
        mask: Leave each token's own contribution out of its output.
    """

    rate: Tensor
    reverse: bool
    mask: bool


class Tokens(NamedTuple):
    """Neighbouring tokens.

    Attributes:
        delta: (B, L, D) step sizes after softplus.
        du: (B, L, D) step sizes times inputs, delta x.
        B: (B, L, N) input projections.
        C: (B, L, N) output projections.
    """

    delta: Tensor
    du: Tensor
    B: Tensor
    C: Tensor

    def part(self, start: int, stop: int) -> Tokens:
        """Return the tokens from `start` up to `stop`."""
        return Tokens(*(t[:, start:stop] for t in self))

    def in_chunks(self, chunk: int) -> Tokens:
        """Fold K chunks into the batch: (B, K * chunk, ...) becomes (B * K, chunk, ...)."""
        return Tokens(*(t.reshape(-1, chunk, t.shape[2]) for t in self))


def indices(count: int, reverse: bool) -> range:
    """Return the positions 0 .. count - 1 in the order in which they are scanned."""
    return range(count - 1, -1, -1) if reverse else range(count)


def slice_at(tensor: Tensor, index: int) -> Tensor:
    """Return one position of dimension 1 and keep the dimension: this is a slice, where indexing would gather."""
    return tensor[:, index : index + 1]


def clear_first(y: Tensor, reverse: bool) -> Tensor:
    """Set the state term of the first scanned token to zero: a masked token has no state behind it."""
    return torch.cat([y[:, :-1], y[:, -1:] * 0.0], 1) if reverse else torch.cat([y[:, :1] * 0.0, y[:, 1:]], 1)
