"""The delegate for Arm's Ethos-U NPUs, by Vela: int16 activations and int8 weights, all in whole numbers."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from vmp_edge.calibration.quantisation import Recipe, range_options
from vmp_edge.errors import BuildError

from ...emulation.tosa import EMULATOR, Edge, Tosa
from ...target import Target
from . import Delegate, Delegated, lower_whole, require

EXTRA = "ethos-u"
MODULES = (
    "ethosu.vela",
    "tosa_serializer",
    "executorch.backends.arm.quantizer",
    "executorch.backends.arm.ethosu",
)
EDGES = ("quantize_per_tensor",)  # and dequantize_per_tensor, which has the same words in its name
LEAST_SCALE = 2**-24  # ExecuTorch's own least scale, 2^-12, would leave numbers below one with twelve bits


def quantiser(target: Target, recipe: Recipe) -> Any:
    """Return the quantiser that makes all activations int16, with the recipe's ranges, and all weights int8.

    Raises:
        MissingDependencyError: Vela, or a package that it needs, is not installed.
    """
    require(EXTRA, *MODULES)
    from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_a16w8_quantization_config

    from vmp_edge.calibration.observers import RangeObserver

    config = get_symmetric_a16w8_quantization_config()
    # ExecuTorch's own observer, of histograms, is slow
    observer = RangeObserver.with_args(**range_options(recipe), eps=LEAST_SCALE)
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
    arm_quantiser = EthosUQuantizer(_compile_spec(target))
    arm_quantiser.set_global(replace(config, input_activation=activation, output_activation=activation))
    return arm_quantiser


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Compile a program to commands for the NPU that are the whole model.

    Args:
        program: A program quantised by `quantiser`.
        target: The target, with ``accelerator`` (for example ``ethos-u85-256``) and Vela's ``system`` and ``memory``
            among its `Target.options`.
        precision: ``16a8w``.

    Raises:
        MissingDependencyError: Vela, or a package that it needs, is not installed.
        BuildError: Vela cannot compile the model or leaves something to the CPU, or an activation has eight bits.
    """
    require(EXTRA, *MODULES, "tosa_reference_model")
    from executorch.backends.arm.ethosu import EthosUPartitioner

    check_wide(program)
    with tempfile.TemporaryDirectory() as folder:
        spec = _compile_spec(target).dump_intermediate_artifacts_to(folder)
        edge, _ = lower_whole(program, EthosUPartitioner(spec), "Vela", EDGES)
        tosa = (Path(folder) / "out.tosa").read_bytes()  # Vela's input
    emulated = Tosa(tosa, *_edges(edge.exported_program()))
    tools = ("torch", "executorch", "torchao", "ethos-u-vela", "tosa-tools")
    return Delegated(edge.to_executorch().buffer, tools, EMULATOR, emulated.run)


def _compile_spec(target: Target) -> Any:
    """Return ExecuTorch's description of the target for Vela."""
    from executorch.backends.arm.ethosu import EthosUCompileSpec

    options = target.options
    return EthosUCompileSpec(options["accelerator"], options["system"], options["memory"])


def check_wide(program: ExportedProgram) -> None:
    """Check that every activation has at least 16 bits, as eight are too few for the scan.

    Raises:
        BuildError: An activation has fewer bits.
    """
    import torch

    operator = torch.ops.quantized_decomposed.quantize_per_tensor.default
    narrow = [node.name for node in program.graph.find_nodes(op="call_function", target=operator) if _bits(node) < 16]
    if narrow:
        raise BuildError(f"{len(narrow)} activations would have eight bits, {narrow[0]} first; all should have 16")


def _bits(quantise: Any) -> int:
    """Return the bits of the numbers that a quantising node gives."""
    import torch

    return torch.iinfo(quantise.args[5]).bits


def _edges(program: ExportedProgram) -> tuple[Edge, Edge]:
    """Return how the CPU quantises the one input and the one output."""
    edges = []
    for name in ("quantize_per_tensor", "dequantize_per_tensor"):
        (node,) = (node for node in program.graph.nodes if f".{name}." in f".{getattr(node.target, '__name__', '')}")
        scale, zero_point, least, most = node.args[1:5]
        assert zero_point == 0
        edges.append(Edge(float(scale), int(least), int(most), tuple(node.meta["val"].shape)))
    return edges[0], edges[1]


DELEGATE = Delegate(lower, partial(require, EXTRA, *MODULES), quantiser=quantiser)
