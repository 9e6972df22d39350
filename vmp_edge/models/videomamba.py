"""The source model: VideoMamba (arXiv 2403.06977) and VideoMambaPro (arXiv 2406.19006) as one class.

The parameters have the names of the published checkpoints. Tokens stay in the layout (B, L, C); nothing is flipped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from .efficientnet import CHANNELS, EfficientNetLite0
from .family import Decision
from .options import ModelOptions, preset

NORM_EPS = 1e-5


class PatchEmbed(nn.Module):
    """The linear embedding of tubelets into tokens, or of the maps of an image network, where the model has a stem."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.stem = EfficientNetLite0() if options.stem == "efficientnet_lite0" else None
        if self.stem is not None:
            self.stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster on a CPU
        kernel = (options.tubelet_size, options.patch_size, options.patch_size)
        channels, kernel = (3, kernel) if self.stem is None else (CHANNELS, (1, 1, 1))
        self.proj = nn.Conv3d(channels, options.embed_dim, kernel, stride=kernel)

    def forward(self, video: Tensor) -> Tensor:
        """Embed a video: (B, 3, T, H, W) -> (B, T / tubelet, patches, C), patches row by row."""
        if self.stem is not None:
            frames = video.transpose(1, 2).flatten(0, 1)
            maps: Tensor = self.stem(frames.contiguous(memory_format=torch.channels_last))
            video = maps.reshape(video.shape[0], video.shape[2], *maps.shape[1:]).transpose(1, 2)
        patches: Tensor = self.proj(video)
        return patches.flatten(3).permute(0, 2, 3, 1)


class Mixer(nn.Module):
    """The Mamba mixer of a block: projection, convolution, a scan in each direction, gate, projection."""

    conv1d: nn.Conv1d
    x_proj: nn.Linear
    dt_proj: nn.Linear
    D: nn.Parameter

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        inner, states, rank = options.d_inner, options.d_state, options.dt_rank
        self.in_proj = nn.Linear(options.embed_dim, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, options.embed_dim, bias=False)
        for suffix in ("", "_b") if options.directions == "separate" else ("",):
            self.add_module(f"conv1d{suffix}", nn.Conv1d(inner, inner, options.d_conv, groups=inner))
            self.add_module(f"x_proj{suffix}", nn.Linear(inner, rank + 2 * states, bias=False))
            self.add_module(f"dt_proj{suffix}", nn.Linear(rank, inner))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(inner)))
        # S4D-real initialisation, A_n = -n (Mamba, arXiv 2312.00752, section 3.6)
        rates = torch.arange(1, states + 1, dtype=torch.float32).log().repeat(inner, 1)
        self.A_log = nn.Parameter(rates)
        if options.directions != "forward":
            self.A_b_log = nn.Parameter(rates.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens: (B, L, C) -> (B, L, C)."""
        x, z = self.in_proj(x).chunk(2, dim=-1)
        if self.options.directions == "shared":
            y = self._scan_both(x, z)
        else:
            y = self._scan(x, z, "", reverse=False)
            if self.options.directions == "separate":
                y = y + self._scan(x, z, "_b", reverse=True)
        out: Tensor = self.out_proj(y)
        return out

    def _scan_both(self, x: Tensor, z: Tensor) -> Tensor:
        """Scan both directions with shared weights."""
        u, dt, B, C = self._scan_inputs(x, "", False)
        return ops.bi_selective_scan(
            u,
            dt,
            -torch.exp(self.A_log),
            -torch.exp(self.A_b_log),
            B,
            C,
            self.D,
            z,
            self.dt_proj.bias,
            initial_state=self.options.initial_state,
            mask_backward=self.options.mask_backward,
        )

    def _scan(self, x: Tensor, z: Tensor, suffix: str, reverse: bool) -> Tensor:
        """Scan one direction with the weights whose names end in `suffix`."""
        u, dt, B, C = self._scan_inputs(x, suffix, reverse)
        return ops.selective_scan(
            u,
            dt,
            -torch.exp(self.A_b_log if reverse else self.A_log),
            B,
            C,
            getattr(self, f"D{suffix}"),
            z,
            getattr(self, f"dt_proj{suffix}").bias,
            reverse=reverse,
            initial_state=self.options.initial_state,
            mask_diagonal=reverse and self.options.mask_backward,
        )

    def _scan_inputs(self, x: Tensor, suffix: str, reverse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute one direction's scan input and dt, both (B, L, D), and its B and C, both (B, L, N)."""
        conv = getattr(self, f"conv1d{suffix}")
        c = ops.causal_conv_silu(x, conv.weight.squeeze(1), conv.bias, reverse=reverse)
        rank, states = self.options.dt_rank, self.options.d_state
        dt, B, C = getattr(self, f"x_proj{suffix}")(c).split([rank, states, states], dim=-1)
        dt = F.linear(dt, getattr(self, f"dt_proj{suffix}").weight)
        return (c if self.options.scan_input == "conv" else x), dt, B, C


class Block(nn.Module):
    """A residual block, x + mixer(norm(x))."""

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(options.embed_dim, eps=NORM_EPS)
        self.mixer = Mixer(options)

    def forward(self, x: Tensor) -> Tensor:
        """Process tokens: (B, L, C) -> (B, L, C)."""
        out: Tensor = x + self.mixer(self.norm(x))
        return out


class VideoMamba(nn.Module):
    """The source model: VideoMamba or VideoMambaPro, by its options.

    Args:
        options: The architecture.

    Attributes:
        family: Which family its checkpoint was taken for, and why; None for a model that was made of its options.
    """

    family: Decision | None = None

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.options = options
        steps, side = options.grid
        width = options.embed_dim
        self.patch_embed = PatchEmbed(options)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, steps, width))
        self.layers = nn.ModuleList(Block(options) for _ in range(options.depth))
        self.norm_f = nn.RMSNorm(width, eps=NORM_EPS)
        head = nn.Linear(width, options.num_classes) if options.num_classes else nn.Identity()
        self.head = cast(nn.Linear, head)
        if options.projection:
            self.pool_norm = nn.LayerNorm(width)
            self.vision_proj = nn.Linear(width, options.projection)
        initialise(self)
        # When memory is freed, glibc gives back to the system what exceeds twice the largest block that was ever freed
        # (mallopt(3)). Freeing this untouched block raises that limit, so that the activations of each layer are not
        # faulted in anew, which would take some 3% of the time.
        torch.empty(24 << 20, dtype=torch.uint8)

    if TYPE_CHECKING:  # for PyTorch itself, calling a module gives anything

        def __call__(self, video: Tensor) -> Tensor:
            """Return what `forward` does."""

    def forward(self, video: Tensor) -> Tensor:
        """Compute the logits of a batch of clips.

        Args:
            video: (B, 3, T, H, W) float video, normalised.

        Returns:
            (B, classes), or the features (B, C) of a model without classes.

        Raises:
            ValueError: The video's shape does not fit the model.
        """
        logits: Tensor = self.head(self.forward_features(video))
        return logits

    def forward_features(self, video: Tensor) -> Tensor:
        """Return what the head reads, (B, C), of a video like that of `forward`: see `ModelOptions.readout`.

        With the readout ``pooled_frames`` it is the video's feature beside texts, (B, P).
        """
        tokens = self.forward_blocks(video)
        if self.options.readout == "pooled_frames":
            return torch.mean(self.frame_features(self.norm_f(tokens)), dim=1)
        if self.options.readout == "mean":
            return torch.mean(self.norm_f(tokens[:, 1:]), dim=1)
        features: Tensor = self.norm_f(tokens[:, 0])
        return features

    def frame_features(self, tokens: Tensor) -> Tensor:
        """Return the unit vectors of a video-text model, one of each tubelet (B, T / tubelet, P), of `forward_tokens`.

        Their mean is the video's feature. It is not scaled to unit length again, so that its product with a text's
        unit vector is the mean of the cosines.
        """
        steps, _ = self.options.grid
        patches = tokens[:, 1:].reshape(len(tokens), steps, -1, tokens.shape[2])
        pooled = tokens[:, :1] + patches.mean(2)
        return F.normalize(self.vision_proj(self.pool_norm(pooled)), dim=-1)

    def forward_tokens(self, video: Tensor) -> Tensor:
        """Return all tokens after the final norm, (B, L, C): the class token first, then frame by frame."""
        normed: Tensor = self.norm_f(self.forward_blocks(video))
        return normed

    def forward_blocks(self, video: Tensor) -> Tensor:
        """Return all tokens before the final norm, (B, L, C), in the order of `forward_tokens`."""
        tokens = self.embed(video)
        steps, side = self.options.grid
        for index, layer in enumerate(self.layers):
            if scans_time_first(self.options, index):
                tokens = swap_order(layer(swap_order(tokens, steps)), side * side)
            else:
                tokens = layer(tokens)
        return tokens

    def blocks(self) -> list[Block]:
        """Return the blocks in order, with their type, which `nn.ModuleList` does not know."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def embed(self, video: Tensor) -> Tensor:
        """Return the tokens before the first block, (B, L, C)."""
        expected = (3, self.options.num_frames, self.options.image_size, self.options.image_size)
        if video.ndim != 5 or tuple(video.shape[1:]) != expected:
            raise ValueError(f"video is {tuple(video.shape)}; this model takes (B, {', '.join(map(str, expected))})")
        patches = self.patch_embed(video) + self.pos_embed[:, None, 1:] + self.temporal_pos_embedding[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(video.shape[0], -1, -1)
        return torch.cat([first, patches.flatten(1, 2)], dim=1)


def scans_time_first(options: ModelOptions, layer: int) -> bool:
    """Return whether a layer scans place by place instead of frame by frame."""
    return options.scan_order == "temporal_first" or (options.scan_order == "spatiotemporal" and layer % 2 == 1)


def swap_order(tokens: Tensor, rows: int) -> Tensor:
    """Bring all tokens but the first from row-by-row into column-by-column order: (B, L, C) -> (B, L, C)."""
    batch, _, width = tokens.shape
    grid = tokens[:, 1:].reshape(batch, rows, -1, width).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], grid], dim=1)


def initialise(model: VideoMamba) -> None:
    """Draw weights as the published code does (VideoMamba, video_sm/models/videomamba.py; Mamba, mamba_simple.py)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.pos_embed, std=0.02)
    for name, module in model.named_modules():
        if name.endswith("out_proj") and isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            module.weight.data /= math.sqrt(model.options.depth)
        if ".dt_proj" in name and isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -(module.in_features**-0.5), module.in_features**-0.5)
            # softplus(bias) is spread log-uniformly over 0.001 .. 0.1
            dt = torch.exp(torch.empty(module.out_features).uniform_(math.log(1e-3), math.log(1e-1)))
            module.bias.data.copy_(dt + torch.log(-torch.expm1(-dt)))


def create(name: str, **overrides: Any) -> VideoMamba:
    """Create a freshly initialised model of a preset, in evaluation mode.

    Args:
        name: A preset, for example ``videomamba-tiny``.
        overrides: New values for fields of `ModelOptions`.

    Raises:
        UsageError: The name or an option is unknown, or a value is out of range.
    """
    return VideoMamba(preset(name, **overrides)).eval()
