"""The form of the source model for inference: it gives the same numbers and is friendlier to backends."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmp_edge import ops
from vmp_edge.models.blocks import NORM_EPS, Block, Mixer
from vmp_edge.models.efficientnet import EfficientNetLite0
from vmp_edge.models.options import ModelOptions
from vmp_edge.models.videomamba import VideoMamba, swap_order


class Linear(nn.Linear):
    """A linear layer made from a weight (N, K) and a bias (N), which are copied."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone())


class Normalise(nn.Module):
    """A norm without a weight: x over its root mean square. The norm's weight is in the linear layers that follow.

    The mean is a linear layer with one output, as XNNPACK's delegate takes a linear layer, but not a mean.
    """

    def __init__(self, width: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.mean = Linear(torch.full((1, width), 1.0 / width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise tokens (..., C) -> (..., C)."""
        return x * torch.rsqrt(self.mean(x * x) + self.eps)


def mean_over(x: Tensor, axis: int) -> Tensor:
    """Return the mean over one axis, which goes away, as a sum of shares.

    Every delegate knows the sum that keeps its axis, as scans in ordinary operations have it, but not the mean. Each
    number is divided before it is added, as the sum of a long clip's tokens could be beyond float16.
    """
    return torch.sum(x * (1.0 / x.shape[axis]), dim=axis, keepdim=True).squeeze(axis)


class Direction(nn.Module):
    """The convolution and the projections of one direction, or of both directions if they share them.

    Args:
        mixer: The mixer of the source model.
        suffix: The suffix of the direction's parameters in the mixer.
        reverse: True if the direction goes from the last token to the first.
    """

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
        """Return the scan's input (B, L, D), dt (B, L, D), B (B, L, N) and C (B, L, N) for x (B, L, D)."""
        return self.project(x, ops.causal_conv_silu(x, self.conv_weight, self.conv_bias, reverse=self.reverse))

    def project(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `forward` does, from x and its convolution c, both (B, L, D)."""
        return (c if self.scans_conv else x), self.dt_up(self.dt_down(c)), self.B(c), self.C(c)


class FoldedBlock(nn.Module):
    """The weights of a block. Its norm is folded into its projections, which are split so that nothing is transposed.

    Args:
        block: The block of the source model.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        mixer = block.mixer
        self.options = mixer.options
        inner = self.options.d_inner
        projection = mixer.in_proj.weight * block.norm.weight
        self.normalise = Normalise(self.options.embed_dim)
        self.in_x = Linear(projection[:inner])
        self.in_z = Linear(projection[inner:])
        self.out = Linear(mixer.out_proj.weight)
        self.A = nn.Parameter(-torch.exp(mixer.A_log.detach()))
        if self.options.directions != "forward":
            self.A_b = nn.Parameter(-torch.exp(mixer.A_b_log.detach()))
        self.forwards = Direction(mixer, "", False)
        self.backwards = Direction(mixer, "_b", True) if self.options.directions == "separate" else None


class InferenceBlock(FoldedBlock):
    """A block of a model that takes whole clips.

    Args:
        block: The block of the source model.
        only_first: True to compute the first token alone, for the last block of a model whose head reads only this one,
            the class token. The forward direction then takes one step; the backward direction still walks the whole
            sequence.
    """

    def __init__(self, block: Block, only_first: bool = False) -> None:
        super().__init__(block)
        self.only_first = only_first

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the block's tokens for tokens (B, L, C): (B, L, C), or (B, 1, C) for the first alone."""
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
        """Return the sum of the directions, gated: x, z (B, L, D) -> (B, L, D)."""
        start, mask = self.options.initial_state, self.options.mask_backward
        forward, backward = self.forwards, self.backwards
        u, dt, B, C = forward(x)
        if self.options.directions == "shared":
            return ops.bi_selective_scan(
                u, dt, self.A, self.A_b, B, C, forward.D, z, forward.dt_bias, initial_state=start, mask_backward=mask
            )
        y = ops.selective_scan(u, dt, self.A, B, C, forward.D, z, forward.dt_bias, initial_state=start)
        if backward is None:
            return y
        u, dt, B, C = backward(x)
        return y + ops.selective_scan(
            u,
            dt,
            self.A_b,
            B,
            C,
            backward.D,
            z,
            backward.dt_bias,
            reverse=True,
            initial_state=start,
            mask_diagonal=mask,
        )

    def scan_to_first(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the first step of `scan`'s result: x (B, L, D), z (B, 1, D) -> (B, 1, D)."""
        start, mask = self.options.initial_state, self.options.mask_backward
        forward, backward = self.forwards, self.backwards
        if self.options.directions == "shared":
            backward = forward
            u, dt, B, C = forward(x)
            first = (u[:, :1], dt[:, :1], self.A, B[:, :1], C[:, :1])
        else:
            u, dt, B, C = forward(x[:, :1])  # the first step is enough, as the convolution sees nothing before it
            first = (u, dt, self.A, B, C)
        y = ops.selective_scan(*first, forward.D, z, forward.dt_bias, initial_state=start)
        if backward is None:
            return y
        if backward is not forward:
            u, dt, B, C = backward(x)
        y_backward = ops.selective_scan(
            u,
            dt,
            self.A_b,
            B,
            C,
            backward.D,
            None,
            backward.dt_bias,
            reverse=True,
            initial_state=start,
            mask_diagonal=mask,
        )
        return y + y_backward[:, :1] * F.silu(z)


class PooledFrames(nn.Module):
    """The readout of video-text models, `VideoMamba.frame_features` and their mean.

    The final norm's weight is a factor of the class token and the patches' means. That of the layer norm, and its bias,
    are in the projection. Both norms of vectors here are written as `Normalise`, which all backends know.
    """

    def __init__(self, model: VideoMamba) -> None:
        super().__init__()
        options, norm, projection = model.options, model.pool_norm, model.vision_proj
        width = options.embed_dim
        self.steps = options.grid[0]
        self.scale = nn.Parameter(model.norm_f.weight.detach().clone())
        self.mean = Linear(torch.full((1, width), 1.0 / width))
        self.normalise = Normalise(width, norm.eps)
        weight, bias = projection.weight * norm.weight, projection.weight @ norm.bias + projection.bias
        self.project = Linear(weight, bias)
        self.unit = Normalise(options.projection, 1e-12)
        self.factor = options.projection**-0.5  # from a root mean square of 1 to a length of 1

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the feature (1, P) of normalised tokens (1, L, C) without the final norm's weight."""
        _, length, width = tokens.shape
        patches = tokens[:, 1:].reshape(1, self.steps, (length - 1) // self.steps, width)
        pooled = (mean_over(patches, 2) + tokens[:, :1]) * self.scale
        projected = self.project(self.normalise(pooled - self.mean(pooled)))
        # the factor comes before the sum, as Core ML makes a mean of a sum that is multiplied by one over its count
        feature: Tensor = mean_over(self.unit(projected) * self.factor, 1)
        return feature


class InferenceModel(nn.Module):
    """The source model for inference: it gives the same numbers and is friendlier to backends.

    Its input has the layout of `fold_frames` instead of (B, 3, T, H, W), so that no backend must transpose a video.

    Args:
        model: The source model; its weights are copied.
        features: True to give the head's input after the logits, too. The head's layer then has a row for each feature,
            so that backends and quantisers meet only layers that they know. A model without classes gives features
            alone, with this or without it.
    """

    def __init__(self, model: VideoMamba, features: bool = False) -> None:
        super().__init__()
        options: ModelOptions = model.options
        self.options = options
        self.stem = stem_of(model)
        self.patch = patch_embedding(model)
        self.first = nn.Parameter((model.cls_token + model.pos_embed[:, :1]).detach().clone())
        # two parts, as one sum for all tokens would be a quarter of an int8 program
        self.spatial = nn.Parameter(model.pos_embed[:, 1:].detach().clone())
        self.temporal = nn.Parameter(model.temporal_pos_embedding.detach().squeeze(0)[:, None].clone())
        blocks = model.blocks()
        reads_first = options.readout == "class_token"
        self.blocks = nn.ModuleList(InferenceBlock(block, reads_first and block is blocks[-1]) for block in blocks)
        self.normalise = Normalise(options.embed_dim)
        if options.readout == "pooled_frames":
            self.pooling: PooledFrames | None = PooledFrames(model)
            self.head = self.pooling.project
        else:
            self.pooling = None
            self.head = folded_head(model, features)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return logits (1, classes), or with features (1, classes + C), of frames (T / tubelet, tubelet * 3, H, W).

        A video-text model returns the video's feature (1, P).
        """
        options = self.options
        steps, side = options.grid
        maps = frames if self.stem is None else self.stem(frames)
        patches = self.patch(maps).flatten(2).transpose(1, 2) + self.spatial + self.temporal
        tokens = torch.cat([self.first, patches.reshape(1, steps * side * side, options.embed_dim)], dim=1)
        for index, block in enumerate(self.blocks):
            if not options.scans_time_first(index):
                tokens = block(tokens)
            elif index == options.depth - 1 and self.pooling is None:  # of one token, or of all: in any order
                tokens = block(swap_order(tokens, steps))
            else:
                tokens = swap_order(block(swap_order(tokens, steps)), side * side)
        if self.pooling is not None:
            feature: Tensor = self.pooling(self.normalise(tokens))
            return feature
        features = self._read(tokens)
        logits: Tensor = F.linear(features, self.head.weight, self.head.bias)
        return logits

    def _read(self, tokens: Tensor) -> Tensor:
        """Return what the head reads, (1, C), of the tokens of the last block."""
        if self.options.readout == "mean":
            return mean_over(self.normalise(tokens[:, 1:]), 1)
        first: Tensor = self.normalise(tokens[:, 0])
        return first


def stem_of(model: VideoMamba) -> EfficientNetLite0 | None:
    """Return a copy of a model's stem, whose weights lie as lowerings expect them, or None if it has none."""
    stem = copy.deepcopy(model.patch_embed.stem)
    if stem is not None:
        stem.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return stem


def patch_embedding(model: VideoMamba) -> nn.Conv2d:
    """Return the patch embedding as a convolution of folded frames, (., tubelet * 3, H, W), or of the stem's maps."""
    options, source = model.options, model.patch_embed.proj
    weight = source.weight.detach().transpose(1, 2).flatten(1, 2).contiguous()
    patch = nn.Conv2d(weight.shape[1], options.embed_dim, weight.shape[-1], stride=weight.shape[-1])
    patch.weight = nn.Parameter(weight)
    patch.bias = source.bias
    return patch


def folded_head(model: VideoMamba, features: bool) -> Linear:
    """Return the head of normalised tokens, with the final norm's weight in it, and rows that give the features."""
    scale = model.norm_f.weight
    if not model.options.num_classes:
        return Linear(torch.diag(scale))
    bias = model.head.bias
    weight = model.head.weight * scale
    if not features:
        return Linear(weight, bias)
    return Linear(torch.cat([weight, torch.diag(scale)]), torch.cat([bias, torch.zeros_like(scale)]))


def fold_frames(video: Tensor, tubelet: int) -> Tensor:
    """Return a video (1, 3, T, H, W) in the layout of `InferenceModel`: (T / tubelet, tubelet * 3, H, W)."""
    _, channels, frames, height, width = video.shape
    return video[0].transpose(0, 1).reshape(frames // tubelet, tubelet * channels, height, width)
