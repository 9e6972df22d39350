"""The source model: VideoMamba (arXiv 2403.06977) and VideoMambaPro (arXiv 2406.19006) as one class.

The parameters have the names of the published checkpoints. Tokens stay in the layout (B, L, C); nothing is flipped.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import steps
from .blocks import NORM_EPS, Block, PatchEmbed
from .family import Decision
from .options import ModelOptions, preset

FASTER_OVER_TIME = 16.0


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
        count, side = options.grid
        width = options.embed_dim
        self.patch_embed = PatchEmbed(options)
        if not options.causal or options.readout == "class_token":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        if not options.causal:
            self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, count, width))
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

        A causal model takes any number of steps and gives the logits after the last one. In evaluation mode it goes
        step by step, and the result equals that of `step` bit for bit. In training mode it computes all steps at once.

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

        With the readout ``pooled_frames`` it is the video's feature beside texts, (B, P). Of a causal model it is what
        the head reads after the last step.
        """
        if self.options.causal:
            return steps.features_of(self, video)[0][-1][:, -1]
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
        patches = tokens[:, 1:].reshape(len(tokens), self.options.grid[0], -1, tokens.shape[2])
        pooled = tokens[:, :1] + patches.mean(2)
        return F.normalize(self.vision_proj(self.pool_norm(pooled)), dim=-1)

    def forward_tokens(self, video: Tensor) -> Tensor:
        """Return all tokens after the final norm, (B, L, C): the class token first, then frame by frame.

        Of a causal model, (B, T, P, C): those of each step, with its class token last if it has one.
        """
        if self.options.causal:
            return torch.cat(steps.tokens_of(self, video)[0], dim=1)
        normed: Tensor = self.norm_f(self.forward_blocks(video))
        return normed

    def forward_blocks(self, video: Tensor) -> Tensor:
        """Return all tokens before the final norm, (B, L, C), as `forward_tokens` has them; not of causal models."""
        tokens = self.embed(video)
        rows, side = self.options.grid
        for index, layer in enumerate(self.layers):
            if self.options.scans_time_first(index):
                tokens = swap_order(layer(swap_order(tokens, rows)), side * side)
            else:
                tokens = layer(tokens)
        return tokens

    def initial_state(self, batch: int = 1) -> Tensor:
        """Return the state of streams before their first step, for a causal model.

        Args:
            batch: The number of streams.

        Returns:
            (batch, n) float32, laid out as `vmp_edge.models.stream_state` says.
        """
        self._require_causal()
        return steps.initial_state(self, batch)

    def step(self, frames: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Recognise one step of each stream of a batch, for a causal model.

        Args:
            frames: (B, 3, tubelet, H, W) float frames, normalised.
            state: (B, n) states of the streams, of `initial_state` or of the step before. It is not changed.

        Returns:
            The logits (B, classes), the features (B, C) that the head reads, and the states after the step (B, n). A
            model without classes returns its features as logits.

        Raises:
            ValueError: A shape does not fit the model.
        """
        self._require_causal()
        if frames.ndim == 5 and frames.shape[2] != self.options.tubelet_size:
            raise ValueError(f"a step has {self.options.tubelet_size} frames, not {frames.shape[2]}")
        parts, after = steps.features_of(self, frames, state)
        assert after is not None  # as there was one before
        features = parts[0][:, 0]
        return self.head(features), features, after

    def forward_steps(self, video: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Recognise each step of videos, for a causal model: as `step` for one after the other, or all at once.

        In evaluation mode it goes step by step, in training mode it computes all steps at once, with gradients through
        all of them.

        Args:
            video: (B, 3, T, H, W) float video, normalised, with any number of steps.
            state: (B, n) states before the first step. None is `initial_state`.

        Returns:
            The logits (B, steps, classes), the features (B, steps, C), and the states after the last step (B, n).

        Raises:
            ValueError: A shape does not fit the model.
        """
        self._require_causal()
        state = self.initial_state(len(video)) if state is None else state
        parts, after = steps.features_of(self, video, state)
        assert after is not None
        if not self.training:  # the head, too, step by step
            logits = torch.stack([self.head(part[:, 0]) for part in parts], dim=1)
            return logits, torch.cat(parts, dim=1), after
        return self.head(parts[0]), parts[0], after

    def _require_causal(self) -> None:
        if not self.options.causal:
            raise ValueError("only causal models go step by step; this one takes whole clips")

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


def swap_order(tokens: Tensor, rows: int) -> Tensor:
    """Bring all tokens but the first from row-by-row into column-by-column order: (B, L, C) -> (B, L, C)."""
    batch, _, width = tokens.shape
    grid = tokens[:, 1:].reshape(batch, rows, -1, width).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], grid], dim=1)


def initialise(model: VideoMamba) -> None:
    """Draw weights as the published code does (VideoMamba, video_sm/models/videomamba.py; Mamba, mamba_simple.py).

    In a causal model a place has one token in a step, so that layers that scan over time start with longer step sizes.
    """
    options = model.options
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.pos_embed, std=0.02)
    for name, module in model.named_modules():
        if name.endswith("out_proj") and isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            module.weight.data /= math.sqrt(options.depth)
        if ".dt_proj" in name and isinstance(module, nn.Linear):
            nn.init.uniform_(module.weight, -(module.in_features**-0.5), module.in_features**-0.5)
            # softplus(bias) is spread log-uniformly over 0.001 .. 0.1
            dt = torch.exp(torch.empty(module.out_features).uniform_(math.log(1e-3), math.log(1e-1)))
            if options.causal and options.scans_time_first(int(name.split(".")[1])) and name.endswith("dt_proj"):
                dt *= FASTER_OVER_TIME
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


def make_causal(source: VideoMamba, **overrides: Any) -> VideoMamba:
    """Create a causal model that starts from the weights of a model that is not, in evaluation mode.

    It has all of the weights but the positions in time and, with the readout ``mean``, the class token. The others fit
    as they are, but the model has to be trained before it recognises anything well.

    Args:
        source: The model to start from.
        overrides: New values for fields of `ModelOptions` that change no weight's shape, such as ``scan_order``. The
            readout is ``mean`` unless they say otherwise.

    Raises:
        UsageError: An option is out of range.
    """
    changes = {"causal": True, "readout": "mean", "projection": 0, **overrides}
    model = VideoMamba(dataclasses.replace(source.options, **changes))
    wanted = model.state_dict()
    model.load_state_dict({name: value for name, value in source.state_dict().items() if name in wanted})
    return model.eval()
