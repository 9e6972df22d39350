"""Arm's Ethos-U NPUs, by Vela: int16 activations and int8 weights, and all in whole numbers."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from vmp_edge.calibration.quantisation import Recipe, range_options
from vmp_edge.errors import BuildError

from ...target import Target
from . import Array, Delegate, Delegated, lower_whole, require

EXTRA = "ethos-u"
MODULES = (
    "ethosu.vela",
    "tosa_serializer",
    "executorch.backends.arm.quantizer",
    "executorch.backends.arm.ethosu",
)
EMULATOR = "Arm's TOSA reference model"
EDGES = ("quantize_per_tensor",)  # and dequantize_per_tensor
LEAST_SCALE = 2**-24  # ExecuTorch's own, 2^-12, would leave numbers below one with twelve bits


def quantiser(target: Target, recipe: Recipe) -> Any:
    """What marks all activations for int16, with a recipe's ranges, and all weights for int8.

    Raises:
        MissingDependencyError: Vela, or what it takes, is not installed.
    """
    require(EXTRA, *MODULES)
    from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_a16w8_quantization_config

    from vmp_edge.calibration.observers import RangeObserver

    config = get_symmetric_a16w8_quantization_config()
    # ExecuTorch's observer, of histograms, is slow
    observer = RangeObserver.with_args(**range_options(recipe), eps=LEAST_SCALE)
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=observer)
    chosen = EthosUQuantizer(_compile_spec(target))
    chosen.set_global(replace(config, input_activation=activation, output_activation=activation))
    return chosen


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Commands for the NPU that are the whole model.

    Args:
        program: quantised by `quantiser`.
        target: the target, with ``accelerator`` (``ethos-u85-256``, say) and Vela's ``system`` and ``memory`` among its
            `Target.options`.
        precision: 16a8w.

    Raises:
        MissingDependencyError: Vela, or what it takes, is not installed.
        BuildError: it cannot compile the model, or something is left to the CPU, or has eight bits.
    """
    require(EXTRA, *MODULES, "tosa_reference_model")
    from executorch.backends.arm.ethosu import EthosUPartitioner

    check_wide(program)
    with tempfile.TemporaryDirectory() as folder:
        spec = _compile_spec(target).dump_intermediate_artifacts_to(folder)
        edge, _ = lower_whole(program, EthosUPartitioner(spec), "Vela", EDGES)
        tosa = (Path(folder) / "out.tosa").read_bytes()  # what Vela was given
    emulated = Tosa(tosa, *_edges(edge.exported_program()))
    tools = ("torch", "executorch", "torchao", "ethos-u-vela", "tosa-tools")
    return Delegated(edge.to_executorch().buffer, tools, EMULATOR, emulated.run)


def _compile_spec(target: Target) -> Any:
    from executorch.backends.arm.ethosu import EthosUCompileSpec

    options = target.options
    return EthosUCompileSpec(options["accelerator"], options["system"], options["memory"])


def check_wide(program: ExportedProgram) -> None:
    """Whether no activation has fewer than 16 bits.

    Raises:
        BuildError: one has: eight are too few for the scan.
    """
    import torch

    operator = torch.ops.quantized_decomposed.quantize_per_tensor.default
    narrow = [node.name for node in program.graph.find_nodes(op="call_function", target=operator) if _bits(node) < 16]
    if narrow:
        raise BuildError(f"{len(narrow)} activations would have eight bits, {narrow[0]} first; all should have 16")


def _bits(quantise: Any) -> int:
    import torch

    return torch.iinfo(quantise.args[5]).bits


@dataclass(frozen=True)
class Edge:
    """How the CPU quantises what the NPU takes, or what it gives: q = clip(round(x / scale), least, most), int16.

    Attributes:
        scale: of all numbers.
        least, most: of q.
        shape: of the tensor.
    """

    scale: float
    least: int
    most: int
    shape: tuple[int, ...]


def _edges(program: ExportedProgram) -> tuple[Edge, Edge]:
    """Of the one input and of the one output."""
    found = []
    for name in ("quantize_per_tensor", "dequantize_per_tensor"):
        (node,) = (node for node in program.graph.nodes if f".{name}." in f".{getattr(node.target, '__name__', '')}")
        scale, zero_point, least, most = node.args[1:5]
        assert zero_point == 0
        found.append(Edge(float(scale), int(least), int(most), tuple(node.meta["val"].shape)))
    return found[0], found[1]


class Tosa:
    """A TOSA program in whole numbers, as Vela took it, run by Arm's reference model.

    Args:
        program: the flatbuffer.
        given, got: of its input and its output.
    """

    def __init__(self, program: bytes, given: Edge, got: Edge) -> None:
        self.program, self.given, self.got = program, given, got

    def run(self, frames: Array) -> Array:
        """Output of an input, both float32.

        Raises:
            BuildError: the reference model finds something in the program that TOSA does not allow.
        """
        import tosa_reference_model

        given, got = self.given, self.got
        quantised = np.clip(np.round(frames / np.float32(given.scale)), given.least, given.most).astype(np.int16)
        outputs, status = tosa_reference_model.run(
            self.program, [quantised], verbosity="NONE", initialize_variable_tensor_from_numpy=True
        )
        if status != tosa_reference_model.GraphStatus.TOSA_VALID:
            raise BuildError(f"{EMULATOR} does not take the program: {status}")
        values = np.asarray(outputs[0]).reshape(got.shape)
        result: Array = values.astype(np.float32) * np.float32(got.scale)
        return result


DELEGATE = Delegate(lower, partial(require, EXTRA, *MODULES), quantiser=quantiser)
