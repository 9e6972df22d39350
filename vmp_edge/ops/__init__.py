"""The selective scan and the causal convolution of VideoMamba, on the best kernel for their inputs.

Activations are (B, L, D), channels last. What the operators compute is defined by `reference`, which has the same
functions. On a CPU they run natively (AVX-512, AVX2, NEON or portable code, picked at run time) in float32, with
native gradients; float16 and bfloat16 are computed in float32. On NVIDIA GPUs the scans have CUDA kernels where they
were built (docs/cuda.md), their gradients and the convolution not. float64 and the rest take the reference path.
Each is one `torch.library` operator (``vmp::``), so that exported programs have one node for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _registration as _registration
from . import reference

__all__ = ["bi_selective_scan", "causal_conv_silu", "reference", "selective_scan"]


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
) -> Tensor:
    """Scan one direction: Mamba's selective scan with VideoMambaPro's options (see `reference`).

    Rows of x, dt, z, B and C may lie at any stride: slices of a linear layer's output are read in place.

    Args:
        x: (B, L, D) inputs.
        dt: (B, L, D) step sizes before ``dt_bias`` and softplus.
        A: (D, N) decay rates, not positive.
        B: (B, L, N) input projections.
        C: (B, L, N) output projections.
        D: (D,) skip weights, or None for no skip term.
        z: (B, L, D) gate; the output is multiplied by SiLU(z). None for no gate.
        dt_bias: (D,) added to ``dt`` before softplus.
        reverse: walk the sequence from its end; the output stays in forward order.
        initial_state: ``"zero"``, or ``"first_input"`` for VideoMambaPro's elemental residual.
        mask_diagonal: leave each step's own contribution out of the state term.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or ``initial_state`` is unknown.
        MissingDependencyError: the native library is needed and not built.
    """
    y: Tensor = torch.ops.vmp.selective_scan(
        x, dt, A, B, C, D, z, dt_bias, reverse=reverse, initial_state=initial_state, mask_diagonal=mask_diagonal
    )
    return y


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
) -> Tensor:
    """Scan both directions with shared weights in one pass and add them up; each brings its own skip term.

    Args:
        x, dt, A, B, C, D, z, dt_bias, initial_state: as in `selective_scan`.
        A_b: (D, N) decay rates of the backward direction, not positive.
        mask_backward: ``mask_diagonal`` for the backward direction.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or ``initial_state`` is unknown.
        MissingDependencyError: the native library is needed and not built.
    """
    y: Tensor = torch.ops.vmp.bi_selective_scan(
        x, dt, A, A_b, B, C, D, z, dt_bias, initial_state=initial_state, mask_backward=mask_backward
    )
    return y


def causal_conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """Depthwise causal convolution over the sequence, then SiLU, without transposing or flipping.

    Args:
        x: (B, L, D); rows may lie at any stride.
        weight: (D, K), K at most 16; its last column multiplies the current step.
        bias: (D,) or None.
        reverse: the step sees the K - 1 steps after it instead of those before it.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or K is too large.
        MissingDependencyError: the native library is needed and not built.
    """
    y: Tensor = torch.ops.vmp.causal_conv_silu(x, weight, bias, reverse=reverse)
    return y
