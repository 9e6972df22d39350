"""How a causal model goes through a video: step after step with a state, or through all steps of a clip at once.

A step is one tubelet of frames: P patch tokens and, with the readout ``class_token``, the class token after them. Each
block mixes the tokens of a step by two scans:

* The forward direction, convolution and scan, runs on across steps. In layers that scan place by place it runs over
  time at each place, with a state for each place, the class token's among them. In all others it runs over the tokens,
  frame by frame.
* The backward direction runs inside the step, from its last token to its first, in layers of either order. With shared
  directions its inputs are those of the forward direction.

So a step sees its own frames whole and all earlier ones through the state, and no later one. There are positions in
space, and none in time.

With the elemental residual (``initial_state: first_input``), the scan of the forward direction starts at its first
input only in the first step of a stream: at the stream's first token, or, over time, at the first token of each place.
From the second step on it starts at the carried state. The state records which of these holds (`stream_state`). The
backward direction starts at its first input, the last token of the step, in every step.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .. import ops
from ..ops.reference import wide_dtype
from .blocks import Block, Mixer, PatchEmbed
from .options import ModelOptions
from .stream_state import Layout, Part, layout


class Model(Protocol):
    """The parts of `VideoMamba` that are used here."""

    options: ModelOptions
    training: bool
    patch_embed: PatchEmbed
    pos_embed: nn.Parameter
    cls_token: nn.Parameter
    norm_f: nn.RMSNorm

    def blocks(self) -> list[Block]:
        """Return the blocks in order."""
        ...


class Carried(NamedTuple):
    """What a layer carries into a step, or out of it.

    Attributes:
        inputs: The last inputs of the convolution, (R, K - 1, D), for R = B, or R = B P over time at each place.
        h: The state of the scan, (R, D, N).
        started: (B,) truths, which streams have started; None for all of them.
    """

    inputs: Tensor
    h: Tensor
    started: Tensor | None


def initial_state(model: Model, batch: int) -> Tensor:
    """Return the state of streams that have not started, (batch, n) zeros."""
    weight = model.pos_embed
    return torch.zeros(batch, layout(model.options).size, dtype=wide_dtype(weight), device=weight.device)


def tokens_of(model: Model, video: Tensor, state: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
    """Go through a video.

    In evaluation mode each step is computed by itself, so that the numbers do not depend on how many there are. In
    training mode all are computed at once.

    Args:
        model: A causal model.
        video: (B, 3, F, H, W), any number of steps.
        state: (B, n) state before the first step, or None for streams that start.

    Returns:
        The tokens after the final norm, (B, T, P, C), of one step each, or of all of them; and the state after the last
        step, (B, n). The state is None in training mode if there was none before.

    Raises:
        ValueError: A shape does not fit the model.
    """
    _require_steps(model, video)
    size = layout(model.options).size
    if state is not None and state.shape != (len(video), size):
        raise ValueError(f"state is {tuple(state.shape)}; for this video and model it is ({len(video)}, {size})")
    if model.training:
        tokens, state = walk(model, video, state)
        return [tokens], state
    outputs = []
    state = initial_state(model, len(video)) if state is None else state
    for frames in torch.split(video, model.options.tubelet_size, dim=2):
        tokens, state = walk(model, frames, state)
        outputs.append(tokens)
    return outputs, state


def features_of(model: Model, video: Tensor, state: Tensor | None = None) -> tuple[list[Tensor], Tensor | None]:
    """Return what the head reads, (B, T, C), in the parts of `tokens_of`, and the state after the last step."""
    tokens, state = tokens_of(model, video, state)
    return [read(model, part) for part in tokens], state


def walk(model: Model, video: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Go through the steps of a video, all at once.

    Args:
        model: A causal model.
        video: (B, 3, F, H, W), any number of steps.
        state: (B, n) state before the first step, or None for streams that start and whose state nobody needs.

    Returns:
        All tokens after the final norm, (B, T, P, C), and the state, (B, n), or None if there was none.
    """
    options = model.options
    where = layout(options)
    tokens = embed(model, video)
    started = None if state is None else _started(state, where)
    after: list[Tensor] = []
    for index, block in enumerate(model.blocks()):
        start = None if state is None else _carried(state, started, where, index)
        mixed, carried = mix(block.mixer, block.norm(tokens), start, options.scans_time_first(index))
        tokens = tokens + mixed
        if carried is not None:
            after += [carried.inputs.reshape(len(tokens), -1), carried.h.reshape(len(tokens), -1)]
    normed: Tensor = model.norm_f(tokens)
    if state is None:
        return normed, None
    return normed, torch.cat([*after, torch.ones_like(state[:, :1])], dim=1)


def embed(model: Model, video: Tensor) -> Tensor:
    """Return the tokens before the first block, (B, T, P, C)."""
    tokens: Tensor = model.patch_embed(video.contiguous()) + model.pos_embed[:, None, 1:]
    if model.options.readout == "class_token":
        last = (model.cls_token + model.pos_embed[:, :1])[:, None]
        tokens = torch.cat([tokens, last.expand(*tokens.shape[:2], -1, -1)], dim=2)
    return tokens


def read(model: Model, tokens: Tensor) -> Tensor:
    """Return what the head reads of the tokens of steps after the final norm: (..., P, C) -> (..., C)."""
    return tokens[..., -1, :] if model.options.readout == "class_token" else tokens.mean(-2)


def mix(mixer: Mixer, tokens: Tensor, start: Carried | None, over_time: bool) -> tuple[Tensor, Carried | None]:
    """Mix the tokens of steps: (B, T, P, C) -> (B, T, P, C).

    Args:
        mixer: The mixer of a block.
        tokens: The tokens.
        start: What the layer carries into the first step, or None for streams that start.
        over_time: The forward direction runs over time at each place, instead of over the tokens frame by frame.

    Returns:
        The mixed tokens, and what the layer carries out of the last step; None if `start` is.
    """
    x, z = mixer.in_proj(tokens).chunk(2, dim=-1)
    line = _Line(tokens.shape[:3], over_time)
    c, inputs = _convolve(mixer, line.unroll(x), start)
    scanned = mixer.project(line.unroll(x), c, "")
    h = None if start is None else _start_of_scan(mixer, line, start, scanned[0])
    keep = start is not None
    if mixer.options.directions == "shared" and tokens.shape[1] == 1 and not over_time:  # both, over the same tokens
        y, last = mixer.scan_both(*scanned, line.unroll(z), h, keep)
        y = line.roll(y)
    else:
        y, last = mixer.scan_one(*scanned, line.unroll(z), "", False, h, keep)
        y = line.roll(y)
        if mixer.options.directions != "forward":
            y = y + _backward(mixer, line, x, z, scanned)
    mixed: Tensor = mixer.out_proj(y)
    if inputs is None or last is None or start is None:
        return mixed, None
    return mixed, Carried(inputs, last, start.started)


def _start_of_scan(mixer: Mixer, line: _Line, start: Carried, u: Tensor) -> Tensor:
    """Return the state before the forward scan's first token, (R, D, N), of its inputs u (R, L, D)."""
    if mixer.options.initial_state == "zero" or start.started is None:
        return start.h
    return torch.where(line.of_each(start.started)[:, None, None], start.h, u[:, 0, :, None].to(start.h.dtype))


def _backward(mixer: Mixer, line: _Line, x: Tensor, z: Tensor, scanned: tuple[Tensor, ...]) -> Tensor:
    """Return the share of the backward direction, which runs inside each step, (B, T, P, D).

    Args:
        mixer: The mixer of a block.
        line: The lines of the forward direction.
        x: (B, T, P, D) inputs of the convolution.
        z: (B, T, P, D) gate.
        scanned: The inputs of the forward direction's scan, in lines.
    """
    inside = z.flatten(0, 1)
    if mixer.options.directions == "shared":
        u, dt, B, C = (line.roll(part).flatten(0, 1) for part in scanned)
        y, _ = mixer.scan_one(u, dt, B, C, inside, "", True)
    else:
        x = x.flatten(0, 1)
        c = mixer.convolve(x, "_b", reverse=True)
        y, _ = mixer.scan_one(*mixer.project(x, c, "_b"), inside, "_b", True)
    return y.reshape(z.shape)


def _convolve(mixer: Mixer, x: Tensor, start: Carried | None) -> tuple[Tensor, Tensor | None]:
    """Convolve forwards, from the carried inputs on, and return the last inputs, too, if any were carried."""
    if start is None:
        return mixer.convolve(x, "", reverse=False), None
    weight, bias = mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias
    return ops.causal_conv_silu(x, weight, bias, state=start.inputs, return_state=True)


class _Line(NamedTuple):
    """The order in which the forward direction goes through the tokens of steps.

    Attributes:
        grid: Sizes of batch, steps and tokens of a step: B, T, P.
        over_time: Over time at each place, lines (B P, T), instead of frame by frame, lines (B, T P).
    """

    grid: tuple[int, ...]
    over_time: bool

    def unroll(self, x: Tensor) -> Tensor:
        """Lay tokens (B, T, P, .) out in lines, (R, L, .)."""
        return x.transpose(1, 2).flatten(0, 1) if self.over_time else x.flatten(1, 2)

    def roll(self, x: Tensor) -> Tensor:
        """Lay lines (R, L, .) out as tokens of steps, (B, T, P, .)."""
        batch, count, places = self.grid
        if self.over_time:
            return x.reshape(batch, places, count, -1).transpose(1, 2)
        return x.reshape(batch, count, places, -1)

    def of_each(self, stream: Tensor) -> Tensor:
        """Repeat what there is of each stream, (B,), for each of its lines, (R,)."""
        return stream[:, None].expand(-1, self.grid[2]).reshape(-1) if self.over_time else stream


def _started(state: Tensor, where: Layout) -> Tensor | None:
    """Return which streams have started, (B,), or None for all of them, which saves much reading in layers over time.

    Only on a CPU it costs nothing to look at the numbers, and a program must not depend on them.
    """
    started = state[:, where.started] > 0
    looks = state.device.type == "cpu" and not torch.compiler.is_compiling()
    return None if looks and bool(started.all()) else started


def _carried(state: Tensor, started: Tensor | None, where: Layout, layer: int) -> Carried:
    """Return a layer's part of the state."""

    def view(part: Part) -> Tensor:
        lines = len(state) * math.prod(part.shape[:-2])  # not -1, as a convolution with one tap has no inputs to count
        return state[:, part.start : part.stop].reshape(lines, *part.shape[-2:])

    return Carried(view(where.inputs[layer]), view(where.states[layer]), started)


def _require_steps(model: Model, video: Tensor) -> None:
    frames, size = model.options.tubelet_size, model.options.image_size
    fits = video.ndim == 5 and video.shape[1] == 3 and tuple(video.shape[3:]) == (size, size)
    if not fits or video.shape[2] == 0 or video.shape[2] % frames:
        number = "T" if frames == 1 else f"a multiple of {frames}"
        raise ValueError(f"video is {tuple(video.shape)}; this model takes (B, 3, {number}, {size}, {size})")
