"""The reference of the scan and the convolution in plain PyTorch: short, slow, differentiable.

It defines what the operators compute, and every kernel is compared with it.

The recurrence (Mamba, arXiv 2312.00752, section 3.2, with the Euler step for B as in the released code), for the steps
t = 0 .. L-1 in scanning order, and for each channel d and state n::

    delta_t = softplus(dt_t + dt_bias)
    h_t     = exp(delta_t A) * h_{t-1} + delta_t B_t x_t
    y_t     = sum_n C_t h_t + D x_t
    y_t     = y_t * silu(z_t)                                      (when z is given)

VideoMambaPro (arXiv 2406.19006, section 4) changes two things:

* Elemental residual (``initial_state="first_input"``): h_{-1} is the first scanned x, broadcast over n.
* Masked backward (``mask_diagonal=True``): the state term leaves the step's own contribution out,
  sum_n C_t (h_t - delta_t B_t x_t), and is zero at the first scanned step.

A sequence may come in several calls, each of which goes on where the last one ended. Given a ``state``, a scan starts
there: h_{-1} is the state, whatever ``initial_state`` says, and the first step is masked like all others, with nothing
set to zero. The last state is h after the last scanned step. For the convolution, the state has the K - 1 inputs before
the first step, the oldest first. Without a state these inputs are zero. In `bi_selective_scan` only the forward
direction has a state; the backward one starts afresh at the end of what the call is given. States are float32, or
float64 where the inputs are.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

INITIAL_STATES = ("zero", "first_input")


@overload
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
    state: Tensor | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...


@overload
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
    state: Tensor | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


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
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan one direction of the sequence.

    Args:
        x: (B, L, D) inputs.
        dt: (B, L, D) step sizes before ``dt_bias`` and softplus.
        A: (D, N) decay rates, negative.
        B: (B, L, N) input projections.
        C: (B, L, N) output projections.
        D: (D,) skip weights, or None for no skip term.
        z: (B, L, D) gate; the output is multiplied by SiLU(z). None for no gate.
        dt_bias: (D,) bias that is added to ``dt`` before softplus, or None.
        reverse: Walk the sequence from its end; the output stays in forward order.
        initial_state: ``"zero"``, or ``"first_input"`` for the elemental residual.
        mask_diagonal: Leave each step's own contribution out of the state term.
        state: (B, D, N) state before the first scanned step, or None to start as `initial_state` says.
        return_state: Return the last state, too.

    Returns:
        (B, L, D), in the dtype of ``x``; with `return_state` a pair of it and of the last state, (B, D, N).

    Raises:
        ValueError: ``initial_state`` is not one of `INITIAL_STATES`.
    """
    y, last = _state_term(x, dt, A, B, C, dt_bias, reverse, initial_state, mask_diagonal, state)
    y = _skip_and_gate(y, x, D, z)
    return (y, last) if return_state else y


@overload
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
    state: Tensor | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...


@overload
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
    state: Tensor | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


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
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan both directions with shared weights and add them up.

    The result is ``selective_scan(A) + selective_scan(A_b, reverse=True, mask_diagonal=mask_backward)``. Each direction
    adds its own skip term, so that the skip term counts twice, as in the released VideoMambaPro code.

    Args:
        x, dt, A, B, C, D, z, dt_bias, initial_state: As in `selective_scan`.
        A_b: (D, N) decay rates of the backward direction.
        mask_backward: ``mask_diagonal`` for the backward direction.
        state: (B, D, N) state of the forward direction before the first step, or None. The backward direction always
            starts as `initial_state` says.
        return_state: Return the last state of the forward direction, too.

    Returns:
        (B, L, D), in the dtype of ``x``; with `return_state` a pair of it and of the last state, (B, D, N).

    Raises:
        ValueError: ``initial_state`` is not one of `INITIAL_STATES`.
    """
    y, last = _state_term(x, dt, A, B, C, dt_bias, False, initial_state, False, state)
    y = y + _state_term(x, dt, A_b, B, C, dt_bias, True, initial_state, mask_backward, None)[0]
    y = _skip_and_gate(y, x, None if D is None else 2 * D, z)
    return (y, last) if return_state else y


@overload
def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    state: Tensor | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...


@overload
def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    state: Tensor | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Apply a depthwise causal convolution over the sequence, then SiLU.

    Args:
        x: (B, L, D) inputs.
        weight: (D, K) taps; the last column multiplies the current step.
        bias: (D,) bias, or None.
        reverse: Let each step see the K - 1 steps after it instead of the K - 1 steps before it; nothing is flipped.
        state: (B, K - 1, D) inputs scanned before the first step, the oldest first, or None for zeros.
        return_state: Return the last K - 1 inputs, too.

    Returns:
        (B, L, D), in the dtype of ``x``; with `return_state` a pair of it and of the last inputs, (B, K - 1, D).
    """
    before = weight.shape[1] - 1
    if state is None:
        state = x.new_zeros(x.shape[0], before, x.shape[2], dtype=wide_dtype(x))
    seen = torch.cat([x, state.to(x.dtype).flip(1)] if reverse else [state.to(x.dtype), x], 1)
    kernel = (weight.flip(1) if reverse else weight).unsqueeze(1)
    y = F.silu(F.conv1d(seen.transpose(1, 2), kernel, bias, groups=x.shape[2])).transpose(1, 2)
    last = seen[:, :before].flip(1) if reverse else seen[:, seen.shape[1] - before :]
    return (y, last.to(state.dtype)) if return_state else y


def wide_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which the states of an operator are: float32, or float64 where the inputs are."""
    return torch.promote_types(x.dtype, torch.float32)


def _state_term(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    dt_bias: Tensor | None,
    reverse: bool,
    initial_state: str,
    mask_diagonal: bool,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return sum_n C h of one direction, (B, L, D) in forward order, and the last h, in float32 or wider."""
    if initial_state not in INITIAL_STATES:
        raise ValueError(f"initial_state is {initial_state!r}; it must be one of {', '.join(INITIAL_STATES)}")
    wide = wide_dtype(x)
    x, dt, A, B, C = (t.to(wide) for t in (x, dt, A, B, C))
    delta = F.softplus(dt if dt_bias is None else dt + dt_bias.to(wide))
    length = x.shape[1]
    order = range(length - 1, -1, -1) if reverse else range(length)
    first = order[0]
    if state is not None:
        h = state.to(wide)
    else:
        h = x[:, first, :, None].expand(-1, -1, A.shape[1])
        if initial_state == "zero":
            h = torch.zeros_like(h)
    outputs: list[Tensor] = [x.new_empty(0)] * length
    for t in order:
        decayed = torch.exp(delta[:, t, :, None] * A) * h
        h = decayed + (delta[:, t] * x[:, t]).unsqueeze(2) * B[:, t, None, :]
        visible = h
        if mask_diagonal:
            visible = torch.zeros_like(h) if t == first and state is None else decayed
        outputs[t] = (visible * C[:, t, None, :]).sum(2)
    return torch.stack(outputs, 1), h


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + D.to(y.dtype) * x.to(y.dtype)
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return y.to(x.dtype)
