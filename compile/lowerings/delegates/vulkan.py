"""The delegate for GPUs of Android phones: ExecuTorch's Vulkan delegate."""

from __future__ import annotations

from functools import partial

from torch.export import ExportedProgram

from ...emulation.vulkan import Graph
from ...target import Target
from . import Delegate, Delegated, lower_whole, quiet, require

PARTITIONER = "executorch.backends.vulkan.partitioner.vulkan_partitioner"


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """Compile a program to a Vulkan graph that is the whole model.

    Args:
        program: A program of ordinary operations.
        target: The target.
        precision: ``fp32``.

    Raises:
        MissingDependencyError: executorch is not installed.
        BuildError: ExecuTorch cannot compile the model, or the graph has something that it should not have.
    """
    require("compile", PARTITIONER)
    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

    edge, lowered = lower_whole(program, VulkanPartitioner({"require_dynamic_shapes": False}), "Vulkan")
    data = lowered.named_data_store_output
    constants = {name: data.buffers[entry.buffer_index] for name, entry in data.pte_data.items()}
    graph = Graph(lowered.processed_bytes, constants)
    graph.check()
    emulator = "PyTorch, the Vulkan graph operator by operator"
    with quiet():
        return Delegated(edge.to_executorch().buffer, ("torch", "executorch"), emulator, graph.run)


DELEGATE = Delegate(lower, partial(require, "compile", PARTITIONER))
