"""The converters from the exported graph to Relax that the lowerings to TVM for CPUs and for GPUs share.

TVM's importer walks along the exported program and asks a converter for each node. `cpu` and `cuda.converters` complete
the class `Converters` with the kernels of their device.
"""

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

from ...graph.pt2e import (
    DEQUANTISE,
    LAYERS,
    QUANTISE,
    Array,
    Weight,
    concatenate,
    is_call,
    skip_quantising,
    weight_of,
)

WITH_STATE = "_with_state.default"  # how the names of operators end that take and give a state
_SEQUENTIAL = ("selective_scan", "bi_selective_scan", "causal_conv_silu")
# The operators with kernels of our own, which can read the columns of a wider tensor.
OWN_KERNELS = ("linear.default", *(f"{name}{end}" for name in _SEQUENTIAL for end in (".default", WITH_STATE)))


def inputs(node: Node) -> list[Any]:
    """Return the arguments of an operator's call: nodes, numbers, lists and None."""
    return list(node.args)


def match_norm(node: Node) -> tuple[Node, float] | None:
    """Return x and epsilon if a node is a norm of `graph.Normalise`, x * rsqrt(mean(x * x) + epsilon), else None."""
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
    """Some columns of a tensor (..., row), into which one product may have written the results of several layers.

    Attributes:
        whole: The tensor.
        first: The index of the first column.
        count: The number of columns.
    """

    whole: relax.Var
    first: int
    count: int


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix product: normalise(x) @ weight^T + bias + residual, with x (..., K) and weight (N, K) -> (..., N).

    Attributes:
        x: The left side (..., K).
        weight: The layer's weight (N, K), which also says whether the normalised x becomes int8.
        bias: The layer's bias (N), or None.
        epsilon: The epsilon of the norm of x; None without a norm.
        residual: What is added to the result (..., N), or None.
        internal: True if only kernels of our own read the result.
    """

    x: Columns
    weight: Weight
    bias: Array | None = None
    epsilon: float | None = None
    residual: relax.Var | None = None
    internal: bool = False


class Converters(ABC):
    """The converters of one program, with the program's parameters and the functions made so far.

    Every method that converts a node takes it and TVM's importer, and returns the Relax variable of the result.
    """

    granularity = 1  # a product of several layers gets zero columns up to a multiple of this

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
        """Return the program as a Relax module."""
        converters: dict[str, Callable[[Node, Any], relax.Var]] = {
            "linear.default": self.linear,
            "add.Tensor": self.add,
            "mul.Tensor": self.multiply,
            "conv2d.default": self.patch_embedding,
            "transpose.int": self.transpose,
            "select.int": self.select,
            **{f"{name}{end}": getattr(self, name) for name in _SEQUENTIAL for end in (".default", WITH_STATE)},
            **dict.fromkeys((*QUANTISE, *DEQUANTISE), self.skip),
            "dequantize_per_channel.default": self.skip,
            "choose_qparams_per_token_asymmetric.default": self.token_ranges,
        }
        return from_exported_program(
            self.program,
            custom_convert_map=converters,
            run_ep_decomposition=False,  # it would take linear layers apart
            unwrap_unit_return_tuple=True,
        )

    @abstractmethod
    def gemm(self, importer: Any, product: Product) -> relax.Var:
        """Emit the kernel of a matrix product and return its result (..., N)."""

    @abstractmethod
    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Convert a scan in one direction, with a state or without; with one the result is a pair."""

    @abstractmethod
    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Convert a scan in both directions, as `selective_scan` does."""

    @abstractmethod
    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        """Convert a causal convolution with its SiLU, as `selective_scan` does."""

    def reshape(self, importer: Any, x: relax.Var, shape: tuple[int, ...]) -> relax.Var:
        """Return the same numbers in another shape, or x itself if it has that shape."""
        return x if sizes(x) == shape else importer.block_builder.emit(relax.op.reshape(x, shape))

    def source(self, node: Node, importer: Any) -> Columns:
        """Return where a node's result lies: in a tensor of its own, or in some columns of a shared one."""
        node = skip_quantising(node)
        if node in self.columns:
            return self.columns[node]
        x = importer.env[node]
        return Columns(x, 0, sizes(x)[-1])

    def skip(self, node: Node, importer: Any) -> relax.Var:
        """Skip quantising or dequantising: the layers that read the result do it by themselves."""
        source = node.args[0]
        assert isinstance(source, Node)
        return importer.env[source]

    def token_ranges(self, node: Node, importer: Any) -> tuple[None, None]:
        """Skip the scales and zero points of tokens: only quantising reads them, and it is skipped too."""
        return None, None

    def linear(self, node: Node, importer: Any, residual: relax.Var | None = None) -> relax.Var:
        """Convert a linear layer. Layers without a bias that have the same input become one product."""
        if node in self.columns:
            return importer.env[node]
        source, bias = skip_quantising(inputs(node)[0]), self.bias(node)
        x, epsilon = match_norm(source) or (source, None)
        columns = self.source(x, importer)
        siblings = [layer for layer in self.weights if self.can_share_product(node, layer)]
        if bias is not None or len(siblings) < 2:
            internal = residual is None and all(any(is_call(user, name) for name in OWN_KERNELS) for user in node.users)
            return self.gemm(importer, Product(columns, self.weights[node], bias, epsilon, residual, internal))
        return self.linears(siblings, importer, columns, epsilon)[node]

    def bias(self, layer: Node) -> Array | None:
        """Return the bias of a linear layer or a convolution, or None."""
        bias = layer.args[2] if len(layer.args) > 2 else None
        return self.parameters[bias.name] if isinstance(bias, Node) else None

    def can_share_product(self, linear: Node, layer: Node) -> bool:
        """Return whether a linear layer and another layer can be one product."""
        same_input = skip_quantising(inputs(linear)[0]) is skip_quantising(inputs(layer)[0])
        both_plain = is_call(layer, "linear.default") and self.bias(linear) is self.bias(layer) is None
        return same_input and both_plain and self.weights[linear].kind == self.weights[layer].kind

    def linears(self, nodes: list[Node], importer: Any, x: Columns, epsilon: float | None) -> dict[Node, relax.Var]:
        """Convert several layers to one product.

        Each layer's result is also cut out, for operators that cannot read columns; dead code elimination removes the
        cuts that no operator reads.
        """
        weights = [self.weights[node] for node in nodes]
        product = Product(x, concatenate(weights, self.granularity), epsilon=epsilon, internal=True)
        whole = self.gemm(importer, product)
        results, first = {}, 0
        for node, width in zip(nodes, (len(weight.values) for weight in weights), strict=True):
            self.columns[node] = Columns(whole, first, width)
            cut = relax.op.strided_slice(whole, [-1], [first], [first + width])
            results[node] = importer.env[node] = importer.block_builder.emit(cut)
            first += width
        return results

    def add(self, node: Node, importer: Any) -> relax.Var:
        """Convert a sum. If the right side is a linear layer with no other use, the layer's product adds the left."""
        left, right = inputs(node)
        layer = skip_quantising(right) if isinstance(right, Node) else right
        if isinstance(left, Node) and is_call(layer, "linear.default") and layer not in self.columns:
            residual = importer.env[left]
            if only_use(layer, node) and sizes(residual) == sizes(importer.env[layer]):
                return self.linear(layer, importer, residual)
        return self.elementwise(relax.op.add, importer, left, right)

    def multiply(self, node: Node, importer: Any) -> relax.Var:
        """Convert an elementwise product."""
        return self.elementwise(relax.op.multiply, importer, *inputs(node))

    def elementwise(self, operator: Callable[..., Any], importer: Any, left: Node, right: Node | float) -> relax.Var:
        """Emit an operator on two tensors, or on a tensor and a number; in float32 where the dtypes differ."""
        emit = importer.block_builder.emit
        a = importer.env[left]
        b = importer.env[right] if isinstance(right, Node) else relax.const(right, a.ty.dtype)
        if a.ty.dtype != b.ty.dtype:
            a, b = (emit(relax.op.astype(x, "float32")) for x in (a, b))
        return emit(operator(a, b))

    def patch_embedding(self, node: Node, importer: Any) -> relax.Var:
        """Convert a convolution whose kernel is as large as its stride: a product over the patches.

        The result also gets the layout of a convolution's, (steps, C, h, w); `transpose` undoes it where it can.
        """
        source, stride, weight = inputs(node)[0], inputs(node)[3], self.weights[node]
        x, emit = importer.env[source], importer.block_builder.emit
        steps, channels, height, width = sizes(x)
        out, _, patch, across = weight.values.shape
        if list(stride) != [patch, across] or patch != across or height % patch or width % patch:
            raise BuildError("lowering to TVM: the model has a convolution that is not a patch embedding")
        down, along = height // patch, width // patch
        split = emit(relax.op.reshape(x, (steps, channels, down, patch, along, patch)))
        order = emit(relax.op.permute_dims(split, (0, 2, 4, 1, 3, 5)))
        rows = emit(relax.op.reshape(order, (steps, down * along, channels * patch * patch)))
        patches = Columns(rows, 0, sizes(rows)[-1])
        tokens = self.gemm(importer, Product(patches, weight.as_matrix(), self.bias(node)))
        self.patches[node] = tokens
        back = emit(relax.op.permute_dims(tokens, (0, 2, 1)))
        return emit(relax.op.reshape(back, (steps, out, down, along)))

    def transpose(self, node: Node, importer: Any) -> relax.Var:
        """Convert a transpose. After a flattened patch embedding it gives the product's result (steps, h * w, C)."""
        source, first, second = inputs(node)
        if is_call(source, "flatten.using_ints") and skip_quantising(source.args[0]) in self.patches:
            return self.patches[skip_quantising(source.args[0])]
        x = importer.env[source]
        axes = list(range(len(sizes(x))))
        axes[first], axes[second] = axes[second], axes[first]
        return importer.block_builder.emit(relax.op.permute_dims(x, axes))

    def select(self, node: Node, importer: Any) -> relax.Var:
        """Convert the choice of one index along an axis. TVM's own converter would make a gather of it."""
        source, axis, index = inputs(node)
        x, emit = importer.env[source], importer.block_builder.emit
        index %= sizes(x)[axis]  # it may count from the end
        cut = emit(relax.op.strided_slice(x, [axis], [index], [index + 1]))
        return emit(relax.op.squeeze(cut, [axis]))


def only_use(node: Node, user: Node) -> bool:
    """Return whether `user` alone uses `node`, apart from quantising and dequantising on the way."""
    users = list(node.users)
    while (
        len(users) == 1 and users[0] is not user and any(is_call(users[0], name) for name in (*QUANTISE, *DEQUANTISE))
    ):
        users = list(users[0].users)
    return users == [user]


def sizes(x: relax.Var) -> tuple[int, ...]:
    """Return the shape of a tensor in the graph; all shapes are static."""
    return tuple(int(size) for size in x.ty.shape)
