"""Fixed ranges of activations, learnt from clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from vmp_edge.errors import MissingDependencyError
from vmp_edge.installation import install_command
from vmp_edge.progress import part

from .layers import Recorder, input_of, layers
from .recipe import STATIC, Recipe

EPS = 2**-12  # least scale, XNNPACK's
INT8: dict[str, Any] = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}


def import_torchao() -> Any:
    """Import torchao's module ``quantize_pt2e`` without the log lines that it and PyTorch write.

    Raises:
        MissingDependencyError: torchao is not installed.
    """
    for name in ("torchao", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from torchao.quantization.pt2e import quantize_pt2e
    except ImportError as error:
        raise MissingDependencyError(
            f"quantising needs {error.name}, which is not installed; run: {install_command('compile')}"
        ) from error
    return quantize_pt2e


def range_options(recipe: Recipe) -> dict[str, Any]:
    """Return the options of `RangeObserver` that a recipe sets, for the inputs of static layers."""
    return {"ranges": recipe.ranges, "percentile": recipe.percentile, "headroom": recipe.headroom}


def int8_range_options(recipe: Recipe, ranges: str) -> dict[str, Any]:
    """Return the options of an int8 tensor's `RangeObserver`.

    Args:
        recipe: Sets percentile and headroom.
        ranges: The recipe's ``ranges`` for an input, its ``outputs`` for an output.
    """
    return {**range_options(recipe), "ranges": ranges, "eps": EPS}


def static_ranges(module: GraphModule, recipe: Recipe, inputs: Sequence[Tensor]) -> dict[Node, tuple[float, int]]:
    """Choose the fixed ranges that a recipe asks for: of static layers' inputs and outputs.

    Args:
        module: A float program's module.
        recipe: See `Recipe`.
        inputs: The program's inputs from which the ranges are learnt.

    Returns:
        Scale and zero point by node.

    Raises:
        MissingDependencyError: torchao is not installed.
    """
    import_torchao()
    from ..observers import RangeObserver

    static = [node for name, node in layers(module) if recipe.kind(name) == STATIC]
    rules = {input_of(layer): recipe.ranges for layer in static}
    rules |= {layer: recipe.outputs for layer in static if recipe.outputs}
    observers = {node: RangeObserver(**int8_range_options(recipe, rule), **INT8) for node, rule in rules.items()}
    recorder = Recorder(module, list(observers), lambda node, value: observers[node](value))
    with torch.no_grad(), part("find the ranges", len(inputs), "clips") as step:
        for tensor in inputs if observers else ():
            recorder.run(tensor)
            step.advance()
    ranges = {node: observer.calculate_qparams() for node, observer in observers.items()}
    return {node: (float(scale), int(zero_point)) for node, (scale, zero_point) in ranges.items()}
