"""The form of a causal model for inference: one step, with the states as tensors that come in and go out.

It computes what `vmp_edge.models.steps` does for one step of one stream, from the weights of `inference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vmp_edge import ops
from vmp_edge.models.blocks import Block
from vmp_edge.models.stream_state import program_states
from vmp_edge.models.videomamba import VideoMamba

from .inference import Direction, FoldedBlock, Normalise, folded_head, mean_over, patch_embedding, stem_of


class States(NamedTuple):
    """The states of a layer, with R lines: 1, or P in layers over time.

    Attributes:
        inputs: The last inputs of the convolution, (R, K - 1, D); None if it has one tap.
        h: The state of the scan, (R, D, N).
    """

    inputs: Tensor | None
    h: Tensor


class StepBlock(FoldedBlock):
    """A block of a causal model, for one step.

    Args:
        block: The block of the source model.
        over_time: The forward direction runs over time at each place, instead of over the tokens of the step.
    """

    def __init__(self, block: Block, over_time: bool) -> None:
        super().__init__(block)
        self.over_time = over_time

    def forward(self, tokens: Tensor, states: States, fresh: Tensor) -> tuple[Tensor, States]:
        """Process the tokens of a step.

        Args:
            tokens: (1, P, C).
            states: The layer's states before the step.
            fresh: (1, 1, 1), 1 in the first step of a stream and 0 in all others.

        Returns:
            The tokens (1, P, C), and the layer's states after the step.
        """
        normed = self.normalise(tokens)
        x, z = self.in_x(normed), self.in_z(normed)
        c, inputs = self._convolve(x, states.inputs)
        scanned = self.forwards.project(x, c)
        h = states.h
        if self.options.initial_state == "first_input":  # h is zero in a first step
            h = h + fresh * self._line(scanned[0])[:, 0].unsqueeze(2)
        y, h = self._scan(x, z, scanned, h)
        out: Tensor = tokens + self.out(y)
        return out, States(inputs, h)

    def _convolve(self, x: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Convolve x (1, P, D) forwards, and return the last inputs, too."""
        forward = self.forwards
        if inputs is None:
            return ops.causal_conv_silu(x, forward.conv_weight, forward.conv_bias), None
        c, inputs = ops.causal_conv_silu(
            self._line(x), forward.conv_weight, forward.conv_bias, state=inputs, return_state=True
        )
        return c.reshape(x.shape), inputs

    def _scan(self, x: Tensor, z: Tensor, scanned: tuple[Tensor, ...], h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the directions, gated, (1, P, D), and the state of the forward one, (R, D, N).

        Args:
            x, z: (1, P, D).
            scanned: The forward direction's inputs of the scan, (1, P, .) each.
            h: (R, D, N) state before the step.
        """
        forward, options = self.forwards, self.options
        if options.directions == "shared" and not self.over_time:
            u, dt, B, C = scanned
            return ops.bi_selective_scan(
                u, dt, self.A, self.A_b, B, C, forward.D, z, forward.dt_bias,
                initial_state=options.initial_state, mask_backward=options.mask_backward, state=h, return_state=True,
            )  # fmt: skip
        u, dt, B, C = map(self._line, scanned)
        y, h = ops.selective_scan(
            u, dt, self.A, B, C, forward.D, self._line(z), forward.dt_bias,
            initial_state=options.initial_state, state=h, return_state=True,
        )  # fmt: skip
        y = y.reshape(z.shape)
        if options.directions == "shared":
            y = y + self._scan_backwards(forward, scanned, z)
        elif self.backwards is not None:
            y = y + self._scan_backwards(self.backwards, self.backwards(x), z)
        return y, h

    def _scan_backwards(self, weights: Direction, scanned: tuple[Tensor, ...], z: Tensor) -> Tensor:
        """Return the backward direction, which runs inside the step and starts afresh, (1, P, D)."""
        u, dt, B, C = scanned
        return ops.selective_scan(
            u, dt, self.A_b, B, C, weights.D, z, weights.dt_bias,
            reverse=True, initial_state=self.options.initial_state, mask_diagonal=self.options.mask_backward,
        )  # fmt: skip

    def _line(self, x: Tensor) -> Tensor:
        """Lay tokens (1, P, .) out in the lines of the forward direction: over time (P, 1, .), else as they are."""
        return x.reshape(x.shape[1], 1, x.shape[2]) if self.over_time else x


class StepModel(nn.Module):
    """A causal source model for inference, one step of one stream at a time.

    Args:
        model: The causal source model; its weights are copied.
        features: True to give the head's input after the logits, too, as `InferenceModel` does.
    """

    def __init__(self, model: VideoMamba, features: bool = False) -> None:
        super().__init__()
        options = model.options
        self.options = options
        self.names = tuple(program_states(options))
        self.stem = stem_of(model)
        self.patch = patch_embedding(model)
        self.spatial = nn.Parameter(model.pos_embed[:, 1:].detach().clone())
        if options.readout == "class_token":
            self.last = nn.Parameter((model.cls_token + model.pos_embed[:, :1]).detach().clone())
        self.blocks = nn.ModuleList(
            StepBlock(block, options.scans_time_first(index)) for index, block in enumerate(model.blocks())
        )
        self.normalise = Normalise(options.embed_dim)
        self.head = folded_head(model, features)
        self.eval().requires_grad_(False)

    def forward(self, frames: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Recognise one step.

        Args:
            frames: (1, tubelet * 3, H, W).
            states: The states before the step, which `program_states` names and orders.

        Returns:
            The logits (1, classes), or with features (1, classes + C), and the states after the step.
        """
        before = dict(zip(self.names, states, strict=True))
        started = before["started"]
        fresh = 1.0 - started
        tokens = self.embed(frames)
        after: dict[str, Tensor] = {}
        for index, block in enumerate(self.blocks):
            layer = States(before.get(f"inputs-{index}"), before[f"h-{index}"])
            tokens, layer = block(tokens, layer, fresh)
            after |= {f"inputs-{index}": layer.inputs, f"h-{index}": layer.h}
        after["started"] = started + fresh  # 1, and a number that depends on an input, as engines take no constants
        return self.read(tokens), *(after[name] for name in self.names)

    def embed(self, frames: Tensor) -> Tensor:
        """Return the tokens before the first block, (1, P, C)."""
        maps = frames if self.stem is None else self.stem(frames)
        tokens = self.patch(maps).flatten(2).transpose(1, 2) + self.spatial
        return torch.cat([tokens, self.last], dim=1) if self.options.readout == "class_token" else tokens

    def read(self, tokens: Tensor) -> Tensor:
        """Return the logits, and the features if they were asked for, of the tokens of the last block (1, P, C)."""
        if self.options.readout == "class_token":
            features = self.normalise(tokens[:, -1])
        else:
            features = mean_over(self.normalise(tokens), 1)
        return F.linear(features, self.head.weight, self.head.bias)


def example_states(model: VideoMamba) -> Iterator[Tensor]:
    """Return states of a stream that has not started, in the shapes of `program_states`."""
    return (torch.zeros(shape) for shape in program_states(model.options).values())
