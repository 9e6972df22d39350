"""From the exported graph to Relax: what the lowerings to TVM share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from vmp_edge.errors import BuildError

from ...graph.pt2e import DEQUANTISE, LAYERS, QUANTISE, Array, Weight, in_float, is_call, joined, weight_of

READERS = ("linear.default", "selective_scan.default", "bi_selective_scan.default", "causal_conv_silu.default")


def inputs(node: Node) -> list[Any]:
    """What an operator is called with: nodes, numbers, lists, None."""
    return list(node.args)


def normalised(node: Node) -> tuple[Node, float] | None:
    """x and epsilon if a node is what `graph.Normalise` makes: x * rsqrt(mean(x * x) + epsilon)."""
    if not is_call(node, "mul.Tensor") or not is_call(inputs(node)[1], "rsqrt.default"):
        return None
    x, (shifted, *_) = inputs(node)[0], inputs(node)[1].args
    if not is_call(shifted, "add.Tensor") or not is_call(shifted.args[0], "linear.default"):
        return None
    squares, epsilon = shifted.args[0].args[0], shifted.args[1]
    if not is_call(squares, "mul.Tensor") or tuple(squares.args) != (x, x) or not isinstance(epsilon, float):
        return None
    assert isinstance(x, Node)
    return x, epsilon


@dataclass(frozen=True)
class Columns:
    """Some columns of a tensor (..., row): what a product wrote beside the results of others.

    Attributes:
        whole: the tensor.
        first: of its columns.
        count: of columns.
    """

    whole: relax.Var
    first: int
    count: int


class Converters(ABC):
    """Converters of one program, with its parameters and the functions that they have made so far."""

    granularity = 1  # to a multiple of which the columns of several layers are filled up

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        tensors = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
        self.parameters = {
            spec.arg.name: tensors[spec.target].detach().numpy()
            for spec in program.graph_signature.input_specs
            if spec.target in tensors
        }
        self.weights = {
            node: weight_of(node, self.parameters)
            for node in program.graph.nodes
            if any(is_call(node, name) for name in LAYERS)
        }
        self.functions: dict[str, tvm.ir.GlobalVar] = {}
        self.patches: dict[Node, relax.Var] = {}
        self.columns: dict[Node, Columns] = {}

    def convert(self) -> tvm.IRModule:
        """The program as a Relax module."""
        converters: dict[str, Callable[[Node, Any], relax.Var]] = {
            "linear.default": self.linear,
            "add.Tensor": self.add,
            "mul.Tensor": self.multiply,
            "conv2d.default": self.patch_embedding,
            "transpose.int": self.transpose,
            "select.int": self.select,
            "selective_scan.default": self.selective_scan,
            "bi_selective_scan.default": self.bi_selective_scan,
            "causal_conv_silu.default": self.causal_conv_silu,
            **dict.fromkeys((*QUANTISE, *DEQUANTISE), self.unchanged),
            "dequantize_per_channel.default": self.unchanged,
            "choose_qparams_per_token_asymmetric.default": self.nothing,
        }
        return from_exported_program(
            self.program,
            custom_convert_map=converters,
            run_ep_decomposition=False,  # it would take linear layers apart
            unwrap_unit_return_tuple=True,
        )

    @abstractmethod
    def gemm(
        self,
        importer: Any,
        x: Columns,
        weight: Weight,
        bias: Array | None = None,
        epsilon: float | None = None,
        residual: relax.Var | None = None,
        internal: bool = False,
    ) -> relax.Var:
        """normalise(x) @ weight^T + bias + residual: x (..., K), weight (N, K) -> (..., N).

        Args:
            importer: TVM's.
            x: what is multiplied.
            weight: the layer's, which also says whether the normalised x becomes int8.
            bias: (N).
            epsilon: of the norm; None where there is none.
            residual: (..., N).
            internal: whether only our own kernels read the result.
        """

    @abstractmethod
    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """One direction's scan."""

    @abstractmethod
    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Both directions' scan."""

    @abstractmethod
    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        """The convolution and its SiLU."""

    def reshape(self, importer: Any, x: relax.Var, shape: tuple[int, ...]) -> relax.Var:
        """The same numbers in another shape; nothing where it is that shape."""
        return x if sizes(x) == shape else importer.block_builder.emit(relax.op.reshape(x, shape))

    def source(self, node: Node, importer: Any) -> Columns:
        """Where a node's result lies: in a tensor of its own, or among others'."""
        node = in_float(node)
        if node in self.columns:
            return self.columns[node]
        x = importer.env[node]
        return Columns(x, 0, sizes(x)[-1])

    def unchanged(self, node: Node, importer: Any) -> relax.Var:
        """Quantising and dequantising: the layers that read it do it by themselves."""
        source = node.args[0]
        assert isinstance(source, Node)
        return importer.env[source]

    def nothing(self, node: Node, importer: Any) -> tuple[None, None]:
        """Scales and zero points of tokens, which nobody but quantising reads."""
        return None, None

    def linear(self, node: Node, importer: Any, residual: relax.Var | None = None) -> relax.Var:
        """A linear layer; those without a bias that read the same are one product, whose columns they share."""
        if node in self.columns:
            return importer.env[node]
        source, bias = in_float(inputs(node)[0]), self.bias(node)
        x, epsilon = normalised(source) or (source, None)
        columns = self.source(x, importer)
        together = [other for other in self.weights if self.belong_together(node, other)]
        if bias is not None or len(together) < 2:
            internal = residual is None and all(any(is_call(user, name) for name in READERS) for user in node.users)
            return self.gemm(importer, columns, self.weights[node], bias, epsilon, residual, internal)
        return self.linears(together, importer, columns, epsilon)[node]

    def bias(self, layer: Node) -> Array | None:
        """Of a linear layer or a convolution."""
        bias = layer.args[2] if len(layer.args) > 2 else None
        return self.parameters[bias.name] if isinstance(bias, Node) else None

    def belong_together(self, one: Node, other: Node) -> bool:
        """Whether two linear layers can be one product."""
        same = in_float(inputs(one)[0]) is in_float(inputs(other)[0])
        both = is_call(other, "linear.default") and self.bias(one) is self.bias(other) is None
        return same and both and self.weights[one].kind == self.weights[other].kind

    def linears(self, nodes: list[Node], importer: Any, x: Columns, epsilon: float | None) -> dict[Node, relax.Var]:
        """Several layers as one product. The results by themselves are for who cannot read columns, else removed."""
        weights = [self.weights[node] for node in nodes]
        whole = self.gemm(importer, x, joined(weights, self.granularity), epsilon=epsilon, internal=True)
        results, first = {}, 0
        for node, width in zip(nodes, (len(weight.values) for weight in weights), strict=True):
            self.columns[node] = Columns(whole, first, width)
            cut = relax.op.strided_slice(whole, [-1], [first], [first + width])
            results[node] = importer.env[node] = importer.block_builder.emit(cut)
            first += width
        return results

    def add(self, node: Node, importer: Any) -> relax.Var:
        """A sum; where it is a linear layer's only use, the layer adds its other side."""
        left, right = inputs(node)
        layer = in_float(right) if isinstance(right, Node) else right
        if isinstance(left, Node) and is_call(layer, "linear.default") and layer not in self.columns:
            residual = importer.env[left]
            if only_use(layer, node) and sizes(residual) == sizes(importer.env[layer]):
                return self.linear(layer, importer, residual)
        return self.elementwise(relax.op.add, importer, left, right)

    def multiply(self, node: Node, importer: Any) -> relax.Var:
        """A product, number by number."""
        return self.elementwise(relax.op.multiply, importer, *inputs(node))

    def elementwise(self, operator: Callable[..., Any], importer: Any, left: Node, right: Node | float) -> relax.Var:
        """An operator on two tensors, or a tensor and a number; in float32 where their dtypes differ."""
        emit = importer.block_builder.emit
        a = importer.env[left]
        b = importer.env[right] if isinstance(right, Node) else relax.const(right, a.ty.dtype)
        if a.ty.dtype != b.ty.dtype:
            a, b = (emit(relax.op.astype(x, "float32")) for x in (a, b))
        return emit(operator(a, b))

    def patch_embedding(self, node: Node, importer: Any) -> relax.Var:
        """A convolution whose kernel is its stride: a product over the patches, put back where a convolution has it."""
        source, stride, weight = inputs(node)[0], inputs(node)[3], self.weights[node]
        x, emit = importer.env[source], importer.block_builder.emit
        steps, channels, height, width = sizes(x)
        out, _, patch, across = weight.values.shape
        if list(stride) != [patch, across] or patch != across or height % patch or width % patch:
            raise BuildError("lowering to TVM: a convolution that is not a patch embedding")
        down, along = height // patch, width // patch
        split = emit(relax.op.reshape(x, (steps, channels, down, patch, along, patch)))
        order = emit(relax.op.permute_dims(split, (0, 2, 4, 1, 3, 5)))
        rows = emit(relax.op.reshape(order, (steps, down * along, channels * patch * patch)))
        tokens = self.gemm(importer, Columns(rows, 0, sizes(rows)[-1]), weight.flat(), self.bias(node))
        self.patches[node] = tokens
        back = emit(relax.op.permute_dims(tokens, (0, 2, 1)))
        return emit(relax.op.reshape(back, (steps, out, down, along)))

    def transpose(self, node: Node, importer: Any) -> relax.Var:
        """A transpose; after a flattened patch embedding it only undoes what made that a convolution's result."""
        source, first, second = inputs(node)
        if is_call(source, "flatten.using_ints") and in_float(source.args[0]) in self.patches:
            return self.patches[in_float(source.args[0])]
        x = importer.env[source]
        axes = list(range(len(sizes(x))))
        axes[first], axes[second] = axes[second], axes[first]
        return importer.block_builder.emit(relax.op.permute_dims(x, axes))

    def select(self, node: Node, importer: Any) -> relax.Var:
        """One place along an axis; TVM's own converter makes a gather of it."""
        source, axis, index = inputs(node)
        x, emit = importer.env[source], importer.block_builder.emit
        cut = emit(relax.op.strided_slice(x, [axis], [index], [index + 1]))
        return emit(relax.op.squeeze(cut, [axis]))


def only_use(node: Node, user: Node) -> bool:
    """Whether one node is all that uses another, but for quantising and dequantising on the way."""
    users = list(node.users)
    while (
        len(users) == 1 and users[0] is not user and any(is_call(users[0], name) for name in (*QUANTISE, *DEQUANTISE))
    ):
        users = list(users[0].users)
    return users == [user]


def sizes(x: relax.Var) -> tuple[int, ...]:
    """The shape of a tensor in the graph: always known."""
    return tuple(int(size) for size in x.ty.shape)
