"""GPUs of Android phones by ExecuTorch's Vulkan delegate, and its graphs run by PyTorch: its wheel has no Vulkan.

What is run is what the file says, operator by operator; how a GPU's shaders round, and whether they are right, it
does not tell. The format is ExecuTorch's ``schema.fbs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.export import ExportedProgram

from vmp_edge.errors import BuildError

from ...target import Target
from . import Delegate, Delegated, lower_whole, quiet, require

PARTITIONER = "executorch.backends.vulkan.partitioner.vulkan_partitioner"
PREPACK = "et_vk.prepack.default"  # writes a constant into a texture
COPIES = (PREPACK, "aten.clone.default")
OPERATORS = (  # arithmetic and copies
    *COPIES, "aten.add.Tensor", "aten.cat.default", "aten.constant_pad_nd.default", "aten.exp.default",
    "aten.expand_copy.default", "aten.linear.default", "aten.mul.Tensor", "aten.permute_copy.default",
    "aten.relu.default", "aten.rsqrt.default", "aten.select_copy.int", "aten.sigmoid.default", "aten.slice_copy.Tensor",
    "aten.squeeze_copy.dims", "aten.sub.Tensor", "aten.sum.dim_IntList", "aten.unsqueeze_copy.default",
    "aten.view_copy.default",
)  # fmt: skip


def lower(program: ExportedProgram, target: Target, precision: str) -> Delegated:
    """A Vulkan graph that is the whole model.

    Args:
        program: of ordinary operations.
        target: the target.
        precision: fp32.

    Raises:
        MissingDependencyError: executorch is not installed.
        BuildError: it cannot compile the model, or something in the graph is not what it should be.
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


class Graph:
    """A Vulkan graph as ExecuTorch serialises it.

    Args:
        blob: the delegate's part of a ``.pte``.
        constants: bytes of the constants, by the names that the graph has for them.
    """

    def __init__(self, blob: bytes, constants: Mapping[str, bytes]) -> None:
        from executorch.backends.vulkan.serialization import vulkan_graph_serialize as serialize

        with quiet():
            self.graph = serialize.flatbuffer_to_vk_graph(serialize.extract_vk_flatbuffer(blob))
        self.values = [entry.value for entry in self.graph.values]
        self.constants = {
            index: self._constant(value, constants)
            for index, value in enumerate(self.values)
            if getattr(value, "constant_id", -1) >= 0
        }

    def _constant(self, value: Any, constants: Mapping[str, bytes]) -> Tensor:
        content = constants[self.graph.constants[value.constant_id].named_key]
        return torch.frombuffer(bytearray(content), dtype=torch.float32).reshape(value.dims)

    def check(self) -> None:
        """Whether the graph is float32 throughout, and arithmetic and copies alone.

        Raises:
            BuildError: it is not; the text names what is there.
        """
        unknown = sorted({call.name for call in self.graph.chain} - set(OPERATORS))
        if unknown:
            raise BuildError(f"the Vulkan graph has {', '.join(unknown)}, which nobody has checked")
        types = {value.datatype.name for value in self.values if hasattr(value, "datatype")}
        if types != {"FLOAT32"}:
            raise BuildError(f"the Vulkan graph computes in {', '.join(sorted(types))}, not in float32 alone")

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The graph's one output of its one input.

        Raises:
            BuildError: an operator reads memory that another has written to since, or gives another shape.
        """
        (source,), (result,) = self.graph.input_ids, self.graph.output_ids
        results = {**self.constants, source: torch.from_numpy(frames)}
        holds: dict[int, int] = {}  # by memory object, whose numbers are in it
        for call in self.graph.chain:
            *arguments, target = call.args
            given = [self._argument(index, results, holds) for index in arguments]
            value = _compute(call.name, given)
            wanted = self.values[target]
            if list(value.shape) != list(wanted.dims):
                raise BuildError(f"the Vulkan graph's {call.name} gives {list(value.shape)}, declared {wanted.dims}")
            results[target] = value
            holds[wanted.mem_obj_id] = target
        output: npt.NDArray[np.float32] = self._argument(result, results, holds).numpy()
        return output

    def _argument(self, index: int, results: Mapping[int, Tensor], holds: Mapping[int, int]) -> Any:
        value = self.values[index]
        kind = type(value).__name__
        if kind == "ValueList":
            return [self._argument(item, results, holds) for item in value.items]
        if kind == "VkTensor":
            if value.mem_obj_id >= 0 and holds.get(value.mem_obj_id, index) != index:
                raise BuildError(f"the Vulkan graph reads value {index} after its memory was given to another")
            return results[index]
        fields = list(vars(value).values())
        return fields[0] if fields else None


def _compute(name: str, given: list[Any]) -> Tensor:
    if name in COPIES:
        copied: Tensor = given[0]
        return copied
    namespace, operator, overload = name.split(".")
    function = getattr(getattr(getattr(torch.ops, namespace), operator), overload)
    expected = function._schema.arguments
    arguments, named = [], {}
    for argument, value in zip(expected, given, strict=True):
        # the graph does not tell 0 from 0.0
        fitting = int(value) if isinstance(value, float) and "int" in str(argument.type).lower() else value
        if argument.kwarg_only:
            named[argument.name] = fitting
        else:
            arguments.append(fitting)
    computed: Tensor = function(*arguments, **named)
    return computed


DELEGATE = Delegate(lower, partial(require, "compile", PARTITIONER))
