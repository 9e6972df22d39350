"""The one list of cases that every implementation of the scan and the convolution is tested on.

A test lets a kernel, lowering or engine compute a case from its inputs and options, and hands the result to `error`,
which compares the result with the reference in float64, element by element::

    for case in SCAN_CASES:
        y = my_kernel(**case.inputs(), **case.options())
        assert error(case, y) <= case.tolerance

The error of an element is relative to the sum of the magnitudes of the terms that were added up in it. So cancellation
is not punished, and a small channel cannot hide behind a large one. Sequences that come in several calls are cases of
`stateful_cases`.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference

DIRECTIONS = ("forward", "backward", "both")

# Step sizes before softplus: "usual" ones are those of a trained model, "large" ones overflow a careless exp or its
# integer part, and a careless softplus rounds "small" ones to zero.
_DT_LEVELS = {
    "usual": None,
    "large": (1e30, 1e4, 88.8, 88.0, 20.0, 0.0, -3.0),
    "small": (-1e30, -1e4, -104.0, -88.0, -60.0, -20.0, 0.0),
    "mixed": (1e30, 1e4, 88.0, 3.0, 0.0, -3.0, -60.0, -1e4, -1e30),
}
_Z_EXTREMES = (1e3, 88.8, 3.0, 0.0, -3.0, -80.0, -1e3, -1e4)  # SiLU(-88) is beyond float32's normal range


@dataclass(frozen=True)
class ScanCase:
    """Sizes, options and inputs of one scan.

    Attributes:
        batch, length, channels, states: Sizes B, L, D and N.
        direction: ``"forward"``, ``"backward"`` (`selective_scan`) or ``"both"`` (`bi_selective_scan`).
        initial_state: The operators' ``initial_state``.
        mask: ``mask_diagonal``, or ``mask_backward`` for both directions.
        leave_out: Those of D, z and dt_bias that are None.
        dt: The kind of step sizes, a key of ``_DT_LEVELS``.
        layout: ``"plain"``, ``"slices"`` (x and z are halves of one tensor, dt, B and C slices of another, as in the
            model) or ``"transposed"`` (channels are not adjacent).
        tolerance: Largest `error` that a float32 implementation may have.
    """

    batch: int
    length: int
    channels: int
    states: int
    direction: str = "forward"
    initial_state: str = "zero"
    mask: bool = False
    leave_out: tuple[str, ...] = ()
    dt: str = "usual"
    layout: str = "plain"
    tolerance: float = 1e-5

    @property
    def name(self) -> str:
        """The case's name, unique in `SCAN_CASES`."""
        parts = [f"b{self.batch}_l{self.length}_d{self.channels}_n{self.states}", self.direction]
        parts += ["residual"] if self.initial_state == "first_input" else []
        parts += ["masked"] if self.mask else []
        parts += [f"no_{name}" for name in self.leave_out]
        parts += [value for value in (self.dt, self.layout) if value not in ("usual", "plain")]
        return "-".join(parts)

    @property
    def operator(self) -> str:
        """The name of the operator's function in `vmp_edge.ops` and `reference`."""
        return "bi_selective_scan" if self.direction == "both" else "selective_scan"

    def options(self) -> dict[str, bool | str]:
        """Return the operator's keyword arguments that are not tensors."""
        if self.direction == "both":
            return {"initial_state": self.initial_state, "mask_backward": self.mask}
        return {
            "initial_state": self.initial_state,
            "mask_diagonal": self.mask,
            "reverse": self.direction == "backward",
        }

    def inputs(self) -> dict[str, Tensor | None]:
        """Return the operator's tensors in the operator's order, float32, the same at every call."""
        random = Random(self.name)
        batch, length, channels, states = self.batch, self.length, self.channels, self.states
        activation, projection = (batch, length, channels), (batch, length, states)
        inputs: dict[str, Tensor | None] = {"x": random.normal(*activation)}
        levels = _DT_LEVELS[self.dt]
        inputs["dt"] = random.normal(*activation) - 1 if levels is None else random.choice(levels, *activation)
        for name in ("A", "A_b") if self.direction == "both" else ("A",):
            inputs[name] = -torch.exp(5 * random.uniform(channels, states) - 2)
        inputs |= {"B": random.normal(*projection), "C": random.normal(*projection), "D": random.normal(channels)}
        gate = random.normal(*activation)
        inputs["z"] = gate if levels is None else random.choice(_Z_EXTREMES, *activation)
        inputs["dt_bias"] = random.normal(channels)
        for name in self.leave_out:
            inputs[name] = None
        return _in_layout(inputs, self.layout)


@dataclass(frozen=True)
class ConvCase:
    """Sizes, options and inputs of one causal convolution.

    Attributes:
        batch, length, channels, taps: Sizes B, L, D and K.
        reverse: The operator's ``reverse``.
        bias: Pass a bias.
        layout: As in `ScanCase`.
        tolerance: Largest `error` that a float32 implementation may have.
        operator: The name of the operator's function in `vmp_edge.ops` and `reference`.
    """

    batch: int
    length: int
    channels: int
    taps: int
    reverse: bool = False
    bias: bool = True
    layout: str = "plain"
    tolerance: float = 2e-6
    operator: str = "causal_conv_silu"

    @property
    def name(self) -> str:
        """The case's name, unique in `CONV_CASES`."""
        parts = [f"conv_b{self.batch}_l{self.length}_d{self.channels}_k{self.taps}"]
        parts += ["reverse"] if self.reverse else []
        parts += [] if self.bias else ["no_bias"]
        parts += [] if self.layout == "plain" else [self.layout]
        return "-".join(parts)

    def options(self) -> dict[str, bool]:
        """Return the operator's keyword arguments that are not tensors."""
        return {"reverse": self.reverse}

    def inputs(self) -> dict[str, Tensor | None]:
        """Return the operator's tensors in the operator's order, float32, the same at every call."""
        random = Random(self.name)
        x = random.normal(self.batch, self.length, self.channels)
        weight = random.normal(self.channels, self.taps)
        inputs: dict[str, Tensor | None] = {"x": x, "weight": weight}
        inputs["bias"] = random.normal(self.channels) if self.bias else None
        return _in_layout(inputs, self.layout)


Case = ScanCase | ConvCase


@functools.lru_cache(maxsize=256)
def expected(case: Case) -> tuple[Tensor, Tensor]:
    """Return the reference's result and, for each element, the sum of its terms' magnitudes; both float64."""
    wide = {name: None if t is None else t.double() for name, t in case.inputs().items()}
    rates = ("dt", "dt_bias", "A", "A_b")  # they go through exp and softplus, whose results are positive
    absolute = {name: t if t is None or name in rates else t.abs() for name, t in wide.items()}
    operator = getattr(reference, case.operator)
    y = operator(**wide, **case.options())
    if isinstance(case, ConvCase):
        return y, conv_magnitude(absolute)
    magnitude = operator(**{**absolute, "z": None}, **case.options())
    z = wide["z"]
    return y, magnitude if z is None else magnitude * F.silu(z).abs()


def error(case: Case, y: Tensor) -> float:
    """Measure how far a result is from the reference: the largest difference of an element, relative to its magnitude.

    Args:
        case: The case that was computed.
        y: The implementation's result, of any floating dtype.

    Returns:
        0 for an exact result; infinity if the shape is wrong or an element is not finite.
    """
    exact, magnitude = expected(case)
    if y.shape != exact.shape or not bool(torch.isfinite(y).all()):
        return math.inf
    # below 1e-35, float32 has only the precision of subnormal numbers
    return float(((y.double() - exact).abs() / (magnitude + 1e-35)).max())


def conv_magnitude(absolute: dict[str, Tensor | None]) -> Tensor:
    """Bound a sum of K products through SiLU from the largest input; that is enough, as SiLU's slope is at most 1.1."""
    x, weight, bias = absolute["x"], absolute["weight"], absolute["bias"]
    assert x is not None and weight is not None
    total = x.amax((0, 1)) * weight.sum(1)
    return (total if bias is None else total + bias).expand(x.shape)


class Random:
    """Random numbers that depend on the case's name alone."""

    def __init__(self, name: str) -> None:
        self._generator = torch.Generator().manual_seed(int.from_bytes(name.encode(), "big") % (2**61 - 1))

    def normal(self, *shape: int) -> Tensor:
        """Draw numbers from the normal distribution."""
        return torch.randn(shape, generator=self._generator)

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers from 0 to 1."""
        return torch.rand(shape, generator=self._generator)

    def choice(self, levels: tuple[float, ...], *shape: int) -> Tensor:
        """Draw numbers among the levels."""
        return torch.tensor(levels)[torch.randint(len(levels), shape, generator=self._generator)]


def _in_layout(inputs: dict[str, Tensor | None], layout: str) -> dict[str, Tensor | None]:
    if layout == "plain":
        return inputs
    inputs = dict(inputs)
    if layout == "transposed":
        for name, tensor in inputs.items():
            if tensor is not None and tensor.dim() > 1:
                inputs[name] = tensor.transpose(-2, -1).contiguous().transpose(-2, -1)
        return inputs
    for group in (("x", "z"), ("dt", "B", "C")):
        tensors = {name: t for name in group if (t := inputs.get(name)) is not None}
        if tensors:
            padding = torch.full((*next(iter(tensors.values())).shape[:2], 3), math.nan)  # kernels must not read it
            widths = [t.shape[2] for t in tensors.values()] + [3]
            slices = torch.split(torch.cat([*tensors.values(), padding], 2), widths, 2)
            inputs |= dict(zip(tensors, slices, strict=False))
    return inputs


def _scan_cases() -> list[ScanCase]:
    every_size = ((1, 1, 7, 16), (1, 2, 33, 8), (2, 67, 24, 16), (1, 65, 1, 17))
    options = itertools.product(DIRECTIONS, reference.INITIAL_STATES, (False, True))
    cases = [ScanCase(*sizes, *option) for option in options for sizes in every_size]
    plain = ScanCase(2, 37, 19, 16)
    for direction in DIRECTIONS:
        case = replace(plain, direction=direction, initial_state="first_input", mask=direction != "forward")
        # without optional inputs
        left_out = [("D",), ("z",), ("dt_bias",), ("D", "z"), ("D", "z", "dt_bias")]
        cases += [replace(case, leave_out=names) for names in left_out]
        # numbers that overflow or vanish
        cases += [replace(case, dt=dt, leave_out=names) for dt in ("large", "small", "mixed") for names in ((), ("z",))]
        # memory layouts
        cases += [replace(case, layout=layout) for layout in ("slices", "transposed")]
        # state counts around the number that registers hold, and lengths around the kernels' chunks
        cases += [replace(case, states=states) for states in (1, 2, 3, 7, 15, 33, 64)]
        cases += [replace(case, length=length, channels=5) for length in (31, 32, 33, 63, 64, 65, 128, 401)]
    # a batch with more channel blocks than threads
    cases.append(ScanCase(3, 11, 200, 16, direction="both", initial_state="first_input", mask=True))
    return cases


def _conv_cases() -> list[ConvCase]:
    cases = []
    for reverse in (False, True):
        case = ConvCase(2, 70, 19, 4, reverse=reverse)
        cases += [case, replace(case, bias=False)]
        cases += [replace(case, taps=taps) for taps in (1, 2, 3, 16)]
        cases += [replace(case, length=length) for length in (1, 3, 64, 129)]
        cases += [replace(case, channels=channels) for channels in (1, 16, 50)]
        cases += [replace(case, layout=layout) for layout in ("slices", "transposed")]
    return cases


SCAN_CASES: list[ScanCase] = _scan_cases()
CONV_CASES: list[ConvCase] = _conv_cases()
