"""The selective scan and the causal convolution of VideoMamba, each run by the best kernel for its inputs.

Activations are (B, L, D), channels last. `reference` defines what the operators compute, and `cases` is the one list
of cases that every kernel is tested on.

On a CPU the operators run natively in float32 (AVX-512, AVX2, NEON or portable code, picked at run time), with native
gradients; float16 and bfloat16 inputs are computed in float32. On NVIDIA GPUs the operators have CUDA kernels where
these were built (docs/cuda.md), but no CUDA kernels for gradients. Everything else, float64 included, is computed by
the reference. Each operator is one `torch.library` operator (``vmp::``), so that an exported program has one node for
it. A call that takes or returns a state is one of another operator, ``vmp::selective_scan_with_state`` and so on, so
that programs without states stay as they are.

How a call travels: `selective_scan` below calls ``torch.ops.vmp.selective_scan``, which `_registration` has registered.
The registered function has `_arguments` check the tensors and hands them to `_dispatch`, which picks the kernels by
dtype and device: `_native_kernels`, `_cuda_kernels` or `_reference_kernels`. The first two lay the tensors out for C
(`_memory`) and call the compiled library, which `_native` or `_cuda` finds and describes for ctypes; `_openmp` lends
the native library PyTorch's own threads. A gradient travels the same way from ``vmp::selective_scan_backward``.

`chunked` computes the same results by ordinary tensor operations, for exported programs that have to run where none of
these kernels can.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from . import _registration as _registration  # registers the operators
from . import reference

__all__ = ["bi_selective_scan", "causal_conv_silu", "reference", "selective_scan"]


@overload
def selective_scan(
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
    state: Tensor | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...


@overload
def selective_scan(
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
    state: Tensor | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def selective_scan(
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
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan one direction: Mamba's selective scan with VideoMambaPro's options (formulas and sources: `reference`).

    The rows of x, dt, z, B and C may lie at any stride, so that slices of a linear layer's output are read in place.
    Scanned in several calls that hand on the state, a sequence gives the same numbers as in one, on a CPU in float32
    to the last bit.

    Args:
        x: (B, L, D) inputs.
        dt: (B, L, D) step sizes before ``dt_bias`` and softplus.
        A: (D, N) decay rates, not positive.
        B: (B, L, N) input projections.
        C: (B, L, N) output projections.
        D: (D,) skip weights, or None for no skip term.
        z: (B, L, D) gate; the output is multiplied by SiLU(z). None for no gate.
        dt_bias: (D,) bias that is added to ``dt`` before softplus, or None.
        reverse: Walk the sequence from its end; the output stays in forward order.
        initial_state: ``"zero"``, or ``"first_input"`` for VideoMambaPro's elemental residual.
        mask_diagonal: Leave each step's own contribution out of the state term.
        state: (B, D, N) state before the first scanned step, in float32, or None to start as `initial_state` says. With
            a state, `initial_state` has no effect, and `mask_diagonal` spares no step.
        return_state: Return the last state, too.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``; with `return_state` a pair of it and of the last state, (B, D, N),
        contiguous, in float32 (float64 for float64 inputs). It is never memory of `state`.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or ``initial_state`` is unknown.
        MissingDependencyError: The native library is needed and not built.
    """
    tensors = (x, dt, A, B, C, D, z, dt_bias)
    options = {"reverse": reverse, "initial_state": initial_state, "mask_diagonal": mask_diagonal}
    y: Tensor
    if state is None and not return_state:
        y = torch.ops.vmp.selective_scan(*tensors, **options)
        return y
    y, last = torch.ops.vmp.selective_scan_with_state(*tensors, state, **options)
    return (y, last) if return_state else y


@overload
def bi_selective_scan(
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
    state: Tensor | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...


@overload
def bi_selective_scan(
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
    state: Tensor | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def bi_selective_scan(
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
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan both directions with shared weights in one pass and add them up; each adds its own skip term.

    Args:
        x, dt, A, B, C, D, z, dt_bias, initial_state: As in `selective_scan`.
        A_b: (D, N) decay rates of the backward direction, not positive.
        mask_backward: ``mask_diagonal`` for the backward direction.
        state: (B, D, N) state of the forward direction before the first step, in float32, or None. The backward
            direction starts as `initial_state` says, at the end of what the call is given.
        return_state: Return the last state of the forward direction, too.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``; with `return_state` a pair of it and of the last state, (B, D, N),
        contiguous, in float32 (float64 for float64 inputs). It is never memory of `state`.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or ``initial_state`` is unknown.
        MissingDependencyError: The native library is needed and not built.
    """
    tensors = (x, dt, A, A_b, B, C, D, z, dt_bias)
    options = {"initial_state": initial_state, "mask_backward": mask_backward}
    y: Tensor
    if state is None and not return_state:
        y = torch.ops.vmp.bi_selective_scan(*tensors, **options)
        return y
    y, last = torch.ops.vmp.bi_selective_scan_with_state(*tensors, state, **options)
    return (y, last) if return_state else y


@overload
def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    state: Tensor | None = None,
    return_state: Literal[False] = False,
) -> Tensor: ...


@overload
def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    state: Tensor | None = None,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def causal_conv_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    reverse: bool = False,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Apply a depthwise causal convolution over the sequence, then SiLU, without transposing or flipping.

    Args:
        x: (B, L, D) inputs; the rows may lie at any stride.
        weight: (D, K) taps, K at most 16; the last column multiplies the current step.
        bias: (D,) bias, or None.
        reverse: Let each step see the K - 1 steps after it instead of the K - 1 steps before it.
        state: (B, K - 1, D) inputs scanned before the first step, the oldest first, in float32, or None for zeros.
        return_state: Return the last K - 1 inputs, too, those of `state` among them where L is less.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``; with `return_state` a pair of it and of the last inputs,
        (B, K - 1, D), contiguous, in float32 (float64 for float64 inputs). It is never memory of `state`.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or K is too large.
        MissingDependencyError: The native library is needed and not built.
    """
    y: Tensor
    if state is None and not return_state:
        y = torch.ops.vmp.causal_conv_silu(x, weight, bias, reverse=reverse)
        return y
    y, last = torch.ops.vmp.causal_conv_silu_with_state(x, weight, bias, state, reverse=reverse)
    return (y, last) if return_state else y
