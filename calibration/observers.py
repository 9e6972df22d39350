"""The range of what flows through a layer, from a sample of it: with its outliers, without them, or with more room."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import MinMaxObserver

RANGES = ("percentile", "mse", "minmax")
_SAMPLE = 4096  # values of each clip that are kept
_TRIED = 48  # ranges among which the one with the least error is sought
_NARROWEST = 0.1  # of them, as a share of the widest


class RangeObserver(MinMaxObserver):  # type: ignore[misc]
    """Chooses the range that eight bits, or sixteen, have to cover.

    Args:
        ranges: ``minmax``, everything seen; ``percentile``, all but the outermost values; ``mse``, the range that
            quantises the values with the least squared error.
        percentile: of the values that lie below the upper bound, and likewise above the lower one.
        headroom: what both bounds are multiplied with at last.
        options: of `MinMaxObserver`.
    """

    def __init__(
        self, ranges: str = "percentile", percentile: float = 99.99, headroom: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.ranges, self.percentile, self.headroom = ranges, percentile, headroom
        self.samples: list[Tensor] = []

    def forward(self, values: Tensor) -> Tensor:
        """Take note of a clip's values, any shape; returns them."""
        if self.ranges != "minmax":
            flat = values.detach().flatten()
            count = min(len(flat), _SAMPLE)
            # evenly spread places, whose distances are no multiple of a number of channels
            self.samples.append(flat[torch.linspace(0, len(flat) - 1, count).long()])
        super().forward(values)
        return values

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, for PT2E."""
        low, high = self.min_val, self.max_val
        if self.samples:
            values = torch.cat(self.samples)
            low, high = self._percentiles(values) if self.ranges == "percentile" else self._least_error(values)
        scale, zero_point = self._calculate_qparams(low * self.headroom, high * self.headroom)
        return scale, zero_point

    def _percentiles(self, values: Tensor) -> tuple[Tensor, Tensor]:
        ordered = values.sort().values
        cut = int((1 - self.percentile / 100) * len(ordered))
        return ordered[cut], ordered[len(ordered) - 1 - cut]

    def _least_error(self, values: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.min_val, self.max_val
        values = values[:: max(1, len(values) // 2**16)]
        best, chosen = float("inf"), (low, high)
        for share in torch.linspace(1, _NARROWEST, _TRIED):
            bounds = low.clamp(max=0) * share, high.clamp(min=0) * share
            scale = ((bounds[1] - bounds[0]) / (self.quant_max - self.quant_min)).clamp(min=float(self.eps))
            zero = (self.quant_min - bounds[0] / scale).round()
            error = (
                torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero), self.quant_min, self.quant_max)
                .sub_(values)
                .square_()
                .mean()
            )
            if float(error) < best:
                best, chosen = float(error), bounds
        return chosen
