"""Read from an exported graph what PyTorch's PT2E has quantised, and how.

An int8 layer is a linear layer or a convolution whose weight comes from ``dequantize_per_channel``. Its input comes
from ``dequantize_per_tensor`` (a static range) or ``dequantize_per_token`` (a dynamic range), or stays a float. Where
PT2E also quantises a layer's output and dequantises it for its users, the lowerings skip both: that is faster and saves
one rounding error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.export import ExportedProgram
from torch.fx import Node

from vmp_edge.errors import BuildError, UsageError

from .. import precision as precisions

Array = npt.NDArray[np.float32]
LEAST, MOST = -128, 127  # the range of int8
LAYERS = ("linear.default", "conv2d.default")
QUANTISE = ("quantize_per_tensor.default", "quantize_per_token.default")
DEQUANTISE = ("dequantize_per_tensor.default", "dequantize_per_token.default")
WEIGHT = "dequantize_per_channel.default"


@dataclass(frozen=True)
class Static:
    """A static range: x becomes q = clip(round(x / scale) + zero_point, least, most), for (q - zero_point) * scale.

    Attributes:
        scale, zero_point: The scale and the zero point of all numbers of a tensor.
        least, most: The least and the largest int8 number q.
    """

    scale: float
    zero_point: int
    least: int = LEAST
    most: int = MOST


@dataclass(frozen=True)
class Dynamic:
    """A dynamic range: like `Static`, but with a scale and a zero point for each row.

    They are chosen so that int8 spans from the least number of the row to its largest, and 0 is inside.
    """


Activations = Static | Dynamic


@dataclass(frozen=True)
class Weight:
    """A layer's weight, and the range of the activations that it is multiplied with.

    Attributes:
        values: The weight (N, ...), float32, float16 or int8.
        scales: The scales of int8 values, float32 (N); None for float values.
        activations: How the activations become int8; None if they stay float32.
    """

    values: npt.NDArray[Any]
    scales: Array | None = None
    activations: Activations | None = None

    @property
    def kind(self) -> tuple[str, Activations | None]:
        """A key that is equal for weights whose layers can be one product, given the same input."""
        return str(self.values.dtype), self.activations

    def in_float16(self) -> Weight:
        """Return a float32 weight as float16."""
        return replace(self, values=self.values.astype(np.float16))

    def as_matrix(self) -> Weight:
        """Return the weight as a matrix (N, K)."""
        return replace(self, values=np.ascontiguousarray(self.values.reshape(len(self.values), -1)))


def concatenate(weights: Sequence[Weight], multiple: int) -> Weight:
    """Concatenate weights (N, K) of one kind along N, and add rows of zeros until N is a multiple of `multiple`."""
    values = [weight.values for weight in weights]
    fill = -sum(map(len, values)) % multiple
    whole = np.concatenate([*values, np.zeros((fill, values[0].shape[1]), values[0].dtype)])
    scales = [weight.scales for weight in weights if weight.scales is not None]
    return replace(
        weights[0], values=whole, scales=np.concatenate([*scales, np.zeros(fill, np.float32)]) if scales else None
    )


def is_call(node: Any, name: str) -> bool:
    """Return whether a node calls the operator `name`, for example ``linear.default``."""
    return isinstance(node, Node) and node.op == "call_function" and getattr(node.target, "__name__", "") == name


def skip_quantising(node: Node) -> Node:
    """Return the node whose result `node` is after quantising and dequantising, or `node` itself."""
    while any(is_call(node, name) for name in (*QUANTISE, *DEQUANTISE)):
        (node, *_) = node.args  # type: ignore[assignment]
    return node


def weight_of(layer: Node, parameters: Mapping[str, npt.NDArray[Any]]) -> Weight:
    """Return the weight of a linear layer or a convolution.

    Args:
        layer: The node that calls it.
        parameters: The program's parameters by the names of their nodes.

    Raises:
        BuildError: The weight is quantised in another way than to int8 with a scale for each row.
    """
    source, weight = layer.args[:2]
    assert isinstance(weight, Node)
    if not is_call(weight, WEIGHT):
        return Weight(parameters[weight.name])
    scheme: list[Any] = [parameters[arg.name] if isinstance(arg, Node) else arg for arg in weight.args[:4]]
    values, scales, zeros, axis = scheme
    if axis != 0 or values.dtype != np.int8 or (zeros is not None and np.any(zeros)):
        raise BuildError(f"{layer.name}: only int8 weights with a scale for each row and no zero points can be lowered")
    return Weight(values, scales.astype(np.float32), activations_of(source))


def activations_of(source: Any) -> Activations | None:
    """Return how a layer's input becomes int8, or None if it stays float32."""
    if is_call(source, "dequantize_per_token.default"):
        return Dynamic()
    if is_call(source, "dequantize_per_tensor.default"):
        scale, zero_point, least, most = source.args[1:5]
        return Static(float(scale), int(zero_point), int(least), int(most))
    return None


def check(program: ExportedProgram, precision: str) -> None:
    """Check that a program is quantised if the precision is int8, and only then.

    Raises:
        UsageError: The precision is an int8 one and no layer is quantised, or the other way round.
    """
    quantised = any(is_call(node, WEIGHT) for node in program.graph.nodes)
    if quantised != (precisions.find(precision).by_recipe):
        raise UsageError(f"the program is {'' if quantised else 'not '}quantised, which does not go with {precision}")
