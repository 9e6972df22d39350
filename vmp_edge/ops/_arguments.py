"""Bring an operator's arguments into one form, and check that their shapes, dtypes and devices fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from . import _native, reference


class ScanArguments(NamedTuple):
    """The arguments of either scan operator, in the shapes of `vmp_edge.ops`.

    Attributes:
        A_b: Decay rates of the backward direction, or None for a scan of one direction.
        reverse: Walk the sequence from its end; False for a scan of both directions.
        mask: ``mask_diagonal`` of a scan of one direction, ``mask_backward`` of a scan of both.
        state: The state before the first step, or None.
        keeps_state: True for the operators that return the last state, too.
    """

    x: Tensor
    dt: Tensor
    A: Tensor
    A_b: Tensor | None
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    state: Tensor | None
    reverse: bool
    initial_state: str
    mask: bool
    keeps_state: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that are not None, in the operator's order."""
        return tuple(t for t in self[:10] if t is not None)

    def state_shape(self) -> tuple[int, ...]:
        """Return the shape of a state, (B, D, N)."""
        return (self.x.shape[0], *self.A.shape)

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> ScanArguments:
        """Return the same arguments with the function applied to every tensor."""
        values: list[Any] = [function(v) if isinstance(v, Tensor) else v for v in self]
        return ScanArguments(*values)


class ConvArguments(NamedTuple):
    """The arguments of the convolution operator, in the shapes of `vmp_edge.ops`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    state: Tensor | None
    reverse: bool
    keeps_state: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that are not None, in the operator's order."""
        return tuple(t for t in self[:4] if t is not None)

    def state_shape(self) -> tuple[int, ...]:
        """Return the shape of a state, (B, K - 1, D)."""
        return (self.x.shape[0], self.weight.shape[1] - 1, self.x.shape[2])

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> ConvArguments:
        """Return the same arguments with the function applied to every tensor."""
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
    state: Tensor | None = None,
    *,
    reverse: bool = False,
    initial_state: str = "zero",
    mask_diagonal: bool = False,
    keeps_state: bool = False,
) -> ScanArguments:
    """Check the arguments of `vmp_edge.ops.selective_scan`.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or ``initial_state`` is unknown.
    """
    args = ScanArguments(x, dt, A, None, B, C, D, z, dt_bias, state, reverse, initial_state, mask_diagonal, keeps_state)
    _check_scan(args)
    return args


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
    state: Tensor | None = None,
    *,
    initial_state: str = "zero",
    mask_backward: bool = False,
    keeps_state: bool = False,
) -> ScanArguments:
    """Check the arguments of `vmp_edge.ops.bi_selective_scan`.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or ``initial_state`` is unknown.
    """
    args = ScanArguments(x, dt, A, A_b, B, C, D, z, dt_bias, state, False, initial_state, mask_backward, keeps_state)
    _check_scan(args)
    return args


def conv_arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    reverse: bool = False,
    keeps_state: bool = False,
) -> ConvArguments:
    """Check the arguments of `vmp_edge.ops.causal_conv_silu`.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or the weight has too many taps.
    """
    args = ConvArguments(x, weight, bias, state, reverse, keeps_state)
    _require_shape("x", x, 3, "(batch, length, channels)")
    _require_shape("weight", weight, 2, "(channels, taps)")
    require_sizes("weight", weight, (x.shape[2], weight.shape[1]), "(channels, taps)")
    require_sizes("bias", bias, (x.shape[2],), "(channels)")
    if weight.shape[1] > _native.MAX_TAPS:
        raise ValueError(f"weight has {weight.shape[1]} taps; at most {_native.MAX_TAPS} are supported")
    require_sizes("state", state, args.state_shape(), "(batch, taps - 1, channels)")
    _require_floats_on_one_device(args)
    return args


def require_sizes(name: str, tensor: Tensor | None, sizes: tuple[int, ...], meaning: str) -> None:
    """Check the shape of an argument that may be left out.

    Args:
        name: The argument's name, for the error message.
        tensor: The argument, or None, which passes.
        sizes: The shape that it must have.
        meaning: What the sizes stand for, for the error message.

    Raises:
        ValueError: The shape differs.
    """
    if tensor is not None and tensor.shape != sizes:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning} = {tuple(sizes)}")


def _check_scan(args: ScanArguments) -> None:
    _require_shape("x", args.x, 3, "(batch, length, channels)")
    _require_shape("A", args.A, 2, "(channels, states)")
    batch, length, channels = args.x.shape
    states = args.A.shape[1]
    activation, rate, projection = (batch, length, channels), (channels, states), (batch, length, states)
    require_sizes("dt", args.dt, activation, "(batch, length, channels)")
    require_sizes("z", args.z, activation, "(batch, length, channels)")
    require_sizes("A", args.A, rate, "(channels, states)")
    require_sizes("A_b", args.A_b, rate, "(channels, states)")
    require_sizes("B", args.B, projection, "(batch, length, states)")
    require_sizes("C", args.C, projection, "(batch, length, states)")
    require_sizes("D", args.D, (channels,), "(channels)")
    require_sizes("dt_bias", args.dt_bias, (channels,), "(channels)")
    require_sizes("state", args.state, args.state_shape(), "(batch, channels, states)")
    if args.initial_state not in reference.INITIAL_STATES:
        names = ", ".join(reference.INITIAL_STATES)
        raise ValueError(f"initial_state is {args.initial_state!r}; it must be one of {names}")
    _require_floats_on_one_device(args)


def _require_shape(name: str, tensor: Tensor, rank: int, meaning: str) -> None:
    if tensor.dim() != rank or 0 in tensor.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning}, none of them zero")


def _require_floats_on_one_device(args: Arguments) -> None:
    device = args.x.device
    for tensor in args.tensors():
        if tensor.device != device:
            raise ValueError(f"all tensors must be on one device; there are {device} and {tensor.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"all tensors must be floating point; one is {tensor.dtype}")
