"""The conversion of the exported graph to Relax for NVIDIA GPUs.

Products, norms, scans and convolutions, which take all the time, become calls of the hand-written kernels in `kernels`.
TVM generates the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax

from vmp_edge.calibration.quantisation import Recipe

from ..converters import Columns, Converters, Product, inputs, sizes
from . import kernels
from .kernels import Gpu, Operation, Scan, View


def to_relax(program: ExportedProgram, gpu: Gpu, recipe: Recipe | None) -> tuple[tvm.IRModule, list[Operation]]:
    """Convert a program of `graph.export` to a Relax module with the function ``main``, and the kernels that it calls.

    Args:
        program: The exported program.
        gpu: The GPU that the kernels are tuned for.
        recipe: The recipe ``fp16``, or None for float32 throughout. With a recipe, scans, convolutions and the layers
            that the recipe does not leave in float32 take and give float16. These stay float32 whatever it says: the
            stream of tokens that the layers add to, norms, sums inside the kernels, and the scan's A, D, biases and
            states.

    Returns:
        The module, and the operations whose kernels it calls by name.
    """
    converters = CudaConverters(program, gpu, recipe)
    module = relax.transform.DeadCodeElimination(["main"])(converters.convert())
    used = {variable.name_hint for variable in module.get_global_vars()}
    return module, [operation for operation in converters.operations.values() if operation.name in used]


class CudaConverters(Converters):
    """The converters of one program for NVIDIA GPUs.

    Args:
        program: The exported program.
        gpu: The GPU that the kernels are tuned for.
        recipe: The recipe ``fp16`` or None, as for `to_relax`.
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
        self.casts: dict[tuple[relax.Var, str], relax.Var] = {}  # by tensor and dtype
        self.norms: dict[tuple[relax.Var, str], relax.Var] = {}  # by tensor and dtype
        self.flat: dict[relax.Var, relax.Var] = {}  # by tensor (..., K): the rows (M, K) that it is a reshape of

    # ------------------------------------------------------------------------------------------ reading and launching

    def read(self, importer: Any, columns: Columns, dtype: str) -> tuple[relax.Var, View]:
        """Return activations of `dtype` as rows, and the view of the columns in them."""
        x = columns.whole
        if x.ty.dtype != dtype:
            if (x, dtype) not in self.casts:
                self.casts[x, dtype] = importer.block_builder.emit(relax.op.astype(x, dtype))
            x = self.casts[x, dtype]
        return self.rows(importer, x), View(sizes(x)[-1], columns.first)

    def rows(self, importer: Any, x: relax.Var) -> relax.Var:
        """Return x (..., K) as rows (M, K): the rows that it was made of, or a reshape."""
        shape = sizes(x)
        return self.flat[x] if x in self.flat else self.reshape(importer, x, (int(np.prod(shape[:-1])), shape[-1]))

    def unflatten(self, importer: Any, rows: relax.Var, shape: tuple[int, ...]) -> relax.Var:
        """Reshape rows (M, K) to (..., K), and remember the rows."""
        x = self.reshape(importer, rows, shape)
        self.flat[x] = rows
        return x

    def launch(self, importer: Any, key: Any, make: Callable[[str], Operation], arguments: list[Any]) -> relax.Var:
        """Emit an operation's launch and return its first output; `make` creates the operation for a new key."""
        if key not in self.operations:
            self.operations[key] = make(f"vmp_{key[0]}_{len(self.operations)}")
        operation, emit = self.operations[key], importer.block_builder.emit
        if operation.name not in self.functions:
            self.functions[operation.name] = importer.block_builder.add_func(operation.function(), operation.name)
        types = [relax.TensorType(buffer.shape, buffer.dtype) for buffer in operation.outputs]
        result = emit(relax.call_tir(self.functions[operation.name], arguments, out_ty=types))
        return result if len(types) == 1 else emit(relax.TupleGetItem(result, 0))

    # ------------------------------------------------------------------------------------------------- linear layers

    def gemm(self, importer: Any, product: Product) -> relax.Var:
        """Launch the kernel of a product, after that of its norm.

        The result is float32 unless only our kernels read it. Nothing is quantised on GPUs.
        """
        x, weight, bias, residual = product.x, product.weight, product.bias, product.residual
        dtype = str(weight.values.dtype)
        if product.epsilon is None:
            a, view = self.read(importer, x, dtype)
        else:
            a, view = self.normalise(importer, x, product.epsilon, dtype)
        (m, _), (n, k) = sizes(a), weight.values.shape
        out = dtype if product.internal else "float32"
        arguments = [a, relax.const(np.ascontiguousarray(weight.values))]
        arguments += [relax.const(bias)] if bias is not None else []
        arguments += [self.rows(importer, residual)] if residual is not None else []
        extras = tuple(name for name, value in (("bias", bias), ("residual", residual)) if value is not None)
        key = ("gemm", m, n, k, view, dtype, out, *extras)
        y = self.launch(
            importer, key, lambda name: kernels.gemm(name, m, n, view, k, dtype, out, extras, self.gpu), arguments
        )
        return self.unflatten(importer, y, (*sizes(x.whole)[:-1], n))

    def normalise(self, importer: Any, x: Columns, epsilon: float, dtype: str) -> tuple[relax.Var, View]:
        """Launch the norm of `graph.Normalise` over whole rows, and return the rows of `dtype` and their view."""
        if (x.whole, dtype) not in self.norms:
            rows = self.rows(importer, x.whole)
            count, width = sizes(rows)
            key = ("rms", count, width, epsilon, dtype)
            self.norms[x.whole, dtype] = self.launch(
                importer, key, lambda name: kernels.normalise(name, count, width, epsilon, dtype), [rows]
            )
        norm = self.norms[x.whole, dtype]
        return norm, View(sizes(norm)[-1])

    # ------------------------------------------------------------------------------------------ scan and convolution

    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Launch a scan in one direction."""
        x, dt, A, B, C, D, z, dt_bias = (inputs(node) + [None] * 8)[:8]
        return self.scan(
            importer, node, {"x": x, "dt": dt, "B": B, "C": C, "z": z}, {"A": A, "D": D, "dt_bias": dt_bias}
        )

    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        """Launch a scan in both directions."""
        x, dt, A, A_b, B, C, D, z, dt_bias = (inputs(node) + [None] * 9)[:9]
        parameters = {"A": A, "A_b": A_b, "D": D, "dt_bias": dt_bias}
        return self.scan(importer, node, {"x": x, "dt": dt, "B": B, "C": C, "z": z}, parameters)

    def scan(
        self, importer: Any, node: Node, activations: dict[str, Node | None], parameters: dict[str, Node | None]
    ) -> relax.Var:
        """Launch the scan's kernels. Activations and parameters that are None do not exist in the model."""
        sources = {
            name: self.read(importer, self.source(argument, importer), self.dtype)
            for name, argument in activations.items()
            if argument is not None
        }
        present = [name for name, argument in parameters.items() if argument is not None]
        assert activations["x"] is not None and parameters["A"] is not None
        shape = sizes(importer.env[activations["x"]])
        options = node.kwargs
        config = Scan(
            length=shape[-2],
            channels=shape[-1],
            states=sizes(importer.env[parameters["A"]])[-1],
            dtype=self.dtype,
            views=tuple((name, view) for name, (_, view) in sources.items()),
            parameters=tuple(present[1:]),
            reverse=bool(options.get("reverse", False)),
            first_input=options.get("initial_state", "zero") == "first_input",
            mask=bool(options.get("mask_backward", options.get("mask_diagonal", False))),
        )
        arguments = [rows for rows, _ in sources.values()] + [importer.env[parameters[name]] for name in present]
        y = self.launch(importer, ("scan", config), lambda name: config.operation(name, self.gpu), arguments)
        return self.unflatten(importer, y, shape)

    def causal_conv_silu(self, node: Node, importer: Any) -> relax.Var:
        """Launch a causal convolution with SiLU."""
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
        return self.unflatten(importer, y, shape)
