"""Measure the bytes of a model's weights by precision, for `quantisation.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cases import frames, tiny

from vmp_edge.calibration import quantisation
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowerings.tvm import lowering as tvm


def weights_table(precisions: Sequence[str]) -> list[str]:
    """Return rows by precision: bytes of the layers' weights with their scales, and of all that TVM's program holds."""
    case = next(tiny(1))
    program = graph.export(case.model)
    recipes = {"fp32": None, **{name: quantisation.load(name) for name in precisions}}
    sizes: dict[str, tuple[int, int]] = {}
    for name, recipe in recipes.items():
        calibration = [frames(case, video[None]) for video in case.calibration]
        variant = program if recipe is None else quantisation.quantise(program, recipe, calibration)
        sizes[name] = sum(layer_weights(variant).values()), sum(tvm_constants(variant, name))
    rows = ["| precision | layers' weights, MB | of fp32 | all that TVM holds, MB | of fp32 |", "|---" * 5 + "|"]
    for name, both in sizes.items():
        cells = (f"{size / 1e6:.2f} | {size / whole:.1%}" for size, whole in zip(both, sizes["fp32"], strict=True))
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def layer_weights(program: Any) -> dict[str, int]:
    """Return the bytes of each linear layer's and convolution's weight, including the scales of int8 weights."""
    module = program.module(check_guards=False)
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    weights = (node.args[1] for node in module.graph.nodes if node.target in quantisation.LAYERS)
    parts = (part for weight in weights for part in ([weight] if weight.op == "get_attr" else weight.args[:2]))
    return {part.target: tensors[part.target].nbytes for part in parts}


def tvm_constants(program: Any, precision: str) -> Iterator[int]:
    """Yield the bytes of each tensor in TVM's form of a program, before it becomes machine code."""
    from tvm import ir, relax

    from vmp_edge.compile.lowerings.tvm import cpu, tuning
    from vmp_edge.compile.lowerings.tvm.gemm_int8 import DOTS

    kind = tvm.resolve(target.load("host"), precision)
    module = cpu.to_relax(program, tuning.load(kind), DOTS[kind.simd])
    expressions: list[Any] = []
    relax.analysis.post_order_visit(module["main"], expressions.append)
    yield from (item.value.numpy().nbytes for item in expressions if isinstance(item, ir.expr.GenericConst))
