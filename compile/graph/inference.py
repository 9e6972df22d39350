"""The source model rewritten for inference: same numbers, friendlier to backends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmp_edge import ops
from vmp_edge.models.options import ModelOptions
from vmp_edge.models.videomamba import NORM_EPS, Block, Mixer, VideoMamba, scans_time_first, swap_order


class Linear(nn.Linear):
    """A linear layer with given weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone())


class Normalise(nn.Module):
    """x over its root mean square; the norm's weight lives in the linear layers that follow.

    The mean is a linear layer with one output: as such it stays inside XNNPACK's delegate, as a mean it does not.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = Linear(torch.full((1, width), 1.0 / width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return x * torch.rsqrt(self.mean(x * x) + NORM_EPS)


class Direction(nn.Module):
    """Convolution and projections of one direction (or of both, when they share them)."""

    def __init__(self, mixer: Mixer, suffix: str, reverse: bool) -> None:
        super().__init__()
        options = mixer.options
        self.reverse = reverse
        self.scans_conv = options.scan_input == "conv"
        conv, dt = getattr(mixer, f"conv1d{suffix}"), getattr(mixer, f"dt_proj{suffix}")
        projection = getattr(mixer, f"x_proj{suffix}").weight
        rank, states = options.dt_rank, options.d_state
        self.conv_weight = nn.Parameter(conv.weight.detach().squeeze(1).clone())
        self.conv_bias = nn.Parameter(conv.bias.detach().clone())
        self.dt_down = Linear(projection[:rank])
        self.dt_up = Linear(dt.weight)
        self.B = Linear(projection[rank : rank + states])
        self.C = Linear(projection[rank + states :])
        self.dt_bias = nn.Parameter(dt.bias.detach().clone())
        self.D = nn.Parameter(getattr(mixer, f"D{suffix}").detach().clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, L, D) -> scan input (B, L, D), dt (B, L, D), B (B, L, N), C (B, L, N)."""
        c = ops.causal_conv_silu(x, self.conv_weight, self.conv_bias, reverse=self.reverse)
        return (c if self.scans_conv else x), self.dt_up(self.dt_down(c)), self.B(c), self.C(c)


class InferenceBlock(nn.Module):
    """A block with its norm folded into the projections and the projections split: no transpose.

    Args:
        block: of the source model.
        only_first: compute the first token alone, the class token, which is all that the head reads of the last block.
            Forwards that takes one step; backwards the whole sequence leads to it.
    """

    def __init__(self, block: Block, only_first: bool = False) -> None:
        super().__init__()
        mixer = block.mixer
        self.only_first = only_first
        self.options = mixer.options
        inner = self.options.d_inner
        projection = mixer.in_proj.weight * block.norm.weight
        self.normalise = Normalise(self.options.embed_dim)
        self.in_x = Linear(projection[:inner])
        self.in_z = Linear(projection[inner:])
        self.out = Linear(mixer.out_proj.weight)
        self.A = nn.Parameter(-torch.exp(mixer.A_log.detach()))
        self.A_b = nn.Parameter(-torch.exp(mixer.A_b_log.detach()))
        self.forwards = Direction(mixer, "", False)
        self.backwards = Direction(mixer, "_b", True) if self.options.directions == "separate" else None

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C), or (B, 1, C)."""
        normed = self.normalise(tokens)
        x = self.in_x(normed)
        if self.only_first:
            tokens = tokens[:, :1]
            y = self.scan_to_first(x, self.in_z(self.normalise(tokens)))
        else:
            y = self.scan(x, self.in_z(normed))
        out: Tensor = tokens + self.out(y)
        return out

    def scan(self, x: Tensor, z: Tensor) -> Tensor:
        """Both directions, gated and added up: x, z (B, L, D) -> (B, L, D)."""
        start, mask, one = self.options.initial_state, self.options.mask_backward, self.forwards
        u, dt, B, C = one(x)
        if self.backwards is None:
            return ops.bi_selective_scan(
                u, dt, self.A, self.A_b, B, C, one.D, z, one.dt_bias, initial_state=start, mask_backward=mask
            )
        other = self.backwards
        y = ops.selective_scan(u, dt, self.A, B, C, one.D, z, one.dt_bias, initial_state=start)
        u, dt, B, C = other(x)
        return y + ops.selective_scan(
            u,
            dt,
            self.A_b,
            B,
            C,
            other.D,
            z,
            other.dt_bias,
            reverse=True,
            initial_state=start,
            mask_diagonal=mask,
        )

    def scan_to_first(self, x: Tensor, z: Tensor) -> Tensor:
        """The first step of `scan`'s result: x (B, L, D), z (B, 1, D) -> (B, 1, D)."""
        start, mask, one, other = self.options.initial_state, self.options.mask_backward, self.forwards, self.backwards
        if other is None:
            other = one
            u, dt, B, C = one(x)
            first = (u[:, :1], dt[:, :1], self.A, B[:, :1], C[:, :1])
        else:
            u, dt, B, C = one(x[:, :1])  # nothing before the first step: the convolution sees that one alone
            first = (u, dt, self.A, B, C)
            u, dt, B, C = other(x)
        y = ops.selective_scan(*first, one.D, z, one.dt_bias, initial_state=start)
        back = ops.selective_scan(
            u, dt, self.A_b, B, C, other.D, None, other.dt_bias, reverse=True, initial_state=start, mask_diagonal=mask
        )
        return y + back[:, :1] * F.silu(z)


class InferenceModel(nn.Module):
    """The source model for inference: same numbers, friendlier to backends.

    Its input is `fold_frames`' layout instead of (B, 3, T, H, W), so that no backend transposes a video.

    Args:
        model: the source model; its weights are copied.
        features: give what the head takes, too, after the logits. The head's layer then has a row for each feature, so
            that every backend and every quantiser meets the layers that it knows.
    """

    def __init__(self, model: VideoMamba, features: bool = False) -> None:
        super().__init__()
        options: ModelOptions = model.options
        self.options = options
        weight = model.patch_embed.proj.weight.detach()
        patch = options.patch_size
        self.patch = nn.Conv2d(3 * options.tubelet_size, options.embed_dim, patch, stride=patch)
        self.patch.weight = nn.Parameter(weight.transpose(1, 2).flatten(1, 2).contiguous())
        self.patch.bias = model.patch_embed.proj.bias
        self.first = nn.Parameter((model.cls_token + model.pos_embed[:, :1]).detach().clone())
        # apart, as their sums over all tokens would be a quarter of an int8 program
        self.spatial = nn.Parameter(model.pos_embed[:, 1:].detach().clone())
        self.temporal = nn.Parameter(model.temporal_pos_embedding.detach().squeeze(0)[:, None].clone())
        blocks = model.blocks()
        self.blocks = nn.ModuleList(InferenceBlock(block, block is blocks[-1]) for block in blocks)
        self.normalise = Normalise(options.embed_dim)
        self.head = _head(model, features)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (1, classes), or with the features (1, classes + C), of a clip (T / tubelet, tubelet * 3, H, W)."""
        options = self.options
        steps, side = options.grid
        patches = self.patch(frames).flatten(2).transpose(1, 2) + self.spatial + self.temporal
        tokens = torch.cat([self.first, patches.reshape(1, steps * side * side, options.embed_dim)], dim=1)
        for index, block in enumerate(self.blocks):
            if not scans_time_first(options, index):
                tokens = block(tokens)
            elif index == options.depth - 1:  # only the first token comes out, which no order moves
                tokens = block(swap_order(tokens, steps))
            else:
                tokens = swap_order(block(swap_order(tokens, steps)), side * side)
        logits: Tensor = F.linear(self.normalise(tokens[:, 0]), self.head.weight, self.head.bias)
        return logits


def _head(model: VideoMamba, features: bool) -> Linear:
    """The head of normalised tokens, with the final norm's weight in it, and that norm's own rows if wanted."""
    scale, bias = model.norm_f.weight, model.head.bias
    weight = model.head.weight * scale
    if not features:
        return Linear(weight, bias)
    return Linear(torch.cat([weight, torch.diag(scale)]), torch.cat([bias, torch.zeros_like(scale)]))


def fold_frames(video: Tensor, tubelet: int) -> Tensor:
    """A video (1, 3, T, H, W) as `InferenceModel` takes it: (T / tubelet, tubelet * 3, H, W)."""
    _, channels, frames, height, width = video.shape
    return video[0].transpose(0, 1).reshape(frames // tubelet, tubelet * channels, height, width)
