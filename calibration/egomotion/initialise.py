"""Initialise the model as a motion detector, so that half an hour on two cores is enough to train it.

From the published initialisation the model learns several times more slowly (its card has the numbers). The features
that detect motion are known: drifting Gabor filters in quadrature, squared, and the difference between opposite drifts
(Adelson and Bergen, "Spatiotemporal energy models for the perception of motion", 1985). So:

* the patch embedding starts as drifting Gabor filters, four channels to a group: two phases in each of two opposite
  directions;
* the first block starts as the energy detector: SiLU and gate together square each filter's output, and the output
  projection subtracts opposite directions;
* in the later blocks, B and C start almost constant and positive, so that the class token's state is a running mean
  over the tokens.

These are only initial values: every weight is trained.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmp_edge.models import VideoMamba

FASTEST = 0.06  # drift of the fastest filters, picture widths per frame


def initialise(model: VideoMamba, video: Tensor, rng: np.random.Generator) -> None:
    """Overwrite the weights of a fresh model.

    Args:
        model: Has an ``embed_dim`` that is a multiple of 4, ``expand`` 2 and shared directions.
        video: Normalised clips (B, 3, T, H, W), on which the filters' outputs are scaled to 1.
        rng: Source of randomness for the filters. The layers' random weights come from torch's generator.
    """
    options = model.options
    with torch.no_grad():
        model.patch_embed.proj.weight.copy_(gabor_filters(model, rng))
        nn.init.zeros_(model.patch_embed.get_parameter("proj.bias"))
        spread = model.patch_embed(video).pow(2).mean((0, 1, 2)).sqrt()
        model.patch_embed.proj.weight.div_(spread[:, None, None, None, None])
        nn.init.normal_(model.pos_embed, std=0.3)
        nn.init.normal_(model.temporal_pos_embedding, std=0.1)
        nn.init.normal_(model.cls_token, std=0.3)
        nn.init.normal_(model.head.weight, std=0.3 / math.sqrt(options.embed_dim))
        for layer in model.layers:
            _pooling(layer.mixer)
        _energy(model.layers[0].mixer)


def gabor_filters(model: VideoMamba, rng: np.random.Generator) -> Tensor:
    """Return drifting Gabor filters of unit norm in the shape of the patch embedding, (C, 3, tubelet, patch, patch)."""
    count, _, tubelet, patch, _ = model.patch_embed.proj.weight.shape
    y, x = np.mgrid[:patch, :patch] - (patch - 1) / 2
    frame = (np.arange(tubelet) - (tubelet - 1) / 2)[:, None, None]
    filters = np.zeros((count, 3, tubelet, patch, patch))
    for group in range(0, count, 4):
        angle = 2 * np.pi * 7 * group / count
        wavelength = np.exp(rng.uniform(np.log(0.375), np.log(1.5))) * patch
        drift = rng.uniform(0.08, 1) * min(FASTEST * model.options.image_size, 0.3 * wavelength)
        cx, cy = rng.normal(0, 1, 2)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        window = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * min(0.45 * wavelength, 0.34 * patch) ** 2))
        colours = np.ones(3) if rng.random() < 0.8 else rng.normal(0, 1, 3)
        for i, (sign, phase) in enumerate(((1, 0.0), (1, np.pi / 2), (-1, 0.0), (-1, np.pi / 2))):
            wave = np.cos(2 * np.pi / wavelength * (along - sign * drift * frame) + phase) * window
            wave -= (wave * window).sum() / ((window**2).sum() * tubelet) * window  # blind to brightness
            coloured = colours[:, None, None, None] * wave
            filters[group + i] = coloured / np.linalg.norm(coloured)
    return torch.from_numpy(filters).float()


def _pooling(mixer: Any) -> None:
    """Let the scan carry a mean of the tokens to the class token."""
    inner, rank = mixer.x_proj.in_features, mixer.dt_proj.in_features
    nn.init.normal_(mixer.in_proj.weight, std=mixer.in_proj.in_features**-0.5)
    nn.init.normal_(mixer.out_proj.weight, std=inner**-0.5)
    nn.init.normal_(mixer.x_proj.weight[:rank], std=1.5 * inner**-0.5)
    nn.init.normal_(mixer.x_proj.weight[rank:], mean=5.0 / inner, std=0.3 * inner**-0.5)
    dt = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(3e-2)))
    mixer.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus


def _energy(mixer: Any) -> None:
    """Compute motion energy: for each filter g SiLU(g) SiLU(g) + SiLU(-g) SiLU(-g), less that of the opposite drift."""
    same = torch.eye(mixer.in_proj.in_features)
    rectified = torch.cat([same, -same])
    opponent = torch.tensor([[1, 1, -1, -1], [-1, -1, 1, 1], [0.3, 0.3, 0, 0], [0, 0, 0.3, 0.3]])
    groups = torch.kron(torch.eye(len(same) // 4), 0.7 * opponent)
    mixer.in_proj.weight.mul_(0.1).add_(torch.cat([rectified, rectified]))
    mixer.x_proj.weight.mul_(0.03)
    mixer.conv1d.weight.mul_(0.1)[:, :, -1] += 1
    mixer.conv1d.bias.mul_(0.1)
    mixer.out_proj.weight.mul_(0.1).add_(torch.cat([groups, groups], dim=1))
