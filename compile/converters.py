"""From the exported graph to Relax: what the lowerings to TVM share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

from vmp_edge.errors import BuildError

Array = npt.NDArray[np.float32]
READERS = ("linear.default", "selective_scan.default", "bi_selective_scan.default", "causal_conv_silu.default")


def is_call(node: Any, name: str) -> bool:
    """Whether a node calls an operator, ``linear.default`` say."""
    return isinstance(node, Node) and node.op == "call_function" and getattr(node.target, "__name__", "") == name


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
        weight: Array,
        bias: Array | None = None,
        epsilon: float | None = None,
        residual: relax.Var | None = None,
        internal: bool = False,
    ) -> relax.Var:
        """normalise(x) @ weight^T + bias + residual: x (..., K), weight (N, K) -> (..., N).

        Args:
            importer: TVM's.
            x: what is multiplied.
            weight: the layer's.
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
        if node in self.columns:
            return self.columns[node]
        x = importer.env[node]
        return Columns(x, 0, sizes(x)[-1])

    def linear(self, node: Node, importer: Any, residual: relax.Var | None = None) -> relax.Var:
        """A linear layer; those without a bias that read the same are one product, whose columns they share."""
        source, weight, *rest = inputs(node)
        if node in self.columns:
            return importer.env[node]
        epsilon = None
        x = source
        if found := normalised(source):
            x, epsilon = found
        columns = self.source(x, importer)
        bias = self.parameters[rest[0].name] if rest and rest[0] is not None else None
        together = [user for user in source.users if is_call(user, "linear.default") and len(user.args) == 2]
        if bias is not None or len(together) < 2:
            internal = residual is None and all(any(is_call(user, name) for name in READERS) for user in node.users)
            return self.gemm(importer, columns, self.parameters[weight.name], bias, epsilon, residual, internal)
        return self.linears(together, importer, columns, epsilon)[node]

    def linears(self, nodes: list[Node], importer: Any, x: Columns, epsilon: float | None) -> dict[Node, relax.Var]:
        """Several layers as one product. The results by themselves are for who cannot read columns, else removed."""
        weights = [self.parameters[inputs(node)[1].name] for node in nodes]
        total = sum(len(weight) for weight in weights)
        fill = -total % self.granularity
        merged = np.concatenate([*weights, np.zeros((fill, weights[0].shape[1]), np.float32)])
        whole = self.gemm(importer, x, merged, epsilon=epsilon, internal=True)
        results, first = {}, 0
        for node, weight in zip(nodes, weights, strict=True):
            self.columns[node] = Columns(whole, first, len(weight))
            cut = relax.op.strided_slice(whole, [-1], [first], [first + len(weight)])
            results[node] = importer.env[node] = importer.block_builder.emit(cut)
            first += len(weight)
        return results

    def add(self, node: Node, importer: Any) -> relax.Var:
        """A sum; where it is a linear layer's only use, the layer adds its other side."""
        left, right = inputs(node)
        alone = is_call(right, "linear.default") and len(right.users) == 1 and right not in self.columns
        if alone and isinstance(left, Node):
            residual = importer.env[left]
            if sizes(residual) == sizes(importer.env[right]):
                return self.linear(right, importer, residual)
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
        source, weight_node, bias_node, stride = inputs(node)[:4]
        weight = self.parameters[weight_node.name]
        x, emit = importer.env[source], importer.block_builder.emit
        steps, channels, height, width = sizes(x)
        out, _, patch, across = weight.shape
        if list(stride) != [patch, across] or patch != across or height % patch or width % patch:
            raise BuildError("lowering to TVM: a convolution that is not a patch embedding")
        down, along = height // patch, width // patch
        split = emit(relax.op.reshape(x, (steps, channels, down, patch, along, patch)))
        order = emit(relax.op.permute_dims(split, (0, 2, 4, 1, 3, 5)))
        rows = emit(relax.op.reshape(order, (steps, down * along, channels * patch * patch)))
        bias = self.parameters[bias_node.name]
        flat = np.ascontiguousarray(weight.reshape(out, -1))
        tokens = self.gemm(importer, Columns(rows, 0, flat.shape[1]), flat, bias)
        self.patches[node] = tokens
        back = emit(relax.op.permute_dims(tokens, (0, 2, 1)))
        return emit(relax.op.reshape(back, (steps, out, down, along)))

    def transpose(self, node: Node, importer: Any) -> relax.Var:
        """A transpose; after a flattened patch embedding it only undoes what made that a convolution's result."""
        source, first, second = inputs(node)
        if is_call(source, "flatten.using_ints") and source.args[0] in self.patches:
            return self.patches[source.args[0]]
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


def sizes(x: relax.Var) -> tuple[int, ...]:
    """The shape of a tensor in the graph: always known."""
    return tuple(int(size) for size in x.ty.shape)
