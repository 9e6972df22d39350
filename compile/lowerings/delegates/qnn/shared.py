"""Compile a model to several context binaries, of which one is for the scans of all layers.

QNN takes minutes to compile a scan over a thousand tokens, and its graphs cannot call each other. So each kind of scan
is compiled once, with its parameters among its inputs, and so is each part between two scans. ExecuTorch's program
calls the parts one after the other, all on the HTP; the tensors between them lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.passes.split_module import split_module

from .... import graph
from .. import quiet

Inputs = tuple[Tensor, ...]
# A function that compiles a part and returns ExecuTorch's ``EdgeProgramManager`` and its one ``LoweredBackendModule``.
Compile = Callable[[nn.Module, Inputs], tuple[Any, Any]]


def lower(program: ExportedProgram, compile_part: Compile) -> Any:
    """Return ExecuTorch's ``EdgeProgramManager`` of a program that only calls delegates.

    Args:
        program: A program in which scans are single nodes.
        compile_part: Compiles a part whole.

    Raises:
        BuildError: A part cannot be compiled, or not whole.
    """
    from executorch.exir import to_edge

    whole, scans = split(program)
    compiled: dict[Any, CompiledPart] = {}
    for name, inputs in inputs_of(whole, program.example_inputs[0]).items():
        part: Any = whole.get_submodule(name)
        key = kind_of(part, inputs) if name in scans else name
        if key not in compiled:
            compiled[key] = CompiledPart(*compile_part(part, inputs))
        whole.set_submodule(name, compiled[key])
    with quiet():
        return to_edge(torch.export.export(whole, program.example_inputs[0], strict=False))


def split(program: ExportedProgram) -> tuple[GraphModule, set[str]]:
    """Split a program into calls of parts, and return it with the names of the parts that are scans.

    Constants are inside the parts; those of scans are inputs.
    """
    module = program.module(check_guards=False)
    scans = set(graph.scans(module))
    parts: dict[Node, int] = {}
    count = 0
    for node in module.graph.nodes:
        parts[node] = count + (node in scans)
        count += 2 * (node in scans)
    whole = split_module(module, module, parts.__getitem__, keep_original_order=True)
    names = {f"submod_{parts[node]}" for node in scans}
    for call in whole.graph.find_nodes(op="call_module"):
        if call.target not in names:
            _take_in_constants(whole, call)
    whole.graph.eliminate_dead_code()
    whole.recompile()
    return whole, names


def _take_in_constants(whole: GraphModule, call: Node) -> None:
    """Make the parameters that a part gets as inputs constants of the part."""
    part: Any = whole.get_submodule(str(call.target))
    places = part.graph.find_nodes(op="placeholder")
    for argument, place in zip(call.args, places, strict=True):
        if isinstance(argument, Node) and argument.op == "get_attr":
            path, _, name = str(argument.target).rpartition(".")
            value = getattr(whole.get_submodule(path), name)
            part.register_buffer(place.name, value.detach())
            with part.graph.inserting_before(place):
                place.replace_all_uses_with(part.graph.get_attr(place.name))
            part.graph.erase_node(place)
    call.args = tuple(arg for arg in call.args if not (isinstance(arg, Node) and arg.op == "get_attr"))
    part.recompile()


def inputs_of(whole: GraphModule, example: Inputs) -> dict[str, Inputs]:
    """Run a program on an example, and return the inputs of each part by its name, in the order of the run."""
    inputs: dict[str, Inputs] = {}

    class Recorder(Interpreter):
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            inputs[target] = args
            return super().call_module(target, args, kwargs)

    with torch.no_grad():
        Recorder(whole).run(*example)
    return inputs


def kind_of(scan: GraphModule, inputs: Inputs) -> Any:
    """Return a key that is equal for scans that can be one part: the operator, its options and its inputs' shapes."""
    places = scan.graph.find_nodes(op="placeholder")
    (call,) = (node for node in scan.graph.nodes if node.op == "call_function")
    arguments = tuple(places.index(arg) if isinstance(arg, Node) else arg for arg in call.args)
    return call.target, arguments, tuple(sorted(call.kwargs.items())), tuple(tensor.shape for tensor in inputs)


class CompiledPart(nn.Module):
    """A compiled part, which is called like the part itself.

    Args:
        edge: ExecuTorch's ``EdgeProgramManager`` of the part.
        lowered: The ``LoweredBackendModule`` that is called there.
    """

    def __init__(self, edge: Any, lowered: Any) -> None:
        from executorch.exir.delegate import executorch_call_delegate

        super().__init__()
        self.lowered = lowered
        nodes = edge.exported_program().graph
        places = nodes.find_nodes(op="placeholder")
        (call,) = nodes.find_nodes(op="call_function", target=executorch_call_delegate)
        self.inputs = [places.index(node) for node in call.args[1:]]
        self.outputs = [node.args[1] for node in nodes.output_node().args[0]]

    def forward(self, *tensors: Tensor) -> Any:
        """Return the part's output: a tensor, or several."""
        results = self.lowered(*(tensors[place] for place in self.inputs))
        outputs = tuple(results[place] for place in self.outputs)
        return outputs if len(outputs) > 1 else outputs[0]
