"""The operators' arguments in one form, and the check that shapes, dtypes and devices fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from . import _native, reference


class ScanArguments(NamedTuple):
    """Both scan operators' arguments in one form; ``A_b`` is None for one direction."""

    x: Tensor
    dt: Tensor
    A: Tensor
    A_b: Tensor | None
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    reverse: bool
    initial_state: str
    mask: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are given, in the operator's order."""
        return tuple(t for t in self[:9] if t is not None)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> ScanArguments:
        """The same with every tensor replaced."""
        values: list[Any] = [function(v) if isinstance(v, Tensor) else v for v in self]
        return ScanArguments(*values)


class ConvArguments(NamedTuple):
    """The convolution's arguments."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    reverse: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are given, in the operator's order."""
        return (self.x, self.weight) if self.bias is None else (self.x, self.weight, self.bias)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> ConvArguments:
        """The same with every tensor replaced."""
        values: list[Any] = [function(v) if isinstance(v, Tensor) else v for v in self]
        return ConvArguments(*values)


Arguments = ScanArguments | ConvArguments


def scan_arguments(
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
) -> ScanArguments:
    return _checked_scan(ScanArguments(x, dt, A, None, B, C, D, z, dt_bias, reverse, initial_state, mask_diagonal))


def bi_scan_arguments(
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
) -> ScanArguments:
    return _checked_scan(ScanArguments(x, dt, A, A_b, B, C, D, z, dt_bias, False, initial_state, mask_backward))


def conv_arguments(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, reverse: bool = False) -> ConvArguments:
    a = ConvArguments(x, weight, bias, reverse)
    _require_shape("x", x, 3, "(batch, length, channels)")
    _require_shape("weight", weight, 2, "(channels, taps)")
    require_sizes("weight", weight, (x.shape[2], weight.shape[1]), "(channels, taps)")
    require_sizes("bias", bias, (x.shape[2],), "(channels)")
    if weight.shape[1] > _native.MAX_TAPS:
        raise ValueError(f"weight has {weight.shape[1]} taps; at most {_native.MAX_TAPS} are supported")
    _require_kind(a)
    return a


def _checked_scan(a: ScanArguments) -> ScanArguments:
    _require_shape("x", a.x, 3, "(batch, length, channels)")
    _require_shape("A", a.A, 2, "(channels, states)")
    batch, length, channels = a.x.shape
    states = a.A.shape[1]
    activation, rate, projection = (batch, length, channels), (channels, states), (batch, length, states)
    require_sizes("dt", a.dt, activation, "(batch, length, channels)")
    require_sizes("z", a.z, activation, "(batch, length, channels)")
    require_sizes("A", a.A, rate, "(channels, states)")
    require_sizes("A_b", a.A_b, rate, "(channels, states)")
    require_sizes("B", a.B, projection, "(batch, length, states)")
    require_sizes("C", a.C, projection, "(batch, length, states)")
    require_sizes("D", a.D, (channels,), "(channels)")
    require_sizes("dt_bias", a.dt_bias, (channels,), "(channels)")
    if a.initial_state not in reference.INITIAL_STATES:
        names = ", ".join(reference.INITIAL_STATES)
        raise ValueError(f"initial_state is {a.initial_state!r}; it must be one of {names}")
    _require_kind(a)
    return a


def _require_shape(name: str, tensor: Tensor, rank: int, meaning: str) -> None:
    if tensor.dim() != rank or 0 in tensor.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning}, none of them zero")


def require_sizes(name: str, tensor: Tensor | None, sizes: tuple[int, ...], meaning: str) -> None:
    if tensor is not None and tensor.shape != sizes:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning} = {tuple(sizes)}")


def _require_kind(a: Arguments) -> None:
    device = a.x.device
    for tensor in a.tensors():
        if tensor.device != device:
            raise ValueError(f"all tensors must be on one device; there are {device} and {tensor.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"all tensors must be floating point; one is {tensor.dtype}")
