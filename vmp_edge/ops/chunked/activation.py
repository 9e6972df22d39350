"""Softplus for backends with and without an operator for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# log(1 + e) / e for e in 0 .. 1: a least-squares fit at Chebyshev nodes, reweighted until the largest relative error
# was smallest. That error is 3e-8, and 1.5e-7 when the polynomial is evaluated in float32.
_LOG1P = (
    0.99999994, -0.499994934, 0.333190978, -0.24842982, 0.191060081, -0.136632472, 0.0782259628, -0.0295052398,
    0.00523269363,
)  # fmt: skip


def softplus(v: Tensor, kind: str = "operator") -> Tensor:
    """Compute log(1 + exp(v)): accurate far below zero, exact far above, never an overflow.

    Args:
        v: A tensor of any shape.
        kind: One of `SOFTPLUS`.

    Returns:
        The shape and dtype of ``v``.
    """
    if kind == "operator":
        return F.softplus(v)
    above = torch.relu(v)
    e = torch.exp(v - 2.0 * above)  # exp(-|v|); some graphs would convert a whole number 2
    series = e * _LOG1P[-1] + _LOG1P[-2]
    for coefficient in reversed(_LOG1P[:-2]):
        series = series * e + coefficient
    return above + e * series
