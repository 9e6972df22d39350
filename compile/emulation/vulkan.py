"""Run the graphs of ExecuTorch's Vulkan delegate with PyTorch, as ExecuTorch's wheel has no Vulkan.

This runs what the file says, operator by operator. It does not tell how a GPU's shaders round, or whether they are
right. The format is ExecuTorch's ``schema.fbs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vmp_edge.errors import BuildError

from ..lowerings.delegates import quiet

PREPACK = "et_vk.prepack.default"  # writes a constant into a texture
COPIES = (PREPACK, "aten.clone.default")
OPERATORS = (  # arithmetic and copies
    *COPIES, "aten.add.Tensor", "aten.cat.default", "aten.constant_pad_nd.default", "aten.exp.default",
    "aten.expand_copy.default", "aten.linear.default", "aten.mul.Tensor", "aten.permute_copy.default",
    "aten.relu.default", "aten.rsqrt.default", "aten.select_copy.int", "aten.sigmoid.default", "aten.slice_copy.Tensor",
    "aten.squeeze_copy.dims", "aten.sub.Tensor", "aten.sum.dim_IntList", "aten.unsqueeze_copy.default",
    "aten.view_copy.default",
)  # fmt: skip


class Graph:
    """A Vulkan graph as ExecuTorch serialises it.

    Args:
        blob: The delegate's part of a ``.pte``.
        constants: The bytes of the constants by their names in the graph.
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
        """Check that the graph is float32 throughout, and has arithmetic and copies alone.

        Raises:
            BuildError: It has something else; the text names it.
        """
        unknown = sorted({call.name for call in self.graph.chain} - set(OPERATORS))
        if unknown:
            raise BuildError(f"the Vulkan graph has {', '.join(unknown)}, which nobody has checked")
        types = {value.datatype.name for value in self.values if hasattr(value, "datatype")}
        if types != {"FLOAT32"}:
            raise BuildError(f"the Vulkan graph computes in {', '.join(sorted(types))}, not in float32 alone")

    def run(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the graph's one output for its one input.

        Raises:
            BuildError: An operator reads memory that another one has overwritten, or gives a wrong shape.
        """
        (source,), (result,) = self.graph.input_ids, self.graph.output_ids
        results = {**self.constants, source: torch.from_numpy(frames)}
        owners: dict[int, int] = {}  # for each memory object, the value that is in it
        for call in self.graph.chain:
            *arguments, target = call.args
            value = _compute(call.name, [self._argument(index, results, owners) for index in arguments])
            declared = self.values[target]
            if list(value.shape) != list(declared.dims):
                raise BuildError(f"the Vulkan graph's {call.name} gives {list(value.shape)}, declared {declared.dims}")
            results[target] = value
            owners[declared.mem_obj_id] = target
        output: npt.NDArray[np.float32] = self._argument(result, results, owners).numpy()
        return output

    def _argument(self, index: int, results: Mapping[int, Tensor], owners: Mapping[int, int]) -> Any:
        """Return the tensor, the list or the number that a value of the graph stands for."""
        value = self.values[index]
        kind = type(value).__name__
        if kind == "ValueList":
            return [self._argument(item, results, owners) for item in value.items]
        if kind == "VkTensor":
            if value.mem_obj_id >= 0 and owners.get(value.mem_obj_id, index) != index:
                raise BuildError(f"the Vulkan graph reads value {index} after its memory was given to another")
            return results[index]
        fields = list(vars(value).values())
        return fields[0] if fields else None


def _compute(name: str, values: list[Any]) -> Tensor:
    """Compute an operator of the graph with PyTorch's operator of the same name."""
    if name in COPIES:
        copied: Tensor = values[0]
        return copied
    namespace, operator, overload = name.split(".")
    function = getattr(getattr(getattr(torch.ops, namespace), operator), overload)
    arguments, keywords = [], {}
    for argument, value in zip(function._schema.arguments, values, strict=True):
        # the graph does not tell 0 from 0.0
        number = int(value) if isinstance(value, float) and "int" in str(argument.type).lower() else value
        if argument.kwarg_only:
            keywords[argument.name] = number
        else:
            arguments.append(number)
    computed: Tensor = function(*arguments, **keywords)
    return computed
