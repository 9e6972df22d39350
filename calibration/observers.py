"""Choose the range of a layer's input or output from samples: with outliers, without outliers, or with extra room."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchao.quantization.pt2e import MinMaxObserver

RANGES = ("percentile", "mse", "minmax")
_SAMPLE = 4096  # values of each clip that are kept
_CANDIDATES = 48  # ranges among which `mse` chooses
_NARROWEST = 0.1  # the narrowest candidate, as a share of the widest


class RangeObserver(MinMaxObserver):  # type: ignore[misc]
    """Choose the range that eight bits, or sixteen, have to cover.

    Args:
        ranges: ``minmax``: all values seen. ``percentile``: all but the outermost values. ``mse``: the range that
            quantises the values with the least mean squared error.
        percentile: Percent of the values that lie below the upper bound, and above the lower bound.
        headroom: Factor that both bounds are multiplied with at the end.
        options: Passed to `MinMaxObserver`.
    """

    def __init__(
        self, ranges: str = "percentile", percentile: float = 99.99, headroom: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.ranges, self.percentile, self.headroom = ranges, percentile, headroom
        self.samples: list[Tensor] = []

    def forward(self, values: Tensor) -> Tensor:
        """Take a sample of a clip's values, a tensor of any shape, and return the same tensor."""
        if self.ranges != "minmax":
            flat = values.detach().flatten()
            count = min(len(flat), _SAMPLE)
            # Evenly spread places, whose distances are no multiple of a number of channels.
            self.samples.append(flat[torch.linspace(0, len(flat) - 1, count).long()])
        super().forward(values)
        return values

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, for PT2E."""
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
        least, best = float("inf"), (low, high)
        for share in torch.linspace(1, _NARROWEST, _CANDIDATES):
            bounds = low.clamp(max=0) * share, high.clamp(min=0) * share
            scale = ((bounds[1] - bounds[0]) / (self.quant_max - self.quant_min)).clamp(min=float(self.eps))
            zero = (self.quant_min - bounds[0] / scale).round()
            error = (
                torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero), self.quant_min, self.quant_max)
                .sub_(values)
                .square_()
                .mean()
            )
            if float(error) < least:
                least, best = float(error), bounds
        return best
