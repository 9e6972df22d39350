"""Run the scan and the convolution, and their gradients, by the PyTorch reference."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._arguments import Arguments, ConvArguments


def forward(args: Arguments) -> tuple[Tensor, Tensor | None]:
    """Compute an operator step by step, on any device and in any floating dtype.

    Returns:
        (B, L, D), contiguous; and the last state if `args.keeps_state`, contiguous and in memory of its own.
    """
    y, last = _compute(args)
    return y.contiguous(), last.clone(memory_format=torch.contiguous_format) if args.keeps_state else None


def backward(grad_y: Tensor, grad_last: Tensor | None, args: Arguments) -> list[Tensor]:
    """Compute an operator once more with autograd, and differentiate.

    Args:
        grad_y: (B, L, D) gradient of the operator's result.
        grad_last: Gradient of the last state, or None.
        args: The operator's arguments.

    Returns:
        The gradients of `args.tensors()`, in that order, contiguous.
    """
    with torch.enable_grad():
        leaves = args.map_tensors(lambda tensor: tensor.detach().requires_grad_())
        outputs = _compute(leaves)
        given = [(out, grad) for out, grad in zip(outputs, (grad_y, grad_last), strict=True) if grad is not None]
        given = [(out, grad) for out, grad in given if out.requires_grad]  # not that of an empty state
        grads = torch.autograd.grad(
            [out for out, _ in given], leaves.tensors(), [grad for _, grad in given], materialize_grads=True
        )
    return [grad.contiguous() for grad in grads]


def _compute(args: Arguments) -> tuple[Tensor, Tensor]:
    if isinstance(args, ConvArguments):
        return reference.causal_conv_silu(
            args.x, args.weight, args.bias, reverse=args.reverse, state=args.state, return_state=True
        )
    if args.A_b is None:
        return reference.selective_scan(
            args.x, args.dt, args.A, args.B, args.C, args.D, args.z, args.dt_bias,
            reverse=args.reverse, initial_state=args.initial_state, mask_diagonal=args.mask,
            state=args.state, return_state=True,
        )  # fmt: skip
    return reference.bi_selective_scan(
        args.x, args.dt, args.A, args.A_b, args.B, args.C, args.D, args.z, args.dt_bias,
        initial_state=args.initial_state, mask_backward=args.mask, state=args.state, return_state=True,
    )  # fmt: skip
