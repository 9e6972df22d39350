"""Choose which kernel computes an operator or its gradients: native, CUDA or the PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _cuda, _cuda_kernels, _native_kernels, reference
from ._arguments import Arguments, ConvArguments, ScanArguments


def kernels_for(a: Arguments) -> str:
    """``"native"``, ``"cuda"`` or ``"reference"``; the first two compute in float32 and take half precision."""
    if a.x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return "reference"
    if a.x.device.type == "cpu":
        return "native"
    if a.x.device.type != "cuda" or (isinstance(a, ScanArguments) and a.A.shape[1] > _cuda.MAX_STATES):
        return "reference"
    return "cuda" if _cuda_kernels.supports(a.x.device) else "reference"


def _reference(a: Arguments) -> Tensor:
    if isinstance(a, ConvArguments):
        return reference.causal_conv_silu(a.x, a.weight, a.bias, reverse=a.reverse)
    if a.A_b is None:
        return reference.selective_scan(
            a.x, a.dt, a.A, a.B, a.C, a.D, a.z, a.dt_bias,
            reverse=a.reverse, initial_state=a.initial_state, mask_diagonal=a.mask,
        )  # fmt: skip
    return reference.bi_selective_scan(
        a.x, a.dt, a.A, a.A_b, a.B, a.C, a.D, a.z, a.dt_bias, initial_state=a.initial_state, mask_backward=a.mask
    )


def _reference_backward(grad_y: Tensor, a: Arguments) -> list[Tensor]:
    with torch.enable_grad():
        again = a.mapped(lambda t: t.detach().requires_grad_())
        grads = torch.autograd.grad(_reference(again), again.tensors(), grad_y, materialize_grads=True)
    return [grad.contiguous() for grad in grads]


def forward(a: Arguments) -> Tensor:
    kernels = kernels_for(a)
    if kernels == "cuda":
        return _cuda_kernels.forward(a)
    if kernels == "reference":
        return _reference(a).contiguous()
    return _native_kernels.conv(a) if isinstance(a, ConvArguments) else _native_kernels.scan(a)


def backward(grad_y: Tensor, a: Arguments) -> list[Tensor]:
    if kernels_for(a) != "native":
        return _reference_backward(grad_y, a)  # on CUDA, too: it computes the scan again, step by step
    return (
        _native_kernels.conv_backward(grad_y, a)
        if isinstance(a, ConvArguments)
        else _native_kernels.scan_backward(grad_y, a)
    )
