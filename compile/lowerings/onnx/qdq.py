"""Quantised programs as ONNX's consumers know them: products between DequantizeLinear and fixed ranges.

PT2E's programs (`vmp_edge.calibration.quantisation`) have three things that do not go well into ONNX:

* A range for each token. Here each token is divided by its largest absolute value, so that one fixed range fits them
  all, and the product is multiplied by that value again.
* Weights (N, K), which are transposed when they are used. Here they lie as (K, N): consumers look for a product whose
  operands come out of DequantizeLinear, and ONNX Runtime 1.31 makes an invalid model of one with a transpose, or any
  other operation that only moves numbers, behind a DequantizeLinear.
* Quantised outputs, which go on dequantised: left out, faster and one error less. Without them a convolution is
  computed in float32 whatever its input is, so that of a convolution only the weight is int8.

Activations are uint8, which x86 multiplies with int8; the numbers are those of int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from ...graph import pt2e
from ...graph.pt2e import Activations, Static

_PEAK = Static(1 / 127, 0)  # of tokens over their largest absolute value
_LEAST_PEAK = 2**-20  # a token of zeros stays one
_UNSIGNED = 128  # from int8 to uint8
_ATEN = torch.ops.aten
_WORDS = torch.ops.quantized_decomposed


def with_fixed_ranges(program: ExportedProgram) -> ExportedProgram:
    """A quantised program in which every range is fixed and every linear layer's weight lies as it is multiplied.

    Args:
        program: as `quantisation.quantise` gives it.

    Returns:
        The same numbers but for roundings: tokens' ranges are symmetric, and static layers' outputs are not rounded.
    """
    module = program.module(check_guards=False)
    for layer in list(module.graph.nodes):
        if any(pt2e.is_call(layer, name) for name in pt2e.LAYERS) and pt2e.is_call(layer.args[1], pt2e.WEIGHT):
            _leave_output(layer)
            source = pt2e.skip_quantising(layer.args[0])
            if pt2e.is_call(layer, "linear.default"):
                _replace(module, layer, source, pt2e.activations_of(layer.args[0]))
            else:
                layer.update_arg(0, source)
    module.graph.eliminate_dead_code()
    module.recompile()
    with torch.no_grad():
        return torch.export.export(module, program.example_inputs[0], strict=False)


def _leave_output(layer: Node) -> None:
    for user in list(layer.users):
        if pt2e.is_call(user, "quantize_per_tensor.default"):
            for dequantised in list(user.users):
                dequantised.replace_all_uses_with(layer)


def _replace(module: GraphModule, layer: Node, x: Node, activations: Activations | None) -> None:
    """A product with the transposed weight in place of a linear layer of ``x``."""
    call, bias = module.graph.call_function, layer.args[2:]
    with module.graph.inserting_before(layer):
        weight = _transposed(module, layer)
        if activations is None or isinstance(activations, Static):
            y = call(_ATEN.matmul.default, (_rounded(module, x, activations), weight))
        else:
            largest = call(_ATEN.amax.default, (call(_ATEN.abs.default, (x,)), [-1], True))
            peak = call(_ATEN.clamp.default, (largest, _LEAST_PEAK))
            share = _rounded(module, call(_ATEN.div.Tensor, (x, peak)), _PEAK)
            y = call(_ATEN.mul.Tensor, (call(_ATEN.matmul.default, (share, weight)), peak))
        if bias and bias[0] is not None:
            y = call(_ATEN.add.Tensor, (y, bias[0]))
    layer.replace_all_uses_with(y)


def _rounded(module: GraphModule, x: Node, range_: Static | None) -> Node:
    """To uint8 and back; as it is where there is no range."""
    if range_ is None:
        return x
    least, most = range_.least + _UNSIGNED, range_.most + _UNSIGNED
    scheme = (range_.scale, range_.zero_point + _UNSIGNED, least, most, torch.uint8)
    quantised = module.graph.call_function(_WORDS.quantize_per_tensor.default, (x, *scheme))
    return module.graph.call_function(_WORDS.dequantize_per_tensor.default, (quantised, *scheme))


def _transposed(module: GraphModule, layer: Node) -> Node:
    """A linear layer's weight, float32 (K, N) of int8 ones."""
    given: Any = layer.args[1]
    values, scales = (_constant(module, argument) for argument in given.args[:2])
    nodes = []
    for suffix, value in (("values", values.t().contiguous()), ("scales", scales.float())):
        name = f"{layer.name}_{suffix}"
        module.register_buffer(name, value)
        nodes.append(module.graph.get_attr(name))
    scheme = (None, 1, pt2e.LEAST, pt2e.MOST, torch.int8)  # no zero points, along N
    return module.graph.call_function(_WORDS.dequantize_per_channel.default, (*nodes, *scheme))


def _constant(module: GraphModule, node: Node) -> Tensor:
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(module.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value
