"""EfficientNet-Lite0 with its batch norms, under the names of the PyPI package's state dict."""

import torch
import torch.nn.functional as F
from torch import nn

# repetitions, kernel, stride, expansion, channels of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def convolve(conv, x):
    """TensorFlow's padding "same": the output has the input's size over the stride, and the odd pixel is behind."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
    x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    return F.conv2d(x, conv.weight, None, stride, groups=conv.groups)


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = conv(inputs, inner, 1), nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = conv(inner, inner, kernel, stride, inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv, self._bn2 = conv(inner, outputs, 1), nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x):
        y = F.relu6(self._bn0(convolve(self._expand_conv, x))) if hasattr(self, "_bn0") else x
        y = F.relu6(self._bn1(convolve(self._depthwise_conv, y)))
        y = self._bn2(convolve(self._project_conv, y))
        return x + y if x.shape == y.shape else y


class WithNorms(nn.Module):
    """The network up to its last map, in evaluation mode, with random weights and norms away from their first values.

    Args:
        seed: Of the weights.
    """

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self._conv_stem, self._bn0 = conv(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3)
        blocks, width = [], 32
        for repetitions, kernel, stride, expansion, outputs in STAGES:
            for index in range(repetitions):
                blocks.append(Block(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = conv(width, 1280, 1), nn.BatchNorm2d(1280, eps=1e-3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.8, 1.6)
                module.bias.data.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.2, 0.6)
        self.eval()

    def forward(self, frames):
        x = F.relu6(self._bn0(convolve(self._conv_stem, frames)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(convolve(self._conv_head, x)))


def package_tensors(seed=0):
    """A state dict as the package has it, with a classifier."""
    return {**WithNorms(seed).state_dict(), "_fc.weight": torch.zeros(10, 1280), "_fc.bias": torch.zeros(10)}
