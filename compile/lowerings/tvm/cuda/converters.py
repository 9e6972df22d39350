"""From the exported graph to Relax for NVIDIA GPUs: hand-written kernels for all that takes time, TVM for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax

from vmp_edge.calibration.quantisation import Recipe

from ....graph.pt2e import Array, Weight
from ..converters import Columns, Converters, inputs, sizes
from . import kernels
from .kernels import Gpu, Operation, Scan, View


def to_relax(program: ExportedProgram, gpu: Gpu, recipe: Recipe | None) -> tuple[tvm.IRModule, list[Operation]]:
    """A program of `graph.export` as a Relax module whose function is ``main``, and its kernels.

    Args:
        program: what was exported.
        gpu: what the kernels are tuned for.
        recipe: ``fp16``: layers that it does not leave in float32, scans and convolutions take and give float16. The
            stream of tokens that the layers add to, norms, sums inside the kernels and the scan's A, D, biases and
            states are float32 whatever it says. None: everything is float32.

    Returns:
        The module, and the operations whose kernels it calls by name.
    """
    converters = CudaConverters(program, gpu, recipe)
    module = relax.transform.DeadCodeElimination(["main"])(converters.convert())
    used = {variable.name_hint for variable in module.get_global_vars()}
    return module, [operation for operation in converters.operations.values() if operation.name in used]


class CudaConverters(Converters):
    """Converters of one program.

    Args:
        program: what was exported.
        gpu: what the kernels are tuned for.
        recipe: see `to_relax`.
    """

    def __init__(self, program: ExportedProgram, gpu: Gpu, recipe: Recipe | None) -> None:
        super().__init__(program)
        self.gpu, self.dtype = gpu, "float32" if recipe is None else "float16"
        if recipe is not None:
            names = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs}
            for layer, weight in self.weights.items():
                if not recipe.stays(names[inputs(layer)[1].name]):
                    self.weights[layer] = weight.in_float16()
        self.operations: dict[Any, Operation] = {}
        self.cast: dict[tuple[relax.Var, str], relax.Var] = {}
        self.normal: dict[tuple[relax.Var, str], relax.Var] = {}
        self.flat: dict[relax.Var, relax.Var] = {}  # (..., K) and the rows that it was made of

    # ------------------------------------------------------------------------------------------ reading and launching

    def read(self, importer: Any, columns: Columns, dtype: str) -> tuple[relax.Var, View]:
        """Activations of `dtype` as rows, and where in them they are."""
        x = columns.whole
        if x.ty.dtype != dtype:
            if (x, dtype) not in self.cast:
                self.cast[x, dtype] = importer.block_builder.emit(relax.op.astype(x, dtype))
            x = self.cast[x, dtype]
        return self.rows(importer, x), View(sizes(x)[-1], columns.first)

    def rows(self, importer: Any, x: relax.Var) -> relax.Var:
        """x (..., K) as (rows, K): what it was made of, if it was."""
        shape = sizes(x)
        return self.flat[x] if x in self.flat else self.reshape(importer, x, (int(np.prod(shape[:-1])), shape[-1]))

    def shaped(self, importer: Any, rows: relax.Var, shape: tuple[int, ...]) -> relax.Var:
        """(rows, K) as (..., K)."""
        x = self.reshape(importer, rows, shape)
        self.flat[x] = rows
        return x

    def launch(self, importer: Any, key: Any, make: Callable[[str], Operation], arguments: list[Any]) -> relax.Var:
        """Call an operation, made when its key is first seen; its first output."""
        if key not in self.operations:
            self.operations[key] = make(f"vmp_{key[0]}_{len(self.operations)}")
        operation, emit = self.operations[key], importer.block_builder.emit
        if operation.name not in self.functions:
            self.functions[operation.name] = importer.block_builder.add_func(operation.function(), operation.name)
        types = [relax.TensorType(buffer.shape, buffer.dtype) for buffer in operation.outputs]
        result = emit(relax.call_tir(self.functions[operation.name], arguments, out_ty=types))
        return result if len(types) == 1 else emit(relax.TupleGetItem(result, 0))

    # ------------------------------------------------------------------------------------------------- linear layers

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
        """As `Converters.gemm`; gives float32 unless only our kernels read it. Nothing is quantised here."""
        dtype = str(weight.values.dtype)
        a, view = self.read(importer, x, dtype) if epsilon is None else self.normalise(importer, x, epsilon, dtype)
        (m, _), (n, k) = sizes(a), weight.values.shape
        out = dtype if internal else "float32"
        arguments = [a, relax.const(np.ascontiguousarray(weight.values))]
        arguments += [relax.const(bias)] if bias is not None else []
        arguments += [self.rows(importer, residual)] if residual is not None else []
        extras = tuple(name for name, given in (("bias", bias), ("residual", residual)) if given is not None)
        key = ("gemm", m, n, k, view, dtype, out, *extras)
        y = self.launch(
            importer, key, lambda name: kernels.gemm(name, m, n, view, k, dtype, out, extras, self.gpu), arguments
        )
        return self.shaped(importer, y, (*sizes(x.whole)[:-1], n))

    def normalise(self, importer: Any, x: Columns, epsilon: float, dtype: str) -> tuple[relax.Var, View]:
        """What `graph.Normalise` computes of whole rows, as rows of `dtype`."""
        if (x.whole, dtype) not in self.normal:
            rows = self.rows(importer, x.whole)
            count, width = sizes(rows)
            key = ("rms", count, width, epsilon, dtype)
            self.normal[x.whole, dtype] = self.launch(
                importer, key, lambda name: kernels.normalise(name, count, width, epsilon, dtype), [rows]
            )
        normal = self.normal[x.whole, dtype]
        return normal, View(sizes(normal)[-1])

    # ------------------------------------------------------------------------------------------ scan and convolution

    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """As `Converters.selective_scan`."""
        x, dt, A, B, C, D, z, dt_bias = (inputs(node) + [None] * 8)[:8]
        return self.scan(
            importer, node, {"x": x, "dt": dt, "B": B, "C": C, "z": z}, {"A": A, "D": D, "dt_bias": dt_bias}
        )

    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """As `Converters.bi_selective_scan`."""
        x, dt, A, A_b, B, C, D, z, dt_bias = (inputs(node) + [None] * 9)[:9]
        parameters = {"A": A, "A_b": A_b, "D": D, "dt_bias": dt_bias}
        return self.scan(importer, node, {"x": x, "dt": dt, "B": B, "C": C, "z": z}, parameters)

    def scan(
        self, importer: Any, node: Node, activations: dict[str, Node | None], parameters: dict[str, Node | None]
    ) -> relax.Var:
        """Launch the scan's kernels; arguments that are None are not there."""
        given_activations = {name: source for name, source in activations.items() if source is not None}
        read = {
            name: self.read(importer, self.source(source, importer), self.dtype)
            for name, source in given_activations.items()
        }
        given = [name for name, source in parameters.items() if source is not None]
        assert activations["x"] is not None and parameters["A"] is not None
        shape = sizes(importer.env[activations["x"]])
        options = node.kwargs
        config = Scan(
            length=shape[-2],
            channels=shape[-1],
            states=sizes(importer.env[parameters["A"]])[-1],
            dtype=self.dtype,
            views=tuple((name, view) for name, (_, view) in read.items()),
            given=tuple(given[1:]),
            reverse=bool(options.get("reverse", False)),
            first_input=options.get("initial_state", "zero") == "first_input",
            mask=bool(options.get("mask_backward", options.get("mask_diagonal", False))),
        )
        arguments = [rows for rows, _ in read.values()] + [importer.env[parameters[name]] for name in given]
        y = self.launch(importer, ("scan", config), lambda name: config.operation(name, self.gpu), arguments)
        return self.shaped(importer, y, shape)

    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        """As `Converters.causal_conv_silu`."""
        source, weight, bias = inputs(node)[:3]
        x, view = self.read(importer, self.source(source, importer), self.dtype)
        shape = sizes(importer.env[source])
        reverse = bool(node.kwargs.get("reverse", False))
        width = sizes(importer.env[weight])[-1]
        key = ("conv", shape[-2], shape[-1], view, width, bias is not None, reverse)
        arguments = [x, importer.env[weight], *([importer.env[bias]] if bias is not None else [])]
        y = self.launch(
            importer,
            key,
            lambda name: kernels.conv(name, shape[-2], shape[-1], view, width, bias is not None, reverse, self.dtype),
            arguments,
        )
        return self.shaped(importer, y, shape)
