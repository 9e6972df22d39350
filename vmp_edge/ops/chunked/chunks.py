"""The scan over chunks of neighbouring tokens: the forms ``"loop"`` and ``"hillis-steele"``."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from .carry import states_before
from .form import Form
from .prefixes import prefixes, previous_states
from .tokens import Direction, Tokens, indices, slice_at


def cut(tokens: Tokens, form: Form) -> list[Chunks]:
    """Cut the tokens into whole chunks and, before them, the remainder if there is any."""
    length = tokens.delta.shape[1]
    cuts = sorted({0, length % form.chunk, length})
    return [Chunks(tokens.part(*ends), form) for ends in pairwise(cuts)]


def scan(parts: list[Chunks], direction: Direction, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scan part after part in the direction's order.

    Args:
        parts: All tokens, in forward order.
        direction: How the tokens are scanned.
        state: (B, N, D) state before the first scanned token.

    Returns:
        The state term, (B, L, D), in forward order, and the last state, (B, N, D).
    """
    outputs = []
    for part in reversed(parts) if direction.reverse else parts:
        y, state = part.scan(direction, state)
        outputs.append(y)
    return torch.cat(outputs[::-1] if direction.reverse else outputs, 1), state


class Chunks:
    """Tokens that make up whole chunks, or one shorter chunk. It keeps what both directions use.

    Args:
        tokens: The tokens.
        form: How the tokens are scanned.
    """

    def __init__(self, tokens: Tokens, form: Form) -> None:
        self.form = form
        self.batch, self.length = tokens.B.shape[:2]
        self.chunk = min(form.chunk, self.length)
        self.chunks = self.length // self.chunk
        self.tokens = tokens.in_chunks(self.chunk)
        self._decays: tuple[Tensor, list[Tensor]] | None = None
        self._increments: list[Tensor] | None = None

    def scan(self, direction: Direction, state: Tensor) -> tuple[Tensor, Tensor]:
        """Scan all tokens.

        Args:
            direction: How the tokens are scanned.
            state: (B, N, D) state before the first scanned token.

        Returns:
            The state term, (B, length, D) in forward order, and the last state, (B, N, D).
        """
        if self.form.form == "hillis-steele":
            return self._scan_by_doubling(direction, state)
        return self._scan_by_steps(direction, state)

    def _scan_by_steps(self, direction: Direction, state: Tensor) -> tuple[Tensor, Tensor]:
        order = indices(self.chunk, direction.reverse)
        decays, increments = self._decay_of_each(direction.rate), self._increment_of_each()
        last = None
        if self.chunks > 1:
            increment = increments[order[0]]
            for i in order[1:]:
                increment = decays[i] * increment + increments[i]
            decay = torch.exp(self.tokens.delta.sum(1, keepdim=True) * direction.rate)
            state, last = self._carry(decay, increment, state, direction.reverse)
        outputs: list[Tensor] = [state] * self.chunk
        weights = self.tokens.C.transpose(1, 2)
        for i in order:
            decayed = decays[i] * state
            state = decayed + increments[i]
            visible = decayed if direction.mask else state
            outputs[i] = (visible * weights[:, :, i : i + 1]).sum(1, keepdim=True)
        y = torch.cat(outputs, 1).reshape(self.batch, self.length, -1)
        return y, state if last is None else last

    def _decay_of_each(self, rate: Tensor) -> list[Tensor]:
        """Return exp(delta A) of each position of the chunks, (B * K, N, D)."""
        if self._decays is None or self._decays[0] is not rate:
            delta = self.tokens.delta
            self._decays = rate, [torch.exp(slice_at(delta, i) * rate) for i in range(self.chunk)]
        return self._decays[1]

    def _increment_of_each(self) -> list[Tensor]:
        """Return delta B x, which each position of the chunks adds to the state, (B * K, N, D)."""
        if self._increments is None:
            du, B = self.tokens.du, self.tokens.B.transpose(1, 2)
            self._increments = [slice_at(du, i) * B[:, :, i : i + 1] for i in range(self.chunk)]
        return self._increments

    def _scan_by_doubling(self, direction: Direction, state: Tensor) -> tuple[Tensor, Tensor]:
        tokens, reverse = self.tokens, direction.reverse
        decay = torch.exp(tokens.delta[:, :, None] * direction.rate)
        total_decay, from_zero = prefixes(decay, self._increment_of_all(), reverse)
        last_state, last = None, 0 if reverse else self.chunk - 1
        if self.chunks > 1:
            state, last_state = self._carry(slice_at(total_decay, last), slice_at(from_zero, last), state, reverse)
        states = total_decay * state[:, None] + from_zero
        visible = decay * previous_states(states, state[:, None], reverse) if direction.mask else states
        y = (visible * tokens.C[..., None]).sum(2).reshape(self.batch, self.length, -1)
        return y, slice_at(states, last).flatten(0, 1) if last_state is None else last_state

    def _increment_of_all(self) -> Tensor:
        """Return delta B x of all positions of the chunks in one tensor, (B * K, chunk, N, D)."""
        if self._increments is None:
            self._increments = [self.tokens.du[:, :, None] * self.tokens.B[..., None]]
        return self._increments[0]

    def _carry(self, decay: Tensor, increment: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        """Carry the state over the chunks.

        Args:
            decay: Decay over each chunk, of B * K chunks.
            increment: State at the end of each chunk from a start of zero, of B * K chunks.
            state: (B, N, D) state before the first scanned chunk.
            reverse: The chunks are scanned from the last to the first.

        Returns:
            The states before all chunks, (B * K, N, D), and the last state, (B, N, D).
        """
        size = increment.shape[-2:]
        shape = (self.batch, self.chunks, *size)
        before, last = states_before(decay.reshape(shape), increment.reshape(shape), state[:, None], reverse, self.form)
        return before.reshape(-1, *size), last.reshape(-1, *size)
