"""The graph that every engine is lowered from: the source model rewritten for inference, and its `torch.export`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from vmp_edge import ops
from vmp_edge.models.options import ModelOptions
from vmp_edge.models.videomamba import NORM_EPS, Block, Mixer, VideoMamba, scans_time_first, swap_order
from vmp_edge.ops import chunked

# Which argument's type an operation computes in, see `in_float16`.
_DECIDES = {
    torch.ops.aten.linear.default: 1,
    torch.ops.aten.conv2d.default: 1,
    torch.ops.vmp.causal_conv_silu.default: 1,
    torch.ops.vmp.selective_scan.default: 2,
    torch.ops.vmp.bi_selective_scan.default: 2,
}
_LEAST_SCALE = 2**-10  # of `with_bounded_norms`: the epsilon over its square is still far below float16's largest


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


def export(model: VideoMamba, features: bool = False) -> ExportedProgram:
    """Trace the inference form of a model for one clip.

    Args:
        model: the source model.
        features: give what the head takes, too.

    Returns:
        A program from frames (T / tubelet, tubelet * 3, H, W) to logits (1, classes), with features (1, classes + C),
        in which every scan and convolution is one node.
    """
    options = model.options
    example = torch.zeros(
        options.grid[0], options.tubelet_size * 3, options.image_size, options.image_size, dtype=torch.float32
    )
    with torch.no_grad():
        return torch.export.export(InferenceModel(model, features), (example,), strict=False)


def split(program: ExportedProgram, tubelet: int) -> tuple[ExportedProgram, ExportedProgram]:
    """A program cut behind its patch embedding, so that a frame of a stream is embedded once, not once a window.

    A tubelet's tokens are linear in its frames: sums of what each of them gives at its place in the tubelet. A frame's
    place changes from window to window, so it is embedded for all of them.

    Args:
        program: of `export`; quantised only if tubelets are single frames, as sums of rounded numbers are others.
        tubelet: frames of a token.

    Returns:
        From a frame (1, 3, H, W) to its shares (1, h * w, tubelet * C) of the tokens at each of its places, before
        positions are added, the bias in the first; and from the tokens of a window (T / tubelet, h * w, C) to logits
        (1, classes). One after the other they give the program's numbers but for the order of summing.
    """
    frames = program.example_inputs[0][0]
    embedding, rest = (program.module(check_guards=False) for _ in range(2))
    conv, tokens = _patch_embedding(embedding)
    if tubelet > 1:
        _embed_for_each_place(embedding, conv, tubelet)
    embedding.graph.output_node().args = ((tokens,),)
    _, tokens = _patch_embedding(rest)
    (given,) = rest.graph.find_nodes(op="placeholder")
    tokens.replace_all_uses_with(given)
    return _traced_again(embedding, frames[:1, :3]), _traced_again(rest, torch.zeros(tokens.meta["val"].shape))


def _patch_embedding(module: Any) -> tuple[Node, Node]:
    """The only convolution that PyTorch knows, and the transpose behind it, which has all frames' tokens."""
    (conv,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    node = conv
    while node.target is not torch.ops.aten.transpose.int:
        (node,) = node.users
    return conv, node


def _embed_for_each_place(module: Any, conv: Node, tubelet: int) -> None:
    """Give a convolution the weights of each of a tubelet's frames in place of those of all."""
    weight, bias = (module.get_parameter(str(node.target)) for node in conv.args[1:3])  # type: ignore[union-attr]
    places = weight.detach().unflatten(1, (tubelet, 3)).transpose(0, 1).flatten(0, 1).contiguous()
    padded = F.pad(bias.detach(), (0, (tubelet - 1) * len(bias)))
    for node, value in zip(conv.args[1:3], (places, padded), strict=True):
        path, _, name = str(node.target).rpartition(".")  # type: ignore[union-attr]
        setattr(module.get_submodule(path), name, nn.Parameter(value, requires_grad=False))


def _traced_again(module: Any, example: Tensor) -> ExportedProgram:
    """A graph that was cut, without the parameters that it does not use any more and the check of its old input."""
    module.graph.eliminate_dead_code()
    with torch.no_grad():
        return torch.export.export(GraphModule(module, module.graph), (example,), strict=False)


def scans(program: Any) -> list[Any]:
    """The scans in a program, or its module, that are single nodes; not those of a single token."""
    own = torch.ops.vmp
    found = [
        *program.graph.find_nodes(op="call_function", target=own.selective_scan.default),
        *program.graph.find_nodes(op="call_function", target=own.bi_selective_scan.default),
    ]
    return [node for node in found if node.args[0].meta["val"].shape[1] > 1]


def with_plain_operations(program: ExportedProgram, form: chunked.Form) -> ExportedProgram:
    """A program in which no operator of ours is left, for backends that have no kernel for it.

    Args:
        program: of `export`, quantised or not.
        form: how the scans are written.

    Returns:
        The same program with each ``vmp::`` node replaced by what `vmp_edge.ops.chunked` makes of it.
    """
    own = torch.ops.vmp
    plain: ExportedProgram = program.run_decompositions(
        {
            own.selective_scan.default: partial(chunked.selective_scan, form=form),
            own.bi_selective_scan.default: partial(chunked.bi_selective_scan, form=form),
            own.causal_conv_silu.default: chunked.causal_conv_silu,
        }
    )
    return plain


def with_bounded_norms(program: ExportedProgram) -> ExportedProgram:
    """A program whose norms do not square what float16 cannot: beyond 256 it would be infinite, and the norm zero.

    x over its root mean square is y over that of y, for y = x / s and any s; here s is the largest |x| of a token, plus
    a little so that it is never zero. The epsilon under the root becomes epsilon / s^2.

    Args:
        program: of `export`.

    Returns:
        The same numbers but for rounding.
    """
    aten = torch.ops.aten
    module = program.module(check_guards=False)
    for root in list(module.graph.find_nodes(op="call_function", target=aten.rsqrt.default)):
        added: Any = root.args[0]
        mean, eps = added.args
        square = mean.args[0]
        x = square.args[0]
        call = module.graph.call_function
        with module.graph.inserting_before(square):
            largest = call(aten.amax.default, (call(aten.abs.default, (x,)), [-1], True))
            scale = call(aten.add.Tensor, (largest, _LEAST_SCALE))
            y = call(aten.div.Tensor, (x, scale))
            share = call(aten.mul.Tensor, (call(aten.reciprocal.default, (scale,)), math.sqrt(eps)))
        square.args = (y, y)
        added.args = (mean, call(aten.mul.Tensor, (share, share)))
        added.prepend(added.args[1])
        for user in list(root.users):
            user.replace_input_with(x, y)
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, program.example_inputs[0], strict=False)


def with_linear_patches(program: ExportedProgram) -> ExportedProgram:
    """A program whose patch embedding is a linear layer, for backends whose convolution takes one picture at a time.

    Cut into patches by reshaping and swapping two axes, twice: nothing has more than four.

    Args:
        program: of `export`, not quantised.

    Returns:
        The same numbers but for the order of summing.
    """
    aten = torch.ops.aten
    module: Any = program.module(check_guards=False)
    (conv,) = module.graph.find_nodes(op="call_function", target=aten.conv2d.default)
    frames, weight, bias = conv.args[:3]
    steps, channels, height, width = frames.meta["val"].shape
    side = module.get_parameter(weight.target).shape[-1]
    rows, columns = height // side, width // side
    (flat,) = conv.users
    (patches,) = flat.users  # (steps, rows * columns, features), after a transpose
    module.patch_rows = nn.Parameter(module.get_parameter(weight.target).detach().flatten(1), requires_grad=False)
    call = module.graph.call_function
    with module.graph.inserting_before(conv):
        x = call(aten.reshape.default, (frames, [steps * channels * rows, side, columns, side]))
        x = call(aten.permute.default, (x, [0, 2, 1, 3]))
        x = call(aten.reshape.default, (x, [steps, channels, rows * columns, side * side]))
        x = call(aten.permute.default, (x, [0, 2, 1, 3]))
        x = call(aten.reshape.default, (x, [steps, rows * columns, channels * side * side]))
        x = call(aten.linear.default, (x, module.graph.get_attr("patch_rows"), bias))
    patches.replace_all_uses_with(x)
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, program.example_inputs[0], strict=False)


def in_float16(program: ExportedProgram, stays: Callable[[str], bool]) -> ExportedProgram:
    """A program whose parameters are float16, but for some; its input and output stay float32.

    Layers, convolutions and scans compute in the type of their weight, or of their A, and what they take is cast to it;
    everything between them in the wider type of what it takes.

    Args:
        program: of `export`.
        stays: whether a parameter stays float32, by its name.
    """
    example = program.example_inputs[0]
    with torch.no_grad():
        halved = _Halved(program.module(check_guards=False), stays)
        return torch.export.export(halved, example, strict=False)


class _Halved(nn.Module):
    def __init__(self, module: Any, stays: Callable[[str], bool]) -> None:
        super().__init__()
        self.module = module
        tensors = {name: tensor if stays(name) else tensor.half() for name, tensor in module.state_dict().items()}
        module.load_state_dict(tensors, assign=True)  # the program keeps its own weights

    def forward(self, frames: Tensor) -> Tensor:
        result: Tensor = _InTypesOfParameters(self.module).run(frames)
        return result.float()


class _InTypesOfParameters(Interpreter):
    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _DECIDES:
            dtype = args[_DECIDES[target]].dtype
            args = tuple(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args)
        return super().call_function(target, args, kwargs)
