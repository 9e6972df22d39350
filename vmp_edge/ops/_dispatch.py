"""Choose the kernels that compute an operator or its gradients: native, CUDA or the PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _cuda, _cuda_kernels, _native_kernels, _reference_kernels
from ._arguments import Arguments, ScanArguments


def kernels_for(args: Arguments) -> str:
    """Name the kernels that compute an operator on these arguments.

    Returns:
        ``"native"``, ``"cuda"`` or ``"reference"``. The first two compute in float32 and also take float16 and
        bfloat16.
    """
    device = args.x.device
    if args.x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return "reference"
    if device.type == "cpu":
        return "native"
    if device.type != "cuda" or (isinstance(args, ScanArguments) and args.A.shape[1] > _cuda.MAX_STATES):
        return "reference"
    return "cuda" if _cuda_kernels.supports(device) else "reference"


def forward(args: Arguments) -> tuple[Tensor, Tensor | None]:
    """Compute an operator.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``; and the last state, contiguous, if `args.keeps_state`.
    """
    kernels = kernels_for(args)
    if kernels == "native":
        return _native_kernels.forward(args)
    if kernels == "cuda":
        return _cuda_kernels.forward(args)
    return _reference_kernels.forward(args)


def backward(grad_y: Tensor, grad_last: Tensor | None, args: Arguments) -> list[Tensor]:
    """Compute the gradients of an operator.

    Args:
        grad_y: (B, L, D) gradient of the operator's result.
        grad_last: Gradient of the last state, or None.
        args: The operator's arguments.

    Returns:
        The gradients of `args.tensors()`, in that order, each in its tensor's dtype.
    """
    if kernels_for(args) == "native":
        return _native_kernels.backward(grad_y, grad_last, args)
    return _reference_kernels.backward(grad_y, grad_last, args)  # CUDA has no kernels for gradients
