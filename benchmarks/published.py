"""Compute VideoMambaPro with the arithmetic of its published code: the baseline of `model.py`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vmp_edge.models.blocks import Mixer
from vmp_edge.models.videomamba import VideoMamba


def published_mixer(mixer: Mixer, hidden: Tensor) -> Tensor:
    """Compute a shared-weights VideoMambaPro mixer in the published layout (B, D, L), with flips and a loop over L."""
    options = mixer.options
    length = hidden.shape[1]
    x, z = (mixer.in_proj.weight @ hidden.transpose(1, 2)).chunk(2, dim=1)
    conv = mixer.get_submodule("conv1d")
    c = F.silu(F.conv1d(x, conv.weight, conv.bias, padding=options.d_conv - 1, groups=x.shape[1])[..., :length])
    states = options.d_state
    projected = F.linear(c.transpose(1, 2), mixer.get_parameter("x_proj.weight"))
    dt, B, C = (t.transpose(1, 2) for t in projected.split([options.dt_rank, states, states], dim=-1))
    delta = F.softplus(mixer.get_parameter("dt_proj.weight") @ dt + mixer.get_parameter("dt_proj.bias")[:, None])
    u = c if options.scan_input == "conv" else x
    D = mixer.get_parameter("D")
    ahead = published_scan(u, delta, -torch.exp(mixer.A_log), B, C, D, z, False)
    u, delta, B, C, z = (t.flip(-1) for t in (u, delta, B, C, z))
    behind = published_scan(u, delta, -torch.exp(mixer.A_b_log), B, C, D, z, options.mask_backward)
    y = ahead + behind.flip(-1)
    return mixer.out_proj(y.transpose(1, 2))


def published_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, mask: bool
) -> Tensor:
    """Compute a scan: decays and inputs of all tokens at once, then a Python loop over the tokens.

    Args:
        u: (B, D, L), like ``delta`` and ``z``.
        delta: Step sizes.
        A: (D, N).
        B: (B, N, L), like ``C``.
        C: Output weights.
        D: (D,).
        z: Gate.
        mask: True hides each token's own input from its output.
    """
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    inputs = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    h = u[:, :, 0, None].expand(-1, -1, A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        h = decay[:, :, t] * h + inputs[:, :, t]
        visible = (h - inputs[:, :, t] if t else torch.zeros_like(h)) if mask else h
        outputs.append(torch.einsum("bdn,bn->bd", visible, C[:, :, t]))
    return (torch.stack(outputs, dim=2) + u * D[:, None]) * F.silu(z)


def published_forward(model: VideoMamba, video: Tensor) -> Tensor:
    """Compute the whole model with `published_mixer` in its blocks."""
    tokens = model.embed(video)
    for layer in model.layers:
        tokens = tokens + published_mixer(layer.mixer, layer.norm(tokens))
    return model.head(model.norm_f(tokens)[:, 0])
