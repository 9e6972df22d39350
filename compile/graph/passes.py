"""Rewrite an exported program for backends that lack an operation or a number format."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from vmp_edge.ops import chunked

# What `with_bounded_norms` adds to a scale: the epsilon over its square is still far below float16's largest number.
_LEAST_SCALE = 2**-10


def scans(program: Any) -> list[Any]:
    """Return the scans in a program, or in its module, that are single nodes, without scans of a single token."""
    own = torch.ops.vmp
    nodes = [
        *program.graph.find_nodes(op="call_function", target=own.selective_scan.default),
        *program.graph.find_nodes(op="call_function", target=own.bi_selective_scan.default),
        *program.graph.find_nodes(op="call_function", target=own.selective_scan_with_state.default),
        *program.graph.find_nodes(op="call_function", target=own.bi_selective_scan_with_state.default),
    ]
    return [node for node in nodes if node.args[0].meta["val"].shape[1] > 1]


def with_plain_operations(program: ExportedProgram, form: chunked.Form) -> ExportedProgram:
    """Return a program without operators of our own, for backends that have no kernels for them.

    Args:
        program: A program of `export`, quantised or not.
        form: The form in which the scans are written.

    Returns:
        The same program with each ``vmp::`` node replaced by its operations in `vmp_edge.ops.chunked`.
    """
    own = torch.ops.vmp
    plain: ExportedProgram = program.run_decompositions(
        {
            own.selective_scan.default: partial(chunked.selective_scan, form=form),
            own.bi_selective_scan.default: partial(chunked.bi_selective_scan, form=form),
            own.causal_conv_silu.default: chunked.causal_conv_silu,
            own.selective_scan_with_state.default: partial(chunked.selective_scan_with_state, form=form),
            own.bi_selective_scan_with_state.default: partial(chunked.bi_selective_scan_with_state, form=form),
            own.causal_conv_silu_with_state.default: chunked.causal_conv_silu_with_state,
        }
    )
    return plain


def with_bounded_norms(program: ExportedProgram) -> ExportedProgram:
    """Return a program whose norms square no number beyond 256, as the square would be infinite in float16.

    x over its root mean square equals y over the root mean square of y, for y = x / s and any s. Here s is the largest
    |x| of a token plus a little, so that it is never zero. The epsilon under the root becomes epsilon / s^2.

    Args:
        program: A program of `export`.

    Returns:
        A program that gives the same numbers apart from rounding.
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
    """Return a program whose patch embedding is a linear layer, for backends whose convolution takes only one picture.

    The frames are cut into patches by reshaping and swapping two axes, twice: so no tensor has more than four axes.

    Args:
        program: A program of `export`, not quantised.

    Returns:
        A program that gives the same numbers apart from the order of summing.
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
