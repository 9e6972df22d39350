"""Carry the state from chunk to chunk: h_k = decay_k h_{k-1} + increment_k for the chunks k."""

from __future__ import annotations

import torch
from torch import Tensor

from .form import Form
from .prefixes import prefixes, previous_states
from .tokens import indices, slice_at


def states_before(decay: Tensor, increment: Tensor, state: Tensor, reverse: bool, form: Form) -> tuple[Tensor, Tensor]:
    """Compute the state before each chunk, and the state after all.

    Args:
        decay: (R, K, N, D) decay over each chunk.
        increment: (R, K, N, D) state at the end of each chunk from a start of zero.
        state: (R, 1, N, D) state before the first scanned chunk.
        reverse: Scan k from the end.
        form: How the recurrence over k is computed.

    Returns:
        The states before the chunks, (R, K, N, D), and the last state, (R, 1, N, D).
    """
    count = increment.shape[1]
    if form.form == "hillis-steele":
        decay, increment = prefixes(decay, increment, reverse)
        states = decay * state + increment
        return previous_states(states, state, reverse), slice_at(states, 0 if reverse else count - 1)
    if count > form.chunk:
        return _by_groups(decay, increment, state, reverse, form)
    before: list[Tensor] = [state] * count
    for k in indices(count, reverse):
        before[k] = state
        state = slice_at(decay, k) * state + slice_at(increment, k)
    return torch.cat(before, 1), state


def _by_groups(decay: Tensor, increment: Tensor, state: Tensor, reverse: bool, form: Form) -> tuple[Tensor, Tensor]:
    """Do the work of `states_before` for more than `form.chunk` chunks: the remainder first, then whole groups."""
    rest = increment.shape[1] % form.chunk
    cuts = [slice(rest, None), slice(0, rest)] if reverse else [slice(0, rest), slice(rest, None)]
    outputs = []
    for cut in cuts if rest else [slice(None)]:
        walk = _by_whole_groups if cut.stop is None else states_before
        before, state = walk(decay[:, cut], increment[:, cut], state, reverse, form)
        outputs.append(before)
    return torch.cat(outputs[::-1] if reverse else outputs, 1), state


def _by_whole_groups(
    decay: Tensor, increment: Tensor, state: Tensor, reverse: bool, form: Form
) -> tuple[Tensor, Tensor]:
    """Compute the states before groups of `form.chunk` chunks first, then the states inside all groups at once."""
    rows, count, *size = increment.shape
    groups, group = (rows, count // form.chunk, *size), (-1, form.chunk, *size)
    decay, increment = decay.reshape(group), increment.reshape(group)
    order = indices(form.chunk, reverse)
    group_decay, group_increment = slice_at(decay, order[0]), slice_at(increment, order[0])
    for k in order[1:]:
        group_decay, group_increment = (
            slice_at(decay, k) * group_decay,
            slice_at(decay, k) * group_increment + slice_at(increment, k),
        )
    before, last = states_before(group_decay.reshape(groups), group_increment.reshape(groups), state, reverse, form)
    inside, _ = states_before(decay, increment, before.reshape(-1, 1, *size), reverse, form)
    return inside.reshape(rows, count, *size), last
