"""Run the scan and the convolution, and their gradients, by the native CPU library: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _native, _openmp
from ._arguments import Arguments, ConvArguments, ScanArguments
from ._memory import address, empty_like, readable, view, with_contiguous_state


def forward(args: Arguments) -> tuple[Tensor, Tensor | None]:
    """Compute an operator in float32.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``; and the last state, contiguous float32, if `args.keeps_state`.
    """
    y, last = _conv(args) if isinstance(args, ConvArguments) else _scan(args)
    return y.to(args.x.dtype), last


def backward(grad_y: Tensor, grad_last: Tensor | None, args: Arguments) -> list[Tensor]:
    """Compute an operator's gradients in float32.

    Args:
        grad_y: (B, L, D) gradient of the operator's result.
        grad_last: Gradient of the last state, or None.
        args: The operator's arguments.

    Returns:
        The gradients of `args.tensors()`, in that order, each in its tensor's dtype.
    """
    if isinstance(args, ConvArguments):
        grads: Sequence[Tensor] = _conv_backward(grad_y, grad_last, args).tensors()
    else:
        grads = _scan_backward(grad_y, grad_last, args).tensors()
    return [grad.to(tensor.dtype) for grad, tensor in zip(grads, args.tensors(), strict=True)]


def _float32(tensor: Tensor) -> Tensor:
    return readable(tensor, torch.float32)


def _empty_float32(tensor: Tensor) -> Tensor:
    return empty_like(tensor, torch.float32)


def _state_memory(args: Arguments) -> Tensor | None:
    return args.x.new_empty(args.state_shape(), dtype=torch.float32) if args.keeps_state else None


def _threads() -> _native.Threads:
    return _native.threads(torch.get_num_threads(), _openmp.gomp_parallel())


def _scan(args: ScanArguments) -> tuple[Tensor, Tensor | None]:
    args = with_contiguous_state(args.map_tensors(_float32))  # in scope until the call returns: structs have addresses
    y, last = _empty_float32(args.x), _state_memory(args)
    library = _native.load()
    function = library.vmp_selective_scan if args.A_b is None else library.vmp_bi_selective_scan
    _native.check(function(_scan_struct(args, last), view(y), _threads()))
    return y, last


def _scan_backward(grad_y: Tensor, grad_last: Tensor | None, args: ScanArguments) -> ScanArguments:
    args, grad_y = with_contiguous_state(args.map_tensors(_float32)), _float32(grad_y)
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    grads = args.map_tensors(_empty_float32)
    struct = _native.ScanGrads(
        view(grads.x), view(grads.dt), view(grads.z),
        address(grads.B), address(grads.C), address(grads.A), address(grads.A_b),
        address(grads.D), address(grads.dt_bias), address(grads.state), address(grad_last),
    )  # fmt: skip
    library = _native.load()
    function = library.vmp_selective_scan_backward if args.A_b is None else library.vmp_bi_selective_scan_backward
    _native.check(function(_scan_struct(args, None), view(grad_y), struct, _threads()))
    return grads


def _scan_struct(args: ScanArguments, last: Tensor | None) -> _native.Scan:
    return _native.Scan(
        *args.x.shape, args.A.shape[1],
        view(args.x), view(args.dt), view(args.B), view(args.C), view(args.z),
        address(args.A), address(args.A_b), address(args.D), address(args.dt_bias),
        args.reverse, args.initial_state == "first_input", args.mask, address(args.state), address(last),
    )  # fmt: skip


def _conv(args: ConvArguments) -> tuple[Tensor, Tensor | None]:
    args = with_contiguous_state(args.map_tensors(_float32))
    y, last = _empty_float32(args.x), _state_memory(args)
    function = _native.load().vmp_causal_conv_silu
    _native.check(function(_conv_struct(args, last), view(y), _threads()))
    return y, last


def _conv_backward(grad_y: Tensor, grad_last: Tensor | None, args: ConvArguments) -> ConvArguments:
    args, grad_y = with_contiguous_state(args.map_tensors(_float32)), _float32(grad_y)
    grad_last = None if grad_last is None else grad_last.float().contiguous()
    grads = args.map_tensors(_empty_float32)
    struct = _native.ConvGrads(
        view(grads.x), address(grads.weight), address(grads.bias), address(grads.state), address(grad_last)
    )
    function = _native.load().vmp_causal_conv_silu_backward
    _native.check(function(_conv_struct(args, None), view(grad_y), struct, _threads()))
    return grads


def _conv_struct(args: ConvArguments, last: Tensor | None) -> _native.Conv:
    return _native.Conv(
        *args.x.shape, args.weight.shape[1], view(args.x), address(args.weight), address(args.bias), args.reverse,
        address(args.state), address(last),
    )  # fmt: skip
