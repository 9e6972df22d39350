"""From the exported graph to Relax for NVIDIA GPUs: hand-written kernels for all that takes time, TVM for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from torch.export import ExportedProgram
from torch.fx import Node
from tvm import relax

from vmp_edge.compile.converters import Converters, inputs, is_call, normalised, sizes
from vmp_edge.compile.cuda import kernels
from vmp_edge.compile.cuda.kernels import Gpu, Operation, Scan, View

Array = npt.NDArray[np.floating[Any]]
READERS = ("linear.default", "selective_scan.default", "bi_selective_scan.default", "causal_conv_silu.default")


def to_relax(program: ExportedProgram, gpu: Gpu, dtype: str) -> tuple[tvm.IRModule, list[Operation]]:
    """A program of `graph.export` as a Relax module whose function is ``main``, and its kernels.

    Activations between kernels are of `dtype`; the stream of tokens that the layers add to, sums inside the kernels and
    the scan's states are float32.

    Args:
        program: what was exported.
        gpu: what the kernels are tuned for.
        dtype: ``float32`` or ``float16``.

    Returns:
        The module, and the operations whose kernels it calls by name.
    """
    converters = CudaConverters(program, gpu, dtype)
    module = relax.transform.DeadCodeElimination(["main"])(converters.convert())
    used = {variable.name_hint for variable in module.get_global_vars()}
    return module, [operation for operation in converters.operations.values() if operation.name in used]


class CudaConverters(Converters):
    """Converters of one program."""

    def __init__(self, program: ExportedProgram, gpu: Gpu, dtype: str) -> None:
        super().__init__(program, None)
        self.gpu, self.dtype = gpu, dtype
        self.operations: dict[Any, Operation] = {}
        self.columns: dict[Node, tuple[relax.Var, View]] = {}  # nodes that are columns of a wider product
        self.cast: dict[Node, relax.Var] = {}
        self.normal: dict[Node, relax.Var] = {}
        self.flat: dict[relax.Var, relax.Var] = {}  # (..., K) and the rows that it was made of

    # ------------------------------------------------------------------------------------------ reading and launching

    def read(self, importer: Any, node: Node) -> tuple[relax.Var, View]:
        """A node's activations of `dtype` as rows, and where in them they are."""
        if node in self.columns:
            return self.columns[node]
        x = importer.env[node]
        if x.ty.dtype != self.dtype:
            if node not in self.cast:
                self.cast[node] = importer.block_builder.emit(relax.op.astype(x, self.dtype))
            x = self.cast[node]
        return self.rows(importer, x), View(sizes(x)[-1])

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

    def linear(self, node: Node, importer: Any, residual: relax.Var | None = None) -> relax.Var:
        """A product; layers without a bias that read the same activations are one product, each with its columns."""
        source, weight, *rest = inputs(node)
        bias = self.parameters[rest[0].name] if rest and rest[0] is not None else None
        together = [user for user in source.users if is_call(user, "linear.default") and len(user.args) == 2]
        if residual is not None or bias is not None or len(together) < 2 or node not in together:
            return self.one_linear(importer, node, self.parameters[weight.name], bias, residual)
        if node not in self.columns:
            weights = [self.parameters[inputs(user)[1].name] for user in together]
            wide = self.one_linear(importer, node, np.concatenate(weights), None, None, self.dtype)
            wide, offset = self.rows(importer, wide), 0
            for user, each in zip(together, weights, strict=True):
                self.columns[user] = (wide, View(sizes(wide)[-1], offset))
                offset += len(each)
        wide, view = self.columns[node]
        width = len(self.parameters[weight.name])
        emit = importer.block_builder.emit  # for readers that are not ours, and gone if there are none
        cut = emit(relax.op.strided_slice(wide, [1], [view.offset], [view.offset + width]))
        return self.shaped(importer, cut, (*sizes(importer.env[source])[:-1], width))

    def one_linear(
        self,
        importer: Any,
        node: Node,
        weight: Array,
        bias: Array | None,
        residual: relax.Var | None,
        out: str | None = None,
    ) -> relax.Var:
        """x @ weight^T [+ bias] [+ residual] of a linear node's x; in float32 unless only our kernels read it."""
        source = inputs(node)[0]
        x, view = self.normalise(importer, source) if normalised(source) else self.read(importer, source)
        if out is None:
            ours = all(is_call(user, reader) for user in node.users for reader in [_reader(user)])
            out = self.dtype if ours and residual is None else "float32"
        shape = (*sizes(importer.env[source])[:-1], len(weight))
        return self.shaped(importer, self.product(importer, x, view, weight, bias, residual, out), shape)

    def product(
        self,
        importer: Any,
        x: relax.Var,
        view: View,
        weight: Array,
        bias: Array | None,
        residual: relax.Var | None,
        out: str,
    ) -> relax.Var:
        """x[view] @ weight^T [+ bias] [+ residual] as (rows, N)."""
        (m, _), (n, k) = sizes(x), weight.shape
        arguments = [x, relax.const(np.ascontiguousarray(weight.astype(self.dtype)))]
        arguments += [relax.const(bias)] if bias is not None else []
        arguments += [self.rows(importer, residual)] if residual is not None else []
        extras = [name for name, given in (("bias", bias), ("residual", residual)) if given is not None]
        key = ("gemm", m, n, view, k, out, *extras)
        return self.launch(
            importer, key, lambda name: kernels.gemm(name, m, n, view, k, self.dtype, out, extras, self.gpu), arguments
        )

    def normalise(self, importer: Any, node: Node) -> tuple[relax.Var, View]:
        """What `graph.Normalise` computes, as rows of `dtype`."""
        found = normalised(node)
        assert found is not None
        if node not in self.normal:
            x = self.rows(importer, importer.env[found[0]])
            rows, width = sizes(x)
            key = ("rms", rows, width, found[1])
            self.normal[node] = self.launch(
                importer, key, lambda name: kernels.normalise(name, rows, width, found[1], self.dtype), [x]
            )
        return self.normal[node], View(sizes(self.normal[node])[-1])

    def gemm(self, importer: Any, x: relax.Var, weight: Array, bias: Array | None = None, **_: Any) -> relax.Var:
        """The patch embedding's product, in float32."""
        shape = sizes(x)
        x = importer.block_builder.emit(relax.op.astype(x, self.dtype)) if self.dtype != "float32" else x
        x = self.rows(importer, x)
        product = self.product(importer, x, View(shape[-1]), weight, bias, None, "float32")
        return self.shaped(importer, product, (*shape[:-1], len(weight)))

    # ------------------------------------------------------------------------------------------ scan and convolution

    def selective_scan(self, node: Node, importer: Any) -> relax.Var:
        x, dt, A, B, C, D, z, dt_bias = (inputs(node) + [None] * 8)[:8]
        return self.scan(importer, node, {"x": x, "dt": dt, "B": B, "C": C, "z": z}, {"A": A, "D": D, "dt_bias": dt_bias})

    def bi_selective_scan(self, node: Node, importer: Any) -> relax.Var:
        x, dt, A, A_b, B, C, D, z, dt_bias = (inputs(node) + [None] * 9)[:9]
        parameters = {"A": A, "A_b": A_b, "D": D, "dt_bias": dt_bias}
        return self.scan(importer, node, {"x": x, "dt": dt, "B": B, "C": C, "z": z}, parameters)

    def scan(
        self, importer: Any, node: Node, activations: dict[str, Node | None], parameters: dict[str, Node | None]
    ) -> relax.Var:
        """Launch the scan's kernels; arguments that are None are not there."""
        read = {name: self.read(importer, source) for name, source in activations.items() if source is not None}
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
        source, weight, bias = inputs(node)[:3]
        (x, view), shape = self.read(importer, source), sizes(importer.env[source])
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


def _reader(node: Node) -> str:
    return next((name for name in READERS if is_call(node, name)), "")
