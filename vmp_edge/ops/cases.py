"""The one list of cases that every implementation of the scan and the convolution is held to.

A kernel, lowering or engine takes a case's inputs and options, computes, and hands the result to `error`, which
compares it with the reference in float64, element by element::

    for case in SCAN_CASES:
        y = my_kernel(**case.inputs(), **case.options())
        assert error(case, y) <= case.tolerance

The error of an element is relative to the sum of the magnitudes of everything that went into it, so that neither
cancellation is punished nor a small channel hidden behind a large one.
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

# Step sizes before softplus, by case: what a trained model has; what overflows a careless exp or its integer part;
# what a careless softplus rounds to nothing.
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
        batch, length, channels, states: sizes.
        direction: ``"forward"``, ``"backward"`` (`selective_scan`) or ``"both"`` (`bi_selective_scan`).
        initial_state: as in the operators.
        mask: ``mask_diagonal``, or ``mask_backward`` of both directions.
        leave_out: which of D, z and dt_bias are not given.
        dt: which step sizes, a key of ``_DT_LEVELS``.
        layout: ``"plain"``, ``"slices"`` (x and z halves of one tensor, dt, B and C slices of another, as the model
            has them) or ``"transposed"`` (channels not side by side).
        tolerance: largest `error` of a float32 implementation.
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
        """Unique in `SCAN_CASES`."""
        parts = [f"b{self.batch}_l{self.length}_d{self.channels}_n{self.states}", self.direction]
        parts += ["residual"] if self.initial_state == "first_input" else []
        parts += ["masked"] if self.mask else []
        parts += [f"no_{name}" for name in self.leave_out]
        parts += [value for value in (self.dt, self.layout) if value not in ("usual", "plain")]
        return "-".join(parts)

    @property
    def operator(self) -> str:
        """The name of the function in `vmp_edge.ops` and `reference`."""
        return "bi_selective_scan" if self.direction == "both" else "selective_scan"

    def options(self) -> dict[str, bool | str]:
        """Keyword arguments of the operator that are not tensors."""
        if self.direction == "both":
            return {"initial_state": self.initial_state, "mask_backward": self.mask}
        return {
            "initial_state": self.initial_state,
            "mask_diagonal": self.mask,
            "reverse": self.direction == "backward",
        }

    def inputs(self) -> dict[str, Tensor | None]:
        """The operator's tensors in its order, float32, the same at every call."""
        random = _Random(self.name)
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
        return _laid_out(inputs, self.layout)


@dataclass(frozen=True)
class ConvCase:
    """Sizes, options and inputs of one causal convolution; fields as in `ScanCase`."""

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
        """Unique in `CONV_CASES`."""
        parts = [f"conv_b{self.batch}_l{self.length}_d{self.channels}_k{self.taps}"]
        parts += ["reverse"] if self.reverse else []
        parts += [] if self.bias else ["no_bias"]
        parts += [] if self.layout == "plain" else [self.layout]
        return "-".join(parts)

    def options(self) -> dict[str, bool]:
        """Keyword arguments of the operator that are not tensors."""
        return {"reverse": self.reverse}

    def inputs(self) -> dict[str, Tensor | None]:
        """The operator's tensors in its order, float32, the same at every call."""
        random = _Random(self.name)
        x = random.normal(self.batch, self.length, self.channels)
        weight = random.normal(self.channels, self.taps)
        inputs: dict[str, Tensor | None] = {"x": x, "weight": weight}
        inputs["bias"] = random.normal(self.channels) if self.bias else None
        return _laid_out(inputs, self.layout)


Case = ScanCase | ConvCase


@functools.lru_cache(maxsize=256)
def expected(case: Case) -> tuple[Tensor, Tensor]:
    """The reference's result and the magnitude of what went into each of its elements, float64."""
    wide = {name: None if t is None else t.double() for name, t in case.inputs().items()}
    sizes = {name: t if t is None or name in ("dt", "dt_bias", "A", "A_b") else t.abs() for name, t in wide.items()}
    operator = getattr(reference, case.operator)
    y = operator(**wide, **case.options())
    if isinstance(case, ConvCase):
        return y, _conv_magnitude(sizes)
    magnitude = operator(**{**sizes, "z": None}, **case.options())
    z = wide["z"]
    return y, magnitude if z is None else magnitude * F.silu(z).abs()


def error(case: Case, y: Tensor) -> float:
    """How far a result is from the reference: the largest difference of an element, relative to its magnitude.

    Args:
        case: the case that was computed.
        y: the implementation's result, any floating dtype.

    Returns:
        0 for an exact result; infinity for a wrong shape, or where the result is not finite.
    """
    exact, magnitude = expected(case)
    if y.shape != exact.shape or not bool(torch.isfinite(y).all()):
        return math.inf
    # float32 has no more than a subnormal's precision below 1e-35
    return float(((y.double() - exact).abs() / (magnitude + 1e-35)).max())


def _conv_magnitude(sizes: dict[str, Tensor | None]) -> Tensor:
    """Of a sum of K products through SiLU, whose slope is at most 1.1: a bound from the largest input is enough."""
    x, weight, bias = sizes["x"], sizes["weight"], sizes["bias"]
    assert x is not None and weight is not None
    total = x.amax((0, 1)) * weight.sum(1)
    return (total if bias is None else total + bias).expand(x.shape)


class _Random:
    """Numbers that depend on the case's name alone."""

    def __init__(self, name: str) -> None:
        self._generator = torch.Generator().manual_seed(int.from_bytes(name.encode(), "big") % (2**61 - 1))

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator)

    def choice(self, levels: tuple[float, ...], *shape: int) -> Tensor:
        return torch.tensor(levels)[torch.randint(len(levels), shape, generator=self._generator)]


def _laid_out(inputs: dict[str, Tensor | None], layout: str) -> dict[str, Tensor | None]:
    if layout == "plain":
        return inputs
    inputs = dict(inputs)
    if layout == "transposed":
        for name, tensor in inputs.items():
            if tensor is not None and tensor.dim() > 1:
                inputs[name] = tensor.transpose(-2, -1).contiguous().transpose(-2, -1)
        return inputs
    for group in (("x", "z"), ("dt", "B", "C")):
        given = {name: t for name in group if (t := inputs.get(name)) is not None}
        if given:
            padding = torch.full((*next(iter(given.values())).shape[:2], 3), math.nan)  # must not be read
            widths = [t.shape[2] for t in given.values()] + [3]
            parts = torch.split(torch.cat([*given.values(), padding], 2), widths, 2)
            inputs |= dict(zip(given, parts, strict=False))
    return inputs


def _scan_cases() -> list[ScanCase]:
    every_size = ((1, 1, 7, 16), (1, 2, 33, 8), (2, 67, 24, 16), (1, 65, 1, 17))
    options = itertools.product(DIRECTIONS, reference.INITIAL_STATES, (False, True))
    cases = [ScanCase(*sizes, *option) for option in options for sizes in every_size]
    plain = ScanCase(2, 37, 19, 16)
    for direction in DIRECTIONS:
        case = replace(plain, direction=direction, initial_state="first_input", mask=direction != "forward")
        # the optional inputs
        left_out = [("D",), ("z",), ("dt_bias",), ("D", "z"), ("D", "z", "dt_bias")]
        cases += [replace(case, leave_out=names) for names in left_out]
        # numbers that overflow or vanish
        cases += [replace(case, dt=dt, leave_out=names) for dt in ("large", "small", "mixed") for names in ((), ("z",))]
        # memory layouts
        cases += [replace(case, layout=layout) for layout in ("slices", "transposed")]
        # state counts on both sides of what registers hold; lengths around the kernels' chunks
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
