"""Rewrite quantised programs in the form that ONNX's consumers know: products of DequantizeLinear with fixed ranges.

PT2E's programs (`vmp_edge.calibration.quantisation`) have three things that do not go well into ONNX:

* A range for each token. Here each token is divided by its largest absolute value, so that one fixed range fits all
  tokens, and the product is multiplied by that value again.
* Weights (N, K), which are transposed when they are used. Here they are stored as (K, N): consumers look for a product
  whose operands come out of DequantizeLinear, and ONNX Runtime 1.31 makes an invalid model if a transpose, or any other
  operation that only moves numbers, stands behind a DequantizeLinear.
* Quantised outputs, which are dequantised at once. They are left out: that is faster and saves one rounding error.
  Consumers then compute a convolution in float32 whatever its input is, so only the weight of a convolution is int8.

Activations are uint8, which x86 can multiply with int8; their numbers are those of int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from ...graph import pt2e
from ...graph.pt2e import Activations, Static

_PEAK = Static(1 / 127, 0)  # the range of tokens divided by their largest absolute value
_LEAST_PEAK = 2**-20  # so that a token of zeros stays a token of zeros
_UNSIGNED = 128  # what is added to int8 to make it uint8
_ATEN = torch.ops.aten
_QUANTISED = torch.ops.quantized_decomposed


def with_fixed_ranges(program: ExportedProgram) -> ExportedProgram:
    """Return a quantised program with fixed ranges, in which linear layers' weights are stored as they are multiplied.

    Args:
        program: A program of `quantisation.quantise`.

    Returns:
        A program that gives the same numbers apart from roundings: the ranges of tokens are symmetric, and the outputs
        of layers with static ranges are not rounded.
    """
    module = program.module(check_guards=False)
    for layer in list(module.graph.nodes):
        if any(pt2e.is_call(layer, name) for name in pt2e.LAYERS) and pt2e.is_call(layer.args[1], pt2e.WEIGHT):
            _keep_output_in_float(layer)
            source = pt2e.skip_quantising(layer.args[0])
            if pt2e.is_call(layer, "linear.default"):
                _replace(module, layer, source, pt2e.activations_of(layer.args[0]))
            else:
                layer.update_arg(0, source)
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, program.example_inputs[0], strict=False)


def _keep_output_in_float(layer: Node) -> None:
    """Let those that read the layer's dequantised output read the output itself."""
    for user in list(layer.users):
        if pt2e.is_call(user, "quantize_per_tensor.default"):
            for dequantised in list(user.users):
                dequantised.replace_all_uses_with(layer)


def _replace(module: GraphModule, layer: Node, x: Node, activations: Activations | None) -> None:
    """Replace a linear layer of ``x`` by a product with the transposed weight."""
    call, bias = module.graph.call_function, layer.args[2:]
    with module.graph.inserting_before(layer):
        weight = _transpose(module, layer)
        if activations is None or isinstance(activations, Static):
            y = call(_ATEN.matmul.default, (_quantise(module, x, activations), weight))
        else:
            largest = call(_ATEN.amax.default, (call(_ATEN.abs.default, (x,)), [-1], True))
            peak = call(_ATEN.clamp.default, (largest, _LEAST_PEAK))
            share = _quantise(module, call(_ATEN.div.Tensor, (x, peak)), _PEAK)
            y = call(_ATEN.mul.Tensor, (call(_ATEN.matmul.default, (share, weight)), peak))
        if bias and bias[0] is not None:
            y = call(_ATEN.add.Tensor, (y, bias[0]))
    layer.replace_all_uses_with(y)


def _quantise(module: GraphModule, x: Node, range_: Static | None) -> Node:
    """Insert the quantisation of x to uint8 and back; return x itself if there is no range."""
    if range_ is None:
        return x
    least, most = range_.least + _UNSIGNED, range_.most + _UNSIGNED
    scheme = (range_.scale, range_.zero_point + _UNSIGNED, least, most, torch.uint8)
    quantised = module.graph.call_function(_QUANTISED.quantize_per_tensor.default, (x, *scheme))
    return module.graph.call_function(_QUANTISED.dequantize_per_tensor.default, (quantised, *scheme))


def _transpose(module: GraphModule, layer: Node) -> Node:
    """Store a linear layer's int8 weight as (K, N), and insert its dequantisation to float32."""
    dequantise: Any = layer.args[1]
    values, scales = (_constant(module, argument) for argument in dequantise.args[:2])
    nodes = []
    for suffix, value in (("values", values.t().contiguous()), ("scales", scales.float())):
        name = f"{layer.name}_{suffix}"
        module.register_buffer(name, value)
        nodes.append(module.graph.get_attr(name))
    scheme = (None, 1, pt2e.LEAST, pt2e.MOST, torch.int8)  # no zero points, a scale for each of axis 1
    return module.graph.call_function(_QUANTISED.dequantize_per_channel.default, (*nodes, *scheme))


def _constant(module: GraphModule, node: Node) -> Tensor:
    """Return the tensor that a node reads from the module."""
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(module.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value
