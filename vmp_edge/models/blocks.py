"""The blocks of the source model: embedding of patches, mixer and residual block.

The parameters have the names of the published checkpoints. Tokens stay in the layout (B, L, C); nothing is flipped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from .efficientnet import CHANNELS, EfficientNetLite0
from .options import ModelOptions

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
        inputs = self.project(x, self.convolve(x, "", reverse=False), "")
        if self.options.directions == "shared":
            y, _ = self.scan_both(*inputs, z)
        else:
            y, _ = self.scan_one(*inputs, z, "", reverse=False)
            if self.options.directions == "separate":
                inputs = self.project(x, self.convolve(x, "_b", reverse=True), "_b")
                y = y + self.scan_one(*inputs, z, "_b", reverse=True)[0]
        out: Tensor = self.out_proj(y)
        return out

    def convolve(self, x: Tensor, suffix: str, reverse: bool) -> Tensor:
        """Convolve x (B, L, D) with the weights whose names end in `suffix`: (B, L, D)."""
        conv = getattr(self, f"conv1d{suffix}")
        return ops.causal_conv_silu(x, conv.weight.squeeze(1), conv.bias, reverse=reverse)

    def project(self, x: Tensor, c: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute a direction's inputs of the scan.

        Args:
            x: (B, L, D) inputs of the convolution.
            c: (B, L, D) results of the convolution.
            suffix: The end of the names of the direction's weights.

        Returns:
            The scan's input and dt, both (B, L, D), and its B and C, both (B, L, N).
        """
        rank, states = self.options.dt_rank, self.options.d_state
        dt, B, C = getattr(self, f"x_proj{suffix}")(c).split([rank, states, states], dim=-1)
        dt = F.linear(dt, getattr(self, f"dt_proj{suffix}").weight)
        return (c if self.options.scan_input == "conv" else x), dt, B, C

    def scan_both(
        self, u: Tensor, dt: Tensor, B: Tensor, C: Tensor, z: Tensor, state: Tensor | None = None, keep: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Scan both directions with shared weights.

        Args:
            u, dt, B, C: What `project` returns.
            z: (B, L, D) gate.
            state: (B, D, N) state of the forward direction before the first token, or None.
            keep: Return the last state.

        Returns:
            (B, L, D), and the last state of the forward direction, (B, D, N), or None.
        """
        tensors = (u, dt, -torch.exp(self.A_log), -torch.exp(self.A_b_log), B, C, self.D, z, self.dt_proj.bias)
        options = self.options
        start, mask = options.initial_state, options.mask_backward
        if keep:
            return ops.bi_selective_scan(
                *tensors, initial_state=start, mask_backward=mask, state=state, return_state=True
            )
        return ops.bi_selective_scan(*tensors, initial_state=start, mask_backward=mask, state=state), None

    def scan_one(
        self,
        u: Tensor,
        dt: Tensor,
        B: Tensor,
        C: Tensor,
        z: Tensor,
        suffix: str,
        reverse: bool,
        state: Tensor | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Scan one direction with the weights whose names end in `suffix`; the rest is as in `scan_both`."""
        rates, bias = -torch.exp(self.A_b_log if reverse else self.A_log), getattr(self, f"dt_proj{suffix}").bias
        tensors = (u, dt, rates, B, C, getattr(self, f"D{suffix}"), z, bias)
        start, mask = self.options.initial_state, reverse and self.options.mask_backward
        if keep:
            return ops.selective_scan(
                *tensors, reverse=reverse, initial_state=start, mask_diagonal=mask, state=state, return_state=True
            )
        y = ops.selective_scan(*tensors, reverse=reverse, initial_state=start, mask_diagonal=mask, state=state)
        return y, None


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
