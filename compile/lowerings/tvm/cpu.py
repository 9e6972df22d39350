"""From the exported graph to Relax for CPUs: generated matrix products, native scans and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax

from ...graph.pt2e import Array, Dynamic, Weight
from .converters import Columns, Converters, sizes
from .gemm import Gemm, Tiles
from .gemm_int8 import Dot, Int8Gemm


def to_relax(program: ExportedProgram, tiles: Tiles, dot: Dot) -> tvm.IRModule:
    """A program of `graph.export` as a Relax module whose function is ``main``.

    Linear layers and the patch embedding become generated matrix products, with norms, biases and residuals inside
    them; scans and convolutions become calls of the native kernels by name. The rest, additions of positions and
    changes of order, is left to TVM.

    Args:
        program: what was exported, quantised or not.
        tiles: the matrix products' register tiles.
        dot: the instruction of int8 ones.
    """
    module = CpuConverters(program, tiles, dot).convert()
    return relax.transform.DeadCodeElimination(["main"])(module)  # what went into the products


def products(program: ExportedProgram, tiles: Tiles, dot: Dot) -> list[Gemm]:
    """The matrix products of a program as `to_relax` makes it, each kind once."""
    converters = CpuConverters(program, tiles, dot)
    module = relax.transform.DeadCodeElimination(["main"])(converters.convert())
    used = {function.name_hint for function in module.functions}
    return [gemm for name, gemm in converters.products.items() if name in used]


class CpuConverters(Converters):
    """Converters of one program.

    Args:
        program: what was exported.
        tiles: the matrix products' register tiles.
        dot: the instruction of int8 ones.
    """

    def __init__(self, program: ExportedProgram, tiles: Tiles, dot: Dot) -> None:
        super().__init__(program)
        self.tiles, self.dot = tiles, dot
        self.products: dict[str, Gemm] = {}
        self.granularity = tiles.default.lanes  # whole vectors to the end

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
        weight: Weight,
        bias: Array | None = None,
        epsilon: float | None = None,
        residual: relax.Var | None = None,
        internal: bool = False,
    ) -> relax.Var:
        """As `Converters.gemm`."""
        *outer, row = sizes(x.whole)
        rows, (n, k) = int(np.prod(outer)), weight.values.shape
        extra: dict[str, Any] = {"epsilon": epsilon, "bias": bias is not None, "residual": residual is not None}
        extra |= {} if row == k else {"row": row, "first": x.first}
        gemm: Gemm
        if weight.activations is None:
            gemm = Gemm(rows, n, k, self.tiles.of(rows, n, k), **extra, scaled=weight.scales is not None)
        else:
            dynamic = isinstance(weight.activations, Dynamic)
            gemm = Int8Gemm(rows, n, k, self.dot.tile, **extra, dot=self.dot, dynamic=dynamic)
        self.products[gemm.name] = gemm
        arguments = [self.reshape(importer, x.whole, (rows, row)), *map(relax.const, gemm.constants(weight))]
        arguments += [relax.const(bias)] if bias is not None else []
        arguments += [self.reshape(importer, residual, (rows, n))] if residual is not None else []
        result = self.call(importer, gemm.name, gemm.function, arguments, (rows, n))
        return self.reshape(importer, result, (*outer, n))

    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """As `Converters.selective_scan`."""
        options = [*_options(node, "reverse"), *_start(node, "mask_diagonal")]
        return self.native(node, importer, "vmp_selective_scan", (0, 1, 3, 4, 6), options)

    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """As `Converters.bi_selective_scan`."""
        return self.native(node, importer, "vmp_bi_selective_scan", (0, 1, 4, 5, 7), _start(node, "mask_backward"))

    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        """As `Converters.causal_conv_silu`."""
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


def _options(node: Node, *names: str) -> list[int]:
    return [int(bool(node.kwargs.get(name, False))) for name in names]


def _start(node: Node, mask: str) -> list[int]:
    """Whether the state starts at the first input, and the mask."""
    return [int(node.kwargs.get("initial_state", "zero") == "first_input"), *_options(node, mask)]
