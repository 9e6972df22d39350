"""The delegate for Arm's GPUs with neural accelerators, and others with the ML extensions for Vulkan: a VGF file."""

from __future__ import annotations

import os
from functools import partial

from torch.export import ExportedProgram

from ...emulation.vgf import EMULATOR, EXTRA, Scenario, binary, environment
from ...target import Target
from . import Delegate, Delegated, lower_whole, require

__all__ = ["DELEGATE", "environment", "lower"]
MODULES = ("model_converter", "tosa_serializer", "executorch.backends.arm.vgf")


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Compile a program to a VGF file that is the whole model.

    Args:
        program: A program of ordinary operations.
        target: The target.
        precision: ``fp32``.

    Raises:
        MissingDependencyError: Arm's converter is not installed.
        BuildError: The converter cannot compile the model, or not all of it.
    """
    require(EXTRA, *MODULES)
    from executorch.backends.arm.vgf import VgfCompileSpec, VgfPartitioner

    os.environ.setdefault("MODEL_CONVERTER_PATH", str(binary("model_converter", "model-converter")))
    edge, lowered = lower_whole(program, VgfPartitioner(VgfCompileSpec()), "VGF")
    tools = ("torch", "executorch", "tosa-tools", "ai_ml_sdk_model_converter")
    (output,) = program.graph_module.graph.output_node().args[0]  # type: ignore[misc]
    scenario = Scenario(lowered.processed_bytes, tuple(output.meta["val"].shape))
    return Delegated(edge.to_executorch().buffer, tools, EMULATOR, scenario.run, environment)


DELEGATE = Delegate(lower, partial(require, EXTRA, *MODULES))
