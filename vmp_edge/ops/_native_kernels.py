"""Run the scan and the convolution by the native library: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _native, _openmp
from ._arguments import Arguments, ConvArguments, ScanArguments


def _ready(tensor: Tensor) -> Tensor:
    """As the native kernels read it: float32; of activations only the columns have to lie side by side."""
    tensor = tensor.to(torch.float32)
    if tensor.dim() == 3 and (tensor.stride(2) == 1 or tensor.shape[2] == 1):
        return tensor
    return tensor.contiguous()


def _result_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=torch.float32, device=tensor.device)


def view(tensor: Tensor | None) -> _native.View:
    if tensor is None:
        return _native.View()
    return _native.View(tensor.data_ptr(), tensor.stride(0), tensor.stride(1))


def address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _threads() -> _native.Threads:
    return _native.threads(torch.get_num_threads(), _openmp.gomp_parallel())


def _scan_struct(a: ScanArguments) -> _native.Scan:
    return _native.Scan(
        *a.x.shape, a.A.shape[1],
        view(a.x), view(a.dt), view(a.B), view(a.C), view(a.z),
        address(a.A), address(a.A_b), address(a.D), address(a.dt_bias),
        a.reverse, a.initial_state == "first_input", a.mask,
    )  # fmt: skip


def scan(a: ScanArguments) -> Tensor:
    wide = a.mapped(_ready)  # kept until the call returns: the struct holds addresses only
    y = _result_like(a.x)
    library = _native.load()
    function = library.vmp_selective_scan if a.A_b is None else library.vmp_bi_selective_scan
    _native.check(function(_scan_struct(wide), view(y), _threads()))
    return y.to(a.x.dtype)


def scan_backward(grad_y: Tensor, a: ScanArguments) -> list[Tensor]:
    wide, grad_y = a.mapped(_ready), _ready(grad_y)
    grads = wide.mapped(_result_like)
    struct = _native.ScanGrads(
        view(grads.x), view(grads.dt), view(grads.z),
        address(grads.B), address(grads.C), address(grads.A), address(grads.A_b),
        address(grads.D), address(grads.dt_bias),
    )  # fmt: skip
    library = _native.load()
    function = library.vmp_selective_scan_backward if a.A_b is None else library.vmp_bi_selective_scan_backward
    _native.check(function(_scan_struct(wide), view(grad_y), struct, _threads()))
    return _like(grads.tensors(), a)


def _conv_struct(a: ConvArguments) -> _native.Conv:
    return _native.Conv(
        *a.x.shape, a.weight.shape[1], view(a.x), address(a.weight), address(a.bias), a.reverse
    )  # fmt: skip


def conv(a: ConvArguments) -> Tensor:
    wide = a.mapped(_ready)
    y = _result_like(a.x)
    function = _native.load().vmp_causal_conv_silu
    _native.check(function(_conv_struct(wide), view(y), _threads()))
    return y.to(a.x.dtype)


def conv_backward(grad_y: Tensor, a: ConvArguments) -> list[Tensor]:
    wide, grad_y = a.mapped(_ready), _ready(grad_y)
    grads = wide.mapped(_result_like)
    struct = _native.ConvGrads(view(grads.x), address(grads.weight), address(grads.bias))
    function = _native.load().vmp_causal_conv_silu_backward
    _native.check(function(_conv_struct(wide), view(grad_y), struct, _threads()))
    return _like(grads.tensors(), a)


def _like(grads: Sequence[Tensor], a: Arguments) -> list[Tensor]:
    return [grad.to(given.dtype) for grad, given in zip(grads, a.tensors(), strict=True)]
