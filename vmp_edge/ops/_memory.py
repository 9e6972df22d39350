"""Hand tensors to the compiled kernels: bring them into a readable layout, and give C their addresses and strides."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from ._arguments import ConvArguments, ScanArguments
from ._native import View

Kind = TypeVar("Kind", ScanArguments, ConvArguments)


def readable(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor in a dtype and a layout that the kernels read, copied only where it has to be.

    The rows of an activation, (B, L, columns), may lie at any stride as long as its columns are adjacent. Every other
    tensor becomes contiguous.
    """
    tensor = tensor.to(dtype)
    if tensor.dim() == 3 and (tensor.stride(2) == 1 or tensor.shape[2] == 1):
        return tensor
    return tensor.contiguous()


def with_contiguous_state(args: Kind) -> Kind:
    """Return arguments whose state, if there is one, is contiguous: the kernels take no strides for it."""
    return args if args.state is None else args._replace(state=args.state.contiguous())


def empty_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return uninitialised memory of the tensor's shape, contiguous whatever the tensor's strides.

    Args:
        tensor: The tensor that gives shape and device.
        dtype: The dtype of the result; None for the tensor's own.
    """
    return tensor.new_empty(tensor.shape, dtype=dtype)


def view(tensor: Tensor | None) -> View:
    """Return the address and the strides of a (B, L, columns) tensor; null for None."""
    if tensor is None:
        return View()
    return View(tensor.data_ptr(), tensor.stride(0), tensor.stride(1))


def address(tensor: Tensor | None) -> int | None:
    """Return the address of a contiguous tensor; None for None."""
    return None if tensor is None else tensor.data_ptr()
