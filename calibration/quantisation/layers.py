"""The layers of a program: finding them, and recording values while the program runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from ..decoding import Progress

LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)


def layers(module: GraphModule) -> Iterator[tuple[str, Node]]:
    """Yield name and node of every linear layer and convolution of a program's module, in its order."""
    for node in module.graph.nodes:
        if node.target in LAYERS:
            weight = node.args[1]
            yield str(weight.target).removesuffix(".weight"), node


def input_of(layer: Node) -> Node:
    """Return the node whose value a layer takes as its input."""
    return layer.all_input_nodes[0]


def progress_over(inputs: Sequence[Tensor], description: str, progress: Progress | None) -> Sequence[Tensor]:
    """Return the inputs wrapped in a progress bar, or as they are if there is none to show."""
    if not progress or not inputs:
        return inputs
    bar: Sequence[Tensor] = progress(inputs, total=len(inputs), desc=description, unit="clip")
    return bar


class Recorder(Interpreter):
    """Run a program's module and record the values of some nodes.

    Args:
        module: The program's module.
        nodes: The nodes to record.
        record: Called with each of these nodes and its value.
    """

    def __init__(self, module: GraphModule, nodes: Sequence[Node], record: Callable[[Node, Tensor], None]) -> None:
        super().__init__(module)
        self.nodes, self.record = set(nodes), record

    def run_node(self, n: Node) -> Any:
        """Run a node like `Interpreter`, and record its value."""
        result = super().run_node(n)
        if n in self.nodes:
            self.record(n, result)
        return result
