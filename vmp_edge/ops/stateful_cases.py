"""Cases whose sequence comes in several calls, each of which goes on from the state that the last one left.

They are part of the one list of `cases`, for the kernels that take and return a state::

    for case in STATE_CASES:
        y, last = case.run(my_kernel)
        assert errors(case, y, last) <= case.tolerance

What is right is the reference's result in one call, or, for both directions, whose backward one starts afresh in each
call, in the same calls.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .cases import DIRECTIONS, Case, ConvCase, Random, ScanCase, conv_magnitude

_SEQUENCES = ("x", "dt", "B", "C", "z")
STARTS = ("none", "zero", "given")


@dataclass(frozen=True)
class StateCase:
    """A scan or a convolution in several calls.

    Attributes:
        case: Sizes, options and inputs of the whole sequence.
        splits: The number of steps of each call, in scanned order.
        start: The state before the first step: ``"none"``, ``"zero"``, or ``"given"`` for numbers.
    """

    case: Case
    splits: tuple[int, ...]
    start: str = "none"

    def __post_init__(self) -> None:
        assert sum(self.splits) == self.case.length and min(self.splits) > 0 and self.start in STARTS

    @property
    def name(self) -> str:
        """The case's name, unique in `STATE_CASES`."""
        parts = [self.case.name, "in_" + "_".join(map(str, self.splits[:4] + self.splits[4:5])), self.start]
        return "-".join(parts)

    @property
    def operator(self) -> str:
        """The name of the operator's function in `vmp_edge.ops` and `reference`."""
        return self.case.operator

    @property
    def tolerance(self) -> float:
        """Largest `errors` that a float32 implementation may have."""
        return self.case.tolerance

    def state(self) -> Tensor | None:
        """Return the state before the first step, float32."""
        if self.start == "none":
            return None
        shape = self.state_shape()
        return torch.zeros(shape) if self.start == "zero" else Random(f"state {self.case.name}").normal(*shape)

    def state_shape(self) -> tuple[int, int, int]:
        """Return the shape of a state."""
        case = self.case
        if isinstance(case, ConvCase):
            return case.batch, case.taps - 1, case.channels
        return case.batch, case.channels, case.states

    def inputs(self) -> dict[str, Tensor | None]:
        """Return the tensors of the first call, in the operator's order, its state included."""
        whole = {**self.case.inputs(), "state": self.state()}
        return _cut(whole, self._ranges()[0])

    def options(self) -> dict[str, bool | str]:
        """Return the operator's keyword arguments that are not tensors."""
        return dict(self.case.options())

    def run(
        self, operator: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the case call by call.

        Args:
            operator: The operator's function, which takes ``state`` and ``return_state``.
            inputs: The tensors of the whole sequence with the state before it, if they are not the case's own.

        Returns:
            The results, (B, L, D), and the last state.
        """
        calls = self.calls(inputs)
        call = next(calls)
        while True:
            try:
                call = calls.send(operator(**call, **self.options(), return_state=True))
            except StopIteration as end:
                return cast(tuple[Tensor, Tensor], end.value)

    def calls(
        self, inputs: dict[str, Tensor | None] | None = None
    ) -> Generator[dict[str, Tensor | None], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Yield the tensors of each call, take its results, and return those of the whole; see `run`."""
        inputs = {**self.case.inputs(), "state": self.state()} if inputs is None else dict(inputs)
        outputs = []
        for steps in self._ranges():
            y, last = yield _cut(inputs, steps)
            inputs["state"] = last
            outputs.append((steps.start, y))
        return torch.cat([y for _, y in sorted(outputs, key=lambda pair: pair[0])], 1), last

    def _ranges(self) -> list[range]:
        ends = [0, *itertools.accumulate(self.splits)]
        ranges = [range(begin, end) for begin, end in itertools.pairwise(ends)]
        if not self.options().get("reverse"):
            return ranges
        return [range(self.case.length - part.stop, self.case.length - part.start) for part in ranges]


def _cut(inputs: dict[str, Tensor | None], steps: range) -> dict[str, Tensor | None]:
    return {
        name: t[:, steps.start : steps.stop] if t is not None and name in _SEQUENCES else t
        for name, t in inputs.items()
    }


@functools.lru_cache(maxsize=256)
def expected(case: StateCase) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the results and the last state, and for each of their elements the sum of its terms' magnitudes; float64.

    See `cases.expected`.
    """
    inner = case.case
    wide = {n: None if t is None else t.double() for n, t in {**inner.inputs(), "state": case.state()}.items()}
    rates = ("dt", "dt_bias", "A", "A_b")
    absolute = {name: t if t is None or name in rates else t.abs() for name, t in wide.items()}
    operator = getattr(reference, case.operator)
    both = isinstance(inner, ScanCase) and inner.direction == "both"
    exact = (case if both else replace(case, splits=(inner.length,))).run(operator, wide)
    magnitude, last = case.run(operator, {**absolute, "z": None} if "z" in absolute else absolute)
    if isinstance(inner, ConvCase):
        magnitude = conv_magnitude(absolute)
        if (state := absolute["state"]) is not None and state.numel():
            magnitude = magnitude + conv_magnitude({**absolute, "x": state, "bias": None})[:1, :1]
    elif (z := wide["z"]) is not None:
        magnitude = magnitude * F.silu(z).abs()
    return exact, (magnitude, last)


def errors(case: StateCase, y: Tensor, last: Tensor) -> float:
    """Measure how far the results and the last state are from the reference's, as `cases.error` does."""
    found = 0.0
    for got, exact, magnitude in zip((y, last), *expected(case), strict=True):
        if got.shape != exact.shape or not bool(torch.isfinite(got).all()):
            return math.inf
        if got.numel():
            found = max(found, float(((got.double() - exact).abs() / (magnitude + 1e-35)).max()))
    return found


def _state_cases() -> list[StateCase]:
    cases = []
    plain = ScanCase(2, 37, 19, 16)
    for direction, initial, start in itertools.product(DIRECTIONS, reference.INITIAL_STATES, STARTS):
        case = replace(plain, direction=direction, initial_state=initial, mask=direction != "forward")
        cases += [StateCase(case, splits, start) for splits in ((37,), (1, 1, 3, 32), (36, 1))]
    for direction in DIRECTIONS:
        case = replace(plain, direction=direction, initial_state="first_input", mask=direction == "backward")
        one = replace(case, length=1)
        cases += [StateCase(one, (1,), start) for start in STARTS]
        cases += [StateCase(replace(case, leave_out=names), (5, 32), "given") for names in (("D",), ("z", "dt_bias"))]
        # numbers that overflow or vanish, and several of them in one call
        cases += [StateCase(replace(case, dt=dt), (7, 30), "given") for dt in ("large", "small", "mixed")]
        cases += [StateCase(replace(case, layout=layout), (7, 30), "given") for layout in ("slices", "transposed")]
        cases += [StateCase(replace(case, states=states), (9, 28), "given") for states in (1, 3, 17, 33)]
        # splits around the kernels' chunks
        longer = replace(case, batch=1, length=131, channels=5)
        cases += [StateCase(longer, splits, "given") for splits in ((63, 1, 67), (64, 67), (65, 66), (15, 1, 16, 99))]
        # places with a state each, which have one step in a call
        cases.append(StateCase(replace(case, batch=40, length=3, channels=33), (1, 1, 1), "given"))
        cases.append(StateCase(replace(case, batch=3, length=11, channels=200), (4, 7), "given"))
    return cases + _conv_state_cases()


def _conv_state_cases() -> list[StateCase]:
    cases = []
    for reverse, start in itertools.product((False, True), STARTS):
        case = ConvCase(2, 70, 19, 4, reverse=reverse)
        cases += [StateCase(case, splits, start) for splits in ((70,), (1, 1, 1, 67), (2, 3, 65), (63, 7), (64, 6))]
        cases += [StateCase(replace(case, taps=taps), (9, 61), start) for taps in (1, 2, 3, 16)]
        # calls shorter than the taps
        cases += [StateCase(replace(case, length=n, taps=16), (1,) * n, start) for n in (1, 5)]
    for reverse in (False, True):
        case = ConvCase(2, 70, 19, 4, reverse=reverse)
        cases.append(StateCase(replace(case, bias=False), (33, 37), "given"))
        cases += [StateCase(replace(case, layout=layout), (33, 37), "given") for layout in ("slices", "transposed")]
        cases.append(StateCase(replace(case, batch=40, length=2, channels=50), (1, 1), "given"))
    return cases


def _long_splits(length: int) -> tuple[int, ...]:
    """Return splits of all kinds of lengths, again and again."""
    lengths = itertools.cycle((1, 16, 17, 64, 196, 197, 1000, 3))
    splits: list[int] = []
    while (left := length - sum(splits)) > 0:
        splits.append(min(left, next(lengths)))
    return tuple(splits)


STATE_CASES: list[StateCase] = _state_cases()
# An hour and more of a stream. No result may drift away from the exact one.
LONG_CASES: list[StateCase] = [
    StateCase(ScanCase(1, 100_000, 5, 4, initial_state="first_input"), _long_splits(100_000)),
    StateCase(ConvCase(1, 100_000, 5, 4), _long_splits(100_000)),
]
