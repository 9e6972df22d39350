"""Trace the inference form of a model with `torch.export`, and split off its patch embedding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from vmp_edge.models.videomamba import VideoMamba

from .inference import InferenceModel
from .stepping import StepModel, example_states


def export(model: VideoMamba, features: bool = False) -> ExportedProgram:
    """Trace the inference form of a model for one clip, or for one step of a causal model.

    Args:
        model: The source model.
        features: True to give the head's input after the logits, too.

    Returns:
        A program from frames (T / tubelet, tubelet * 3, H, W) to logits (1, classes), or with features
        (1, classes + C). That of a causal model is from the frames of one step (1, tubelet * 3, H, W) and the states
        before it to the same outputs and the states after it: see `StepModel`. Every scan and every convolution in it
        is one node.
    """
    options = model.options
    steps = 1 if options.causal else options.grid[0]
    frames = torch.zeros(steps, options.tubelet_size * 3, options.image_size, options.image_size)
    with torch.no_grad():
        if options.causal:
            example = (frames, *example_states(model))
            return torch.export.export(StepModel(model, features), example, strict=False)
        return torch.export.export(InferenceModel(model, features), (frames,), strict=False)


def split(program: ExportedProgram, tubelet: int) -> tuple[ExportedProgram, ExportedProgram]:
    """Cut a program behind its patch embedding, so that a frame of a stream is embedded once and not in every window.

    A tubelet's tokens are linear in its frames: they are the sum of each frame's share, which depends on the frame's
    place in the tubelet. A frame's place changes from window to window, so it is embedded for all places.

    Args:
        program: A program of `export`. It may be quantised only if tubelets are single frames, as the sum of rounded
            numbers is not the rounded sum.
        tubelet: The number of frames of a tubelet.

    Returns:
        Two programs. The first is from a frame (1, 3, H, W) to its shares (1, h * w, tubelet * C) of the tokens for
        each place, before positions are added; the first share has the bias. The second is from the tokens of a window
        (T / tubelet, h * w, C) to logits (1, classes). One after the other they give the program's numbers apart from
        the order of summing.
    """
    frames = program.example_inputs[0][0]
    embedding, rest = (program.module(check_guards=False) for _ in range(2))
    conv, tokens = _patch_embedding(embedding)
    if tubelet > 1:
        _embed_for_each_place(embedding, conv, tubelet)
    embedding.graph.output_node().args = ((tokens,),)
    _, tokens = _patch_embedding(rest)
    (placeholder,) = rest.graph.find_nodes(op="placeholder")
    tokens.replace_all_uses_with(placeholder)
    return _trace_again(embedding, frames[:1, :3]), _trace_again(rest, torch.zeros(tokens.meta["val"].shape))


def _patch_embedding(module: Any) -> tuple[Node, Node]:
    """Return the last convolution that is PyTorch's own, and the transpose behind it, which gives all tokens."""
    *_, conv = module.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    node = conv
    while node.target is not torch.ops.aten.transpose.int:
        (node,) = node.users
    return conv, node


def _embed_for_each_place(module: Any, conv: Node, tubelet: int) -> None:
    """Let the convolution take one frame instead of a tubelet, with an output for each place in the tubelet."""
    weight, bias = (module.get_parameter(str(node.target)) for node in conv.args[1:3])  # type: ignore[union-attr]
    places = weight.detach().unflatten(1, (tubelet, 3)).transpose(0, 1).flatten(0, 1).contiguous()
    padded = F.pad(bias.detach(), (0, (tubelet - 1) * len(bias)))
    for node, value in zip(conv.args[1:3], (places, padded), strict=True):
        path, _, name = str(node.target).rpartition(".")  # type: ignore[union-attr]
        setattr(module.get_submodule(path), name, nn.Parameter(value, requires_grad=False))


def _trace_again(module: Any, example: Tensor) -> ExportedProgram:
    """Trace a cut graph again, without the parameters that it does not use any more and the check of its old input."""
    module.graph.eliminate_dead_code()
    with torch.no_grad():
        return torch.export.export(GraphModule(module, module.graph), (example,), strict=False)
