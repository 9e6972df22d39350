"""The scan and the convolution made of ordinary tensor operations, for NPUs and ONNX, where no kernel of ours can run.

Same contract as `reference`, same numbers, other means: slices, concatenation, reshape, multiply, add, exp, a sum over
the states, with static shapes. Unlike the reference everything is computed in the dtype of the inputs, as devices do.
States lie as (..., N, D), channels innermost, in at most four dimensions. Only the form ``"scan"`` flips; in the others
a reversed scan takes its positions in reversed order.

There are three forms. The first two cut the L tokens into chunks of `chunk` neighbours, the remainder first:
VideoMamba's class token alone where `chunk` divides the number of patches.

* ``"loop"``: step through all chunks at once, from zero, for the state that each adds; carry that from chunk to chunk
  by the same means; step through again from the right states. A chunk's decay is exp(A * its summed steps), which
  cannot overflow. Cumulative exponents with their inverses would, and are not used anywhere here.
* ``"hillis-steele"``: in place of stepping, log2(chunk) doublings (Hillis and Steele, 1986, doi 10.1145/7902.7903):
  fewer operations, more elements written.
* ``"scan"``: one step as the body of PyTorch's scan operator, which runs it for each token. For backends that have such
  an operator (ONNX has Scan): few nodes whatever the length. Backwards, what it reads and writes is flipped, all of
  (B, L, D) or less; both directions are one scan, folded into the batch. Only for exported graphs: elsewhere PyTorch
  would compile it.

`benchmarks/results/scan_chunked.md` says what each costs and how far it is from the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference

FORMS = ("loop", "hillis-steele", "scan")
SOFTPLUS = ("operator", "polynomial")

# log(1 + e) / e for e in 0 .. 1: a least-squares fit at Chebyshev nodes, reweighted until the largest relative error
# was smallest, 3e-8; 1.5e-7 when it is evaluated in float32.
_LOG1P = (
    0.99999994, -0.499994934, 0.333190978, -0.24842982, 0.191060081, -0.136632472, 0.0782259628, -0.0295052398,
    0.00523269363,
)  # fmt: skip


class Form(NamedTuple):
    """How a scan is written.

    Attributes:
        form: one of `FORMS`.
        chunk: tokens of a chunk, at least 2; of no use to ``"scan"``.
        softplus: ``"operator"``, or ``"polynomial"`` where a backend has neither softplus nor log.
    """

    form: str = "loop"
    chunk: int = 16
    softplus: str = "operator"


DEFAULT = Form()


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
    """`reference.selective_scan` in a form for NPUs.

    Args:
        x, dt, A, B, C, D, z, dt_bias, reverse, initial_state, mask_diagonal: as there, all of one dtype.
        form: how it is written.

    Returns:
        (B, L, D), in the dtype of ``x``.

    Raises:
        ValueError: ``initial_state`` or ``form`` is not one there is.
    """
    direction = _Direction(A.t().contiguous(), reverse, mask_diagonal)
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
    """`reference.bi_selective_scan` in a form for NPUs; the directions share step sizes and what tokens add.

    Args:
        x, dt, A, A_b, B, C, D, z, dt_bias, initial_state, mask_backward: as there, all of one dtype. Where ``A_b`` is
            ``A`` itself, the decays are shared, too.
        form: how it is written.

    Returns:
        (B, L, D), in the dtype of ``x``.

    Raises:
        ValueError: ``initial_state`` or ``form`` is not one there is.
    """
    rate = A.t().contiguous()
    rate_b = rate if A_b is A else A_b.t().contiguous()
    directions = [_Direction(rate, False, False), _Direction(rate_b, True, mask_backward)]
    y = _state_term(x, dt, directions, B, C, dt_bias, initial_state, form)
    return _skip_and_gate(y, x, None if D is None else 2.0 * D, z)


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """`reference.causal_conv_silu` as a sum of shifted slices: nothing is transposed.

    Args:
        x: (B, L, D).
        weight: (D, K).
        bias: (D,) or None.
        reverse: as there.

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


def softplus(v: Tensor, kind: str = "operator") -> Tensor:
    """log(1 + exp(v)), of any shape: accurate far below zero, exact far above, never an overflow.

    Args:
        v: any shape.
        kind: one of `SOFTPLUS`.
    """
    if kind == "operator":
        return F.softplus(v)
    above = torch.relu(v)
    e = torch.exp(v - 2.0 * above)  # of -|v|; 2 would be a whole number to be converted, in some graphs
    series = e * _LOG1P[-1] + _LOG1P[-2]
    for coefficient in reversed(_LOG1P[:-2]):
        series = series * e + coefficient
    return above + e * series


# ------------------------------------------------------------------------------------------------- the state term


class _Direction(NamedTuple):
    """A transposed, (N, D) or one of each item of the batch, and how the tokens are walked."""

    rate: Tensor
    reverse: bool
    mask: bool


class _Tokens(NamedTuple):
    """Neighbouring tokens: delta and its product with x, (B, L, D); B and C, (B, L, N)."""

    delta: Tensor
    du: Tensor
    B: Tensor
    C: Tensor

    def part(self, start: int, stop: int) -> _Tokens:
        return _Tokens(*(t[:, start:stop] for t in self))

    def folded(self, chunk: int) -> _Tokens:
        """(B, K * chunk, ...) as (B * K, chunk, ...)."""
        return _Tokens(*(t.reshape(-1, chunk, t.shape[2]) for t in self))


def _state_term(
    x: Tensor,
    dt: Tensor,
    directions: Sequence[_Direction],
    B: Tensor,
    C: Tensor,
    dt_bias: Tensor | None,
    initial_state: str,
    form: Form,
) -> Tensor:
    """sum_n C h of all directions, (B, L, D)."""
    _check(initial_state, form)
    delta = softplus(dt if dt_bias is None else dt + dt_bias, form.softplus)
    tokens = _Tokens(delta, delta * x, B, C)
    states = []
    for direction in directions:
        first = _at(x, x.shape[1] - 1 if direction.reverse else 0)
        start = first if initial_state == "first_input" else first * 0.0
        states.append(start.expand(-1, B.shape[2], -1).contiguous())  # a scan operator wants one layout throughout
    if form.form == "scan" and len(directions) == 2:
        return _both_folded(tokens, directions, torch.cat(states))
    scan = partial(_scan_operator, tokens) if form.form == "scan" else partial(_walk_parts, _parts(tokens, form))
    outputs = []
    for direction, state in zip(directions, states, strict=True):
        y = scan(direction, state)
        outputs.append(_without_first(y, direction.reverse) if direction.mask else y)
    return outputs[0] if len(outputs) == 1 else outputs[0] + outputs[1]


def _check(initial_state: str, form: Form) -> None:
    if initial_state not in reference.INITIAL_STATES:
        names = ", ".join(reference.INITIAL_STATES)
        raise ValueError(f"initial_state is {initial_state!r}; it must be one of {names}")
    if form.form not in FORMS or form.softplus not in SOFTPLUS or form.chunk < 2:
        raise ValueError(
            f"{form} is not a form of the scan; form is one of {', '.join(FORMS)}, chunk at least 2, "
            f"softplus one of {', '.join(SOFTPLUS)}"
        )


def _parts(tokens: _Tokens, form: Form) -> list[_Part]:
    length = tokens.delta.shape[1]
    cuts = sorted({0, length % form.chunk, length})
    return [_Part(tokens.part(*cut), form) for cut in pairwise(cuts)]


def _walk_parts(parts: list[_Part], direction: _Direction, state: Tensor) -> Tensor:
    """Part after part in the direction's order; the outputs in forward order, (B, L, D)."""
    outputs = []
    for part in reversed(parts) if direction.reverse else parts:
        y, state = part.walk(direction, state)
        outputs.append(y)
    return torch.cat(outputs[::-1] if direction.reverse else outputs, 1)


def _without_first(y: Tensor, reverse: bool) -> Tensor:
    """Nothing at the first scanned token: a masked token has no state behind it."""
    return torch.cat([y[:, :-1], y[:, -1:] * 0.0], 1) if reverse else torch.cat([y[:, :1] * 0.0, y[:, 1:]], 1)


class _Part:
    """Tokens that are whole chunks, or fewer than one; keeps what both directions use.

    Args:
        tokens: the tokens.
        form: how they are scanned.
    """

    def __init__(self, tokens: _Tokens, form: Form) -> None:
        self.form = form
        self.batch, self.length = tokens.B.shape[:2]
        self.chunk = min(form.chunk, self.length)
        self.chunks = self.length // self.chunk
        self.tokens = tokens.folded(self.chunk)
        self._decays: tuple[Tensor, list[Tensor]] | None = None
        self._added: list[Tensor] | None = None

    def walk(self, direction: _Direction, state: Tensor) -> tuple[Tensor, Tensor]:
        """Scan: the state before the first token (B, N, D) -> the state term (B, length, D), the last state."""
        if self.form.form == "hillis-steele":
            return self._double(direction, state)
        return self._step(direction, state)

    # -------------------------------------------------------------------------------------------------------- loop

    def _step(self, direction: _Direction, state: Tensor) -> tuple[Tensor, Tensor]:
        order = _order(self.chunk, direction.reverse)
        decays, added = self.decays(direction.rate), self.added()
        last = None
        if self.chunks > 1:
            end = added[order[0]]
            for i in order[1:]:
                end = decays[i] * end + added[i]
            total = torch.exp(self.tokens.delta.sum(1, keepdim=True) * direction.rate)
            state, last = self._carry(total, end, state, direction.reverse)
        outputs: list[Tensor] = [state] * self.chunk
        weights = self.tokens.C.transpose(1, 2)
        for i in order:
            decayed = decays[i] * state
            state = decayed + added[i]
            visible = decayed if direction.mask else state
            outputs[i] = (visible * weights[:, :, i : i + 1]).sum(1, keepdim=True)
        y = torch.cat(outputs, 1).reshape(self.batch, self.length, -1)
        return y, state if last is None else last

    def decays(self, rate: Tensor) -> list[Tensor]:
        """exp(delta A) of each position, (B * K, N, D)."""
        if self._decays is None or self._decays[0] is not rate:
            delta = self.tokens.delta
            self._decays = rate, [torch.exp(_at(delta, i) * rate) for i in range(self.chunk)]
        return self._decays[1]

    def added(self) -> list[Tensor]:
        """What each position adds to the state, delta B x, (B * K, N, D)."""
        if self._added is None:
            du, B = self.tokens.du, self.tokens.B.transpose(1, 2)
            self._added = [_at(du, i) * B[:, :, i : i + 1] for i in range(self.chunk)]
        return self._added

    def _carry(self, total: Tensor, end: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
        """The states before all chunks, (B * K, N, D), and the last one, of each chunk's decay and end."""
        size = end.shape[-2:]
        split = (self.batch, self.chunks, *size)
        before, last = _states_before(total.reshape(split), end.reshape(split), state[:, None], reverse, self.form)
        return before.reshape(-1, *size), last.reshape(-1, *size)

    # ----------------------------------------------------------------------------------------------- Hillis-Steele

    def _double(self, direction: _Direction, state: Tensor) -> tuple[Tensor, Tensor]:
        tokens, reverse = self.tokens, direction.reverse
        decay = torch.exp(tokens.delta[:, :, None] * direction.rate)
        total, end = _prefixes(decay, self.added_together(), reverse)
        final, last = None, 0 if reverse else self.chunk - 1
        if self.chunks > 1:
            state, final = self._carry(_at(total, last), _at(end, last), state, reverse)
        states = total * state[:, None] + end
        visible = decay * _shifted(states, state[:, None], reverse) if direction.mask else states
        y = (visible * tokens.C[..., None]).sum(2).reshape(self.batch, self.length, -1)
        return y, _at(states, last).flatten(0, 1) if final is None else final

    def added_together(self) -> Tensor:
        """What all positions add to the state, (B * K, chunk, N, D)."""
        if self._added is None:
            self._added = [self.tokens.du[:, :, None] * self.tokens.B[..., None]]
        return self._added[0]


def _both_folded(tokens: _Tokens, directions: Sequence[_Direction], state: Tensor) -> Tensor:
    """The state term of both directions (B, L, D), by one scan of the tokens and, as more of a batch, of them flipped.

    Args:
        tokens: the tokens.
        directions: forwards, and backwards, which may be masked.
        state: before the first token of each, (2 B, N, D).
    """
    batch, masked = len(tokens.B), directions[1].mask
    both = _Tokens(*(torch.cat([t, t.flip(1)]) for t in tokens))
    rate = torch.cat([direction.rate.expand(batch, -1, -1) for direction in directions])
    y = _scan_operator(both, _Direction(rate, False, masked), state)
    y, y_b = y[:batch], y[batch:]
    if masked:  # which left the tokens' own contributions out forwards, too
        y = y + tokens.du * (tokens.B * tokens.C).sum(2, keepdim=True)
        y_b = _without_first(y_b, False)
    return y + y_b.flip(1)


def _scan_operator(tokens: _Tokens, direction: _Direction, state: Tensor) -> Tensor:
    """As `_walk_parts`, token after token: six operations of a size that stays in a CPU's first cache."""
    from torch._higher_order_ops.scan import scan

    def step(state: Tensor, token: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        delta, du, B, C = token  # (B, 1, D) twice, (B, N, 1), (B, 1, N)
        decayed = torch.exp(delta * direction.rate) * state
        state = decayed + du * B
        return state, torch.matmul(C, decayed if direction.mask else state)

    delta, du, B, C = (t.transpose(0, 1) for t in tokens)
    spread = (delta[:, :, None], du[:, :, None], B[..., None], C[:, :, None])
    y: Tensor = scan(step, state, spread, reverse=direction.reverse)[1]
    return y.squeeze(2).transpose(0, 1)


def _order(count: int, reverse: bool) -> range:
    return range(count - 1, -1, -1) if reverse else range(count)


def _at(tensor: Tensor, index: int) -> Tensor:
    """One position of dimension 1, which stays: a slice, where indexing would gather."""
    return tensor[:, index : index + 1]


def _states_before(decay: Tensor, end: Tensor, state: Tensor, reverse: bool, form: Form) -> tuple[Tensor, Tensor]:
    """h_k = decay_k h_{k-1} + end_k along dimension 1: the states before each k, and the last one.

    Args:
        decay, end: (R, K, N, D).
        state: (R, 1, N, D), the first one.
        reverse: k walks from the end.
        form: by which means.

    Returns:
        (R, K, N, D) and (R, 1, N, D).
    """
    count = end.shape[1]
    if form.form == "hillis-steele":
        total, end = _prefixes(decay, end, reverse)
        states = total * state + end
        return _shifted(states, state, reverse), _at(states, 0 if reverse else count - 1)
    if count > form.chunk:
        return _states_before_groups(decay, end, state, reverse, form)
    before: list[Tensor] = [state] * count
    for k in _order(count, reverse):
        before[k] = state
        state = _at(decay, k) * state + _at(end, k)
    return torch.cat(before, 1), state


def _states_before_groups(
    decay: Tensor, end: Tensor, state: Tensor, reverse: bool, form: Form
) -> tuple[Tensor, Tensor]:
    """`_states_before` of more than a chunk: those before groups of `chunk` first, then inside all groups at once."""
    rest = end.shape[1] % form.chunk
    cuts = [slice(rest, None), slice(0, rest)] if reverse else [slice(0, rest), slice(rest, None)]
    outputs = []
    for cut in cuts if rest else [slice(None)]:
        walk = _states_before_whole_groups if cut.stop is None else _states_before
        before, state = walk(decay[:, cut], end[:, cut], state, reverse, form)
        outputs.append(before)
    return torch.cat(outputs[::-1] if reverse else outputs, 1), state


def _states_before_whole_groups(
    decay: Tensor, end: Tensor, state: Tensor, reverse: bool, form: Form
) -> tuple[Tensor, Tensor]:
    rows, count, *size = end.shape
    groups, group = (rows, count // form.chunk, *size), (-1, form.chunk, *size)
    decay, end = decay.reshape(group), end.reshape(group)
    order = _order(form.chunk, reverse)
    total, reached = _at(decay, order[0]), _at(end, order[0])
    for k in order[1:]:
        total, reached = _at(decay, k) * total, _at(decay, k) * reached + _at(end, k)
    before, last = _states_before(total.reshape(groups), reached.reshape(groups), state, reverse, form)
    inside, _ = _states_before(decay, end, before.reshape(-1, 1, *size), reverse, form)
    return inside.reshape(rows, count, *size), last


def _prefixes(decay: Tensor, added: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Products of decays up to each position of dimension 1, and the states there from a start of zero."""
    step, length = 1, added.shape[1]
    while step < length:
        if reverse:
            moved = decay[:, :-step] * added[:, step:] + added[:, :-step]
            added = torch.cat([moved, added[:, -step:]], 1)
            decay = torch.cat([decay[:, :-step] * decay[:, step:], decay[:, -step:]], 1)
        else:
            moved = decay[:, step:] * added[:, :-step] + added[:, step:]
            added = torch.cat([added[:, :step], moved], 1)
            decay = torch.cat([decay[:, :step], decay[:, step:] * decay[:, :-step]], 1)
        step *= 2
    return decay, added


def _shifted(states: Tensor, first: Tensor, reverse: bool) -> Tensor:
    """The states before those of dimension 1."""
    if reverse:
        return torch.cat([states[:, 1:], first], 1)
    return torch.cat([first, states[:, :-1]], 1)


def _skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + D * x
    return y if z is None else y * (z * torch.sigmoid(z))
