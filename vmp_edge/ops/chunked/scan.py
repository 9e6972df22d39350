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
    y, _ = _state_term(x, dt, [direction], B, C, dt_bias, initial_state, None, form)
    return _skip_and_gate(y, x, D, z)


def selective_scan_with_state(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    reverse: bool = False,
    initial_state: str = "zero",
    mask_diagonal: bool = False,
    form: Form = DEFAULT,
) -> tuple[Tensor, Tensor]:
    """Compute `reference.selective_scan` with its state, by ordinary operations.

    Args:
        x, dt, A, B, C, D, z, dt_bias, reverse, initial_state, mask_diagonal: As in `selective_scan`.
        state: (B, D, N) state before the first scanned token, or None.
        form: How the scan is written.

    Returns:
        (B, L, D), in the dtype of ``x``, and the last state, (B, D, N), in that of ``state``, or of ``x``.

    Raises:
        ValueError: ``initial_state`` or ``form`` does not exist.
    """
    direction = Direction(A.t().contiguous(), reverse, mask_diagonal)
    y, last = _state_term(x, dt, [direction], B, C, dt_bias, initial_state, state, form)
    return _skip_and_gate(y, x, D, z), last


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
    y, _ = _state_term(x, dt, _both(A, A_b, mask_backward), B, C, dt_bias, initial_state, None, form)
    return _skip_and_gate(y, x, None if D is None else 2.0 * D, z)


def bi_selective_scan_with_state(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    A_b: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    initial_state: str = "zero",
    mask_backward: bool = False,
    form: Form = DEFAULT,
) -> tuple[Tensor, Tensor]:
    """Compute `reference.bi_selective_scan` with the state of its forward direction, by ordinary operations.

    Args:
        x, dt, A, A_b, B, C, D, z, dt_bias, initial_state, mask_backward: As in `bi_selective_scan`.
        state: (B, D, N) state of the forward direction before the first token, or None.
        form: How the scan is written.

    Returns:
        (B, L, D), in the dtype of ``x``, and the last state, (B, D, N), in that of ``state``, or of ``x``.

    Raises:
        ValueError: ``initial_state`` or ``form`` does not exist.
    """
    y, last = _state_term(x, dt, _both(A, A_b, mask_backward), B, C, dt_bias, initial_state, state, form)
    return _skip_and_gate(y, x, None if D is None else 2.0 * D, z), last


def _both(A: Tensor, A_b: Tensor, mask_backward: bool) -> list[Direction]:
    rate = A.t().contiguous()
    rate_b = rate if A_b is A else A_b.t().contiguous()
    return [Direction(rate, False, False), Direction(rate_b, True, mask_backward)]


def _state_term(
    x: Tensor,
    dt: Tensor,
    directions: Sequence[Direction],
    B: Tensor,
    C: Tensor,
    dt_bias: Tensor | None,
    initial_state: str,
    state: Tensor | None,
    form: Form,
) -> tuple[Tensor, Tensor]:
    """Compute the state term of one direction, or of the forward and the backward direction.

    Args:
        x, dt, B, C, dt_bias, initial_state, form: As in `selective_scan`.
        directions: The directions.
        state: (B, D, N) state of the first direction before its first token, or None.

    Returns:
        sum_n C h, summed over the directions, (B, L, D), and the last state of the first direction, (B, D, N).
    """
    if initial_state not in reference.INITIAL_STATES:
        names = ", ".join(reference.INITIAL_STATES)
        raise ValueError(f"initial_state is {initial_state!r}; it must be one of {names}")
    require_form(form)
    delta = softplus(dt if dt_bias is None else dt + dt_bias, form.softplus)
    tokens = Tokens(delta, delta * x, B, C)
    states = []
    for index, direction in enumerate(directions):
        if index == 0 and state is not None:
            states.append(state.to(x.dtype).transpose(1, 2).contiguous())
            continue
        first = slice_at(x, x.shape[1] - 1 if direction.reverse else 0)
        start = first if initial_state == "first_input" else first * 0.0
        states.append(start.expand(-1, B.shape[2], -1).contiguous())  # a scan operator wants one layout throughout
    if form.form == "scan" and len(directions) == 2:
        y, last = torch_scan.scan_both(tokens, directions[0], directions[1], torch.cat(states))
        return y, _as_state(last, state)
    scan = partial(torch_scan.scan, tokens) if form.form == "scan" else partial(chunks.scan, chunks.cut(tokens, form))
    results = [scan(direction, start) for direction, start in zip(directions, states, strict=True)]
    outputs = []
    for index, (direction, (y, _)) in enumerate(zip(directions, results, strict=True)):
        fresh = index > 0 or state is None
        outputs.append(clear_first(y, direction.reverse) if direction.mask and fresh else y)
    return outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1], _as_state(results[0][1], state)


def _as_state(last: Tensor, state: Tensor | None) -> Tensor:
    """Return a last state (B, N, D) as (B, D, N), in the dtype of the state that was given."""
    last = last.transpose(1, 2)
    return last if state is None else last.to(state.dtype)


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + D * x
    return y if z is None else y * (z * torch.sigmoid(z))
