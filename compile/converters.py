"""From the exported graph to Relax: vmp's own converters for all that takes time."""

from __future__ import annotations

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

from vmp_edge.compile.gemm import Gemm, Tiles
from vmp_edge.errors import BuildError

Array = npt.NDArray[np.float32]


def to_relax(program: ExportedProgram, tiles: Tiles) -> tvm.IRModule:
    """A program of `graph.export` as a Relax module whose function is ``main``.

    Linear layers and the patch embedding become generated matrix products, with norms, biases and residuals inside
    them; scans and convolutions become calls of the native kernels by name. The rest, additions of positions and
    changes of order, is left to TVM.

    Args:
        program: what was exported.
        tiles: the matrix products' register tiles.
    """
    module = _Converters(program, tiles).convert()
    return relax.transform.DeadCodeElimination(["main"])(module)  # what went into the products


def products(program: ExportedProgram, tiles: Tiles) -> list[Gemm]:
    """The matrix products of a program as `to_relax` makes it, each kind once."""
    converters = _Converters(program, tiles)
    module = relax.transform.DeadCodeElimination(["main"])(converters.convert())
    used = {function.name_hint for function in module.functions}
    return [gemm for name, gemm in converters.products.items() if name in used]


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


class _Converters:
    """Converters of one program, with its parameters and the functions that they have made so far."""

    def __init__(self, program: ExportedProgram, tiles: Tiles) -> None:
        self.program, self.tiles = program, tiles
        tensors = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
        self.parameters = {
            spec.arg.name: tensors[spec.target].detach().numpy()
            for spec in program.graph_signature.input_specs
            if spec.target in tensors
        }
        self.functions: dict[str, tvm.ir.GlobalVar] = {}
        self.patches: dict[Node, relax.Var] = {}
        self.columns: dict[Node, Columns] = {}
        self.products: dict[str, Gemm] = {}

    def convert(self) -> tvm.IRModule:
        converters: dict[str, Callable[[Node, Any], relax.Var]] = {
            "linear.default": self.linear,
            "add.Tensor": self.add,
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

    def call(self, importer: Any, name: str, make: Callable[[], Any], arguments: list[Any], shape: Any) -> relax.Var:
        """Call a TIR function, made when it is first asked for."""
        if name not in self.functions:
            self.functions[name] = importer.block_builder.add_func(make(), name)
        result = relax.call_tir(self.functions[name], arguments, out_ty=relax.TensorType(shape, "float32"))
        return importer.block_builder.emit(result)

    def gemm(
        self,
        importer: Any,
        x: Columns,
        weight: Array,
        bias: Array | None = None,
        epsilon: float | None = None,
        residual: relax.Var | None = None,
    ) -> relax.Var:
        """normalise(x) @ weight^T + bias + residual: x (..., K), weight (N, K) -> (..., N)."""
        *outer, row = sizes(x.whole)
        rows, (n, k) = int(np.prod(outer)), weight.shape
        gemm = Gemm(
            rows,
            n,
            k,
            self.tiles.of(rows, n, k),
            row=None if row == k else row,
            first=x.first,
            epsilon=epsilon,
            bias=bias is not None,
            residual=residual is not None,
        )
        self.products[gemm.name] = gemm
        arguments = [self.reshape(importer, x.whole, (rows, row)), relax.const(gemm.pack(weight))]
        arguments += [relax.const(bias)] if bias is not None else []
        arguments += [self.reshape(importer, residual, (rows, n))] if residual is not None else []
        result = self.call(importer, gemm.name, gemm.function, arguments, (rows, n))
        return self.reshape(importer, result, (*outer, n))

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
            return self.gemm(importer, columns, self.parameters[weight.name], bias, epsilon, residual)
        return self.linears(together, importer, columns, epsilon)[node]

    def linears(self, nodes: list[Node], importer: Any, x: Columns, epsilon: float | None) -> dict[Node, relax.Var]:
        """Several layers as one product. The results by themselves are for who cannot read columns, else removed."""
        weights = [self.parameters[inputs(node)[1].name] for node in nodes]
        total = sum(len(weight) for weight in weights)
        fill = -total % self.tiles.default.lanes  # whole vectors to the end
        merged = np.concatenate([*weights, np.zeros((fill, weights[0].shape[1]), np.float32)])
        whole = self.gemm(importer, x, merged, epsilon=epsilon)
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
        value = importer.env[right] if isinstance(right, Node) else relax.const(right, "float32")
        return importer.block_builder.emit(relax.op.add(importer.env[left], value))

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

    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        options = [*_options(node, "reverse"), *_start(node, "mask_diagonal")]
        return self.native(node, importer, "vmp_selective_scan", (0, 1, 3, 4, 6), options)

    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        return self.native(node, importer, "vmp_bi_selective_scan", (0, 1, 4, 5, 7), _start(node, "mask_backward"))

    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        return self.native(node, importer, "vmp_causal_conv_silu", (0,), _options(node, "reverse"))

    def native(self, node: Node, importer: Any, name: str, wide: tuple[int, ...], options: list[int]) -> relax.Var:
        """Call an operator of ``runtimes/tvm/src/operators.cpp``; its result is of its first argument's shape.

        Args:
            node: the call.
            importer: TVM's.
            name: of the function.
            wide: which arguments may be columns of a wider tensor.
            options: the last arguments.
        """
        arguments: list[Any] = [
            relax.op.null_value() if argument is None else importer.env[argument] for argument in node.args
        ]
        firsts = []
        for place in wide:
            argument, first = node.args[place], 0
            if isinstance(argument, Node):
                columns = self.source(argument, importer)
                arguments[place], first = columns.whole, columns.first
            firsts.append(first)
        arguments += [relax.prim_value(option) for option in firsts + options]
        shape = sizes(importer.env[node.args[0]])
        call = relax.call_dps_packed(name, arguments, out_ty=relax.TensorType(shape, "float32"))
        return importer.block_builder.emit(call)


def sizes(x: relax.Var) -> tuple[int, ...]:
    """The shape of a tensor in the graph: always known."""
    return tuple(int(size) for size in x.ty.shape)


def _options(node: Node, *names: str) -> list[int]:
    return [int(bool(node.kwargs.get(name, False))) for name in names]


def _start(node: Node, mask: str) -> list[int]:
    """Whether the state starts at the first input, and the mask."""
    return [int(node.kwargs.get("initial_state", "zero") == "first_input"), *_options(node, mask)]
