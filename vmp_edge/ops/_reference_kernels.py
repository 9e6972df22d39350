"""Run the scan and the convolution, and their gradients, by the PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._arguments import Arguments, ConvArguments


def forward(args: Arguments) -> Tensor:
    """Compute an operator step by step, on any device and in any floating dtype.

    Returns:
        (B, L, D), contiguous.
    """
    return _compute(args).contiguous()


def backward(grad_y: Tensor, args: Arguments) -> list[Tensor]:
    """Compute an operator once more with autograd, and differentiate.

    Returns:
        The gradients of `args.tensors()`, in that order, contiguous.
    """
    with torch.enable_grad():
        leaves = args.map_tensors(lambda tensor: tensor.detach().requires_grad_())
        grads = torch.autograd.grad(_compute(leaves), leaves.tensors(), grad_y, materialize_grads=True)
    return [grad.contiguous() for grad in grads]


def _compute(args: Arguments) -> Tensor:
    if isinstance(args, ConvArguments):
        return reference.causal_conv_silu(args.x, args.weight, args.bias, reverse=args.reverse)
    if args.A_b is None:
        return reference.selective_scan(
            args.x, args.dt, args.A, args.B, args.C, args.D, args.z, args.dt_bias,
            reverse=args.reverse, initial_state=args.initial_state, mask_diagonal=args.mask,
        )  # fmt: skip
    return reference.bi_selective_scan(
        args.x, args.dt, args.A, args.A_b, args.B, args.C, args.D, args.z, args.dt_bias,
        initial_state=args.initial_state, mask_backward=args.mask,
    )  # fmt: skip
