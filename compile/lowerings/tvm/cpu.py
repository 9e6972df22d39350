"""The conversion of the exported graph to Relax for CPUs: generated matrix products, native scans and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax

from ...graph.pt2e import Dynamic
from .converters import Converters, Product, sizes
from .gemm import Gemm, Tiles
from .gemm_int8 import Dot, Int8Gemm


def to_relax(program: ExportedProgram, tiles: Tiles, dot: Dot) -> tvm.IRModule:
    """Convert a program of `graph.export` to a Relax module with the function ``main``.

    Linear layers and the patch embedding become generated matrix products, with norms, biases and residuals inside
    them; scans and convolutions become calls of the native kernels by name. TVM does the rest, such as adding positions
    and reordering tokens.

    Args:
        program: The exported program, quantised or not.
        tiles: The register tiles of the matrix products.
        dot: The instruction of the int8 products.
    """
    module = CpuConverters(program, tiles, dot).convert()
    return relax.transform.DeadCodeElimination(["main"])(module)  # the norms and sums that are in the products now


def products(program: ExportedProgram, tiles: Tiles, dot: Dot) -> list[Gemm]:
    """Return the matrix products that `to_relax` makes for a program, each kind once."""
    converters = CpuConverters(program, tiles, dot)
    module = relax.transform.DeadCodeElimination(["main"])(converters.convert())
    used = {function.name_hint for function in module.functions}
    return [gemm for name, gemm in converters.products.items() if name in used]


class CpuConverters(Converters):
    """The converters of one program for CPUs.

    Args:
        program: The exported program.
        tiles: The register tiles of the matrix products.
        dot: The instruction of the int8 products.
    """

    def __init__(self, program: ExportedProgram, tiles: Tiles, dot: Dot) -> None:
        super().__init__(program)
        self.tiles, self.dot = tiles, dot
        self.products: dict[str, Gemm] = {}
        self.granularity = tiles.default.lanes  # so that the last columns fill a vector, too

    def call(self, importer: Any, name: str, make: Callable[[], Any], arguments: list[Any], shape: Any) -> relax.Var:
        """Emit the call of a TIR function with a float32 result; `make` creates the function at its first call."""
        if name not in self.functions:
            self.functions[name] = importer.block_builder.add_func(make(), name)
        result = relax.call_tir(self.functions[name], arguments, out_ty=relax.TensorType(shape, "float32"))
        return importer.block_builder.emit(result)

    def gemm(self, importer: Any, product: Product) -> relax.Var:
        """Emit the call of a generated matrix product, with the norm, the bias and the residual inside it."""
        x, bias, residual = product.x.whole, product.bias, product.residual
        gemm = self._gemm_of(product)
        self.products[gemm.name] = gemm
        *outer, row = sizes(x)
        rows, n = gemm.m, gemm.n
        arguments = [self.reshape(importer, x, (rows, row)), *map(relax.const, gemm.constants(product.weight))]
        arguments += [relax.const(bias)] if bias is not None else []
        arguments += [self.reshape(importer, residual, (rows, n))] if residual is not None else []
        result = self.call(importer, gemm.name, gemm.function, arguments, (rows, n))
        return self.reshape(importer, result, (*outer, n))

    def _gemm_of(self, product: Product) -> Gemm:
        """Return the generated function for a product."""
        *outer, row = sizes(product.x.whole)
        rows, (n, k) = int(np.prod(outer)), product.weight.values.shape
        extra: dict[str, Any] = {
            "epsilon": product.epsilon,
            "bias": product.bias is not None,
            "residual": product.residual is not None,
        }
        extra |= {} if row == k else {"row": row, "first": product.x.first}
        activations = product.weight.activations
        if activations is None:
            return Gemm(rows, n, k, self.tiles.of(rows, n, k), **extra, scaled=product.weight.scales is not None)
        return Int8Gemm(rows, n, k, self.dot.tile, **extra, dot=self.dot, dynamic=isinstance(activations, Dynamic))

    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Emit the call of the native scan in one direction."""
        options = [*_options(node, "reverse"), *_start(node, "mask_diagonal")]
        return self.native(node, importer, "vmp_selective_scan", (0, 1, 3, 4, 6), options)

    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Emit the call of the native scan in both directions."""
        return self.native(node, importer, "vmp_bi_selective_scan", (0, 1, 4, 5, 7), _start(node, "mask_backward"))

    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        """Emit the call of the native causal convolution with SiLU."""
        return self.native(node, importer, "vmp_causal_conv_silu", (0,), _options(node, "reverse"))

    def native(self, node: Node, importer: Any, name: str, wide: tuple[int, ...], options: list[int]) -> relax.Var:
        """Emit the call of an operator of ``runtimes/tvm/src/operators.cpp``.

        Args:
            node: The operator's call in the exported graph.
            importer: TVM's importer.
            name: The name of the native function without ``_with_state``, which it ends in if the node has a state.
            wide: The places of the arguments that may be columns of a wider tensor.
            options: The function's last arguments.

        Returns:
            The result, in the shape of the first argument; with a state the pair of it and of the last state.
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
        results = node.meta["val"]
        with_state = isinstance(results, (tuple, list))
        types = [relax.TensorType(tuple(one.shape), "float32") for one in (results if with_state else [results])]
        call = relax.call_dps_packed(f"{name}_with_state" if with_state else name, arguments, out_ty=types)
        return importer.block_builder.emit(call)


def _options(node: Node, *names: str) -> list[int]:
    """Return options of a call as 0 or 1."""
    return [int(bool(node.kwargs.get(name, False))) for name in names]


def _start(node: Node, mask: str) -> list[int]:
    """Return two options as 0 or 1: whether the state starts at the first input, and the mask."""
    return [int(node.kwargs.get("initial_state", "zero") == "first_input"), *_options(node, mask)]
