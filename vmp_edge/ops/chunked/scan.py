"""Both scan operators made of ordinary tensor operations, in any form."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from .. import reference
from . import chunks, torch_scan
from .activation import softplus
from .form import DEFAULT, Form, require_form
from .tokens import Direction, Tokens, clear_first, slice_at


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    reverse: bool = False,
    initial_state: str = "zero",
    mask_diagonal: bool = False,
    form: Form = DEFAULT,
) -> Tensor:
    """Compute `reference.selective_scan` by ordinary operations.

    Args:
        x, dt, A, B, C, D, z, dt_bias, reverse, initial_state, mask_diagonal: As in the reference, all of one dtype.
        form: How the scan is written.

    Returns:
        (B, L, D), in the dtype of ``x``.

    Raises:
        ValueError: ``initial_state`` or ``form`` does not exist.
    """
    direction = Direction(A.t().contiguous(), reverse, mask_diagonal)
    y = _state_term(x, dt, [direction], B, C, dt_bias, initial_state, form)
    return _skip_and_gate(y, x, D, z)


def bi_selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    A_b: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    initial_state: str = "zero",
    mask_backward: bool = False,
    form: Form = DEFAULT,
) -> Tensor:
    """Compute `reference.bi_selective_scan` by ordinary operations.

    The directions share the step sizes and what each token adds to the state.

    Args:
        x, dt, A, A_b, B, C, D, z, dt_bias, initial_state, mask_backward: As in the reference, all of one dtype. Where
            ``A_b`` is ``A`` itself, the directions share the decays, too.
        form: How the scan is written.

    Returns:
        (B, L, D), in the dtype of ``x``.

    Raises:
        ValueError: ``initial_state`` or ``form`` does not exist.
    """
    rate = A.t().contiguous()
    rate_b = rate if A_b is A else A_b.t().contiguous()
    directions = [Direction(rate, False, False), Direction(rate_b, True, mask_backward)]
    y = _state_term(x, dt, directions, B, C, dt_bias, initial_state, form)
    return _skip_and_gate(y, x, None if D is None else 2.0 * D, z)


def _state_term(
    x: Tensor,
    dt: Tensor,
    directions: Sequence[Direction],
    B: Tensor,
    C: Tensor,
    dt_bias: Tensor | None,
    initial_state: str,
    form: Form,
) -> Tensor:
    """Return sum_n C h of one direction, or summed over the forward and the backward direction: (B, L, D)."""
    if initial_state not in reference.INITIAL_STATES:
        names = ", ".join(reference.INITIAL_STATES)
        raise ValueError(f"initial_state is {initial_state!r}; it must be one of {names}")
    require_form(form)
    delta = softplus(dt if dt_bias is None else dt + dt_bias, form.softplus)
    tokens = Tokens(delta, delta * x, B, C)
    states = []
    for direction in directions:
        first = slice_at(x, x.shape[1] - 1 if direction.reverse else 0)
        start = first if initial_state == "first_input" else first * 0.0
        states.append(start.expand(-1, B.shape[2], -1).contiguous())  # a scan operator wants one layout throughout
    if form.form == "scan" and len(directions) == 2:
        return torch_scan.scan_both(tokens, directions[0], directions[1], torch.cat(states))
    scan = partial(torch_scan.scan, tokens) if form.form == "scan" else partial(chunks.scan, chunks.cut(tokens, form))
    outputs = []
    for direction, state in zip(directions, states, strict=True):
        y = scan(direction, state)
        outputs.append(clear_first(y, direction.reverse) if direction.mask else y)
    return outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1]


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + D * x
    return y if z is None else y * (z * torch.sigmoid(z))
