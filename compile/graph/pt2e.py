"""What is quantised in an exported graph, in the words of PyTorch's PT2E, and how.

A layer in int8 is a linear layer or a convolution whose weight comes from ``dequantize_per_channel``, and its input
from ``dequantize_per_tensor`` (a static range) or ``dequantize_per_token`` (a dynamic one), or else is a float. Where
PT2E quantises an output too, and gives it to others dequantised, the lowering skips both: faster, and one error less.
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
LEAST, MOST = -128, 127  # of int8
LAYERS = ("linear.default", "conv2d.default")
QUANTISE = ("quantize_per_tensor.default", "quantize_per_token.default")
DEQUANTISE = ("dequantize_per_tensor.default", "dequantize_per_token.default")
WEIGHT = "dequantize_per_channel.default"


@dataclass(frozen=True)
class Static:
    """x becomes q = clip(round(x / scale) + zero_point, least, most), and q stands for (q - zero_point) * scale.

    Attributes:
        scale, zero_point: of all numbers.
        least, most: of the int8 numbers q.
    """

    scale: float
    zero_point: int
    least: int = LEAST
    most: int = MOST


@dataclass(frozen=True)
class Dynamic:
    """As `Static`, scale and zero point of each row so that int8 spans from its least number, or 0, to its largest."""


Activations = Static | Dynamic


@dataclass(frozen=True)
class Weight:
    """A layer's weight, and what becomes of the activations that it is multiplied with.

    Attributes:
        values: float32, float16 or int8, (N, ...).
        scales: of int8 values, float32 (N); None for others.
        activations: how they become int8; None where they stay float32.
    """

    values: npt.NDArray[Any]
    scales: Array | None = None
    activations: Activations | None = None

    @property
    def kind(self) -> tuple[str, Activations | None]:
        """Equal for weights whose layers, of the same input, can be one product."""
        return str(self.values.dtype), self.activations

    def in_float16(self) -> Weight:
        """A float weight in half the bits."""
        return replace(self, values=self.values.astype(np.float16))

    def flat(self) -> Weight:
        """The same as a matrix, (N, K)."""
        return replace(self, values=np.ascontiguousarray(self.values.reshape(len(self.values), -1)))


def joined(weights: Sequence[Weight], multiple: int) -> Weight:
    """Weights (N, K) of one kind as one, zeros at its end so that N is a multiple."""
    values = [weight.values for weight in weights]
    fill = -sum(map(len, values)) % multiple
    whole = np.concatenate([*values, np.zeros((fill, values[0].shape[1]), values[0].dtype)])
    scales = [weight.scales for weight in weights if weight.scales is not None]
    return replace(
        weights[0], values=whole, scales=np.concatenate([*scales, np.zeros(fill, np.float32)]) if scales else None
    )


def is_call(node: Any, name: str) -> bool:
    """Whether a node calls an operator, ``linear.default`` say."""
    return isinstance(node, Node) and node.op == "call_function" and getattr(node.target, "__name__", "") == name


def in_float(node: Node) -> Node:
    """What a node is where nothing is quantised."""
    while any(is_call(node, name) for name in (*QUANTISE, *DEQUANTISE)):
        (node, *_) = node.args  # type: ignore[assignment]
    return node


def weight_of(layer: Node, parameters: Mapping[str, npt.NDArray[Any]]) -> Weight:
    """The weight of a linear layer or a convolution.

    Args:
        layer: the node.
        parameters: the program's, by the names of their nodes.

    Raises:
        BuildError: it is quantised in another way than int8, a scale for each row.
    """
    source, weight = layer.args[:2]
    assert isinstance(weight, Node)
    if not is_call(weight, WEIGHT):
        return Weight(parameters[weight.name])
    given: list[Any] = [parameters[arg.name] if isinstance(arg, Node) else arg for arg in weight.args[:4]]
    values, scales, zeros, axis = given
    if axis != 0 or values.dtype != np.int8 or (zeros is not None and np.any(zeros)):
        raise BuildError(f"{layer.name}: only int8 weights with a scale for each row and no zero points can be lowered")
    return Weight(values, scales.astype(np.float32), activations_of(source))


def activations_of(source: Any) -> Activations | None:
    """How a layer's input becomes int8; None where it stays float32."""
    if is_call(source, "dequantize_per_token.default"):
        return Dynamic()
    if is_call(source, "dequantize_per_tensor.default"):
        scale, zero_point, least, most = source.args[1:5]
        return Static(float(scale), int(zero_point), int(least), int(most))
    return None


def check(program: ExportedProgram, precision: str) -> None:
    """Whether a program is of a precision.

    Raises:
        UsageError: the precision is an int8 one and no layer is quantised, or the other way round.
    """
    quantised = any(is_call(node, WEIGHT) for node in program.graph.nodes)
    if quantised != (precisions.find(precision).by_recipe):
        raise UsageError(f"the program is {'' if quantised else 'not '}quantised, which does not go with {precision}")
