"""A model in several context binaries: one for the scans of all layers, their parameters among its inputs.

QNN takes minutes to compile a scan over a thousand tokens, and its graphs cannot call each other. So each kind of scan
is compiled once, and what lies between scans for itself; ExecuTorch's program calls one after the other, all on the
HTP, and the tensors between them lie in memory.
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
# Compiles a part: ExecuTorch's ``EdgeProgramManager`` and its one ``LoweredBackendModule``.
Compile = Callable[[nn.Module, Inputs], tuple[Any, Any]]


def lower(program: ExportedProgram, compile_part: Compile) -> Any:
    """ExecuTorch's ``EdgeProgramManager`` of a program that only calls delegates.

    Args:
        program: with scans as single nodes.
        compile_part: compiles a part whole.

    Raises:
        BuildError: as `compile_part`.
    """
    from executorch.exir import to_edge

    whole, scans = split(program)
    compiled: dict[Any, Compiled] = {}
    for name, inputs in inputs_of(whole, program.example_inputs[0]).items():
        part: Any = whole.get_submodule(name)
        key = kind_of(part, inputs) if name in scans else name
        if key not in compiled:
            compiled[key] = Compiled(*compile_part(part, inputs))
        whole.set_submodule(name, compiled[key])
    with quiet():
        return to_edge(torch.export.export(whole, program.example_inputs[0], strict=False))


def split(program: ExportedProgram) -> tuple[GraphModule, set[str]]:
    """A program as calls of parts, with their constants inside but for scans; and the names of the scans."""
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
    """Parameters that a part is given become its own."""
    part: Any = whole.get_submodule(str(call.target))
    places = part.graph.find_nodes(op="placeholder")
    for given, place in zip(call.args, places, strict=True):
        if isinstance(given, Node) and given.op == "get_attr":
            path, _, name = str(given.target).rpartition(".")
            value = getattr(whole.get_submodule(path), name)
            part.register_buffer(place.name, value.detach())
            with part.graph.inserting_before(place):
                place.replace_all_uses_with(part.graph.get_attr(place.name))
            part.graph.erase_node(place)
    call.args = tuple(given for given in call.args if not (isinstance(given, Node) and given.op == "get_attr"))
    part.recompile()


def inputs_of(whole: GraphModule, example: Inputs) -> dict[str, Inputs]:
    """What each part is given in a run, in the order in which they run."""
    found: dict[str, Inputs] = {}

    class Recorder(Interpreter):
        def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
            found[target] = args
            return super().call_module(target, args, kwargs)

    with torch.no_grad():
        Recorder(whole).run(*example)
    return found


def kind_of(scan: GraphModule, inputs: Inputs) -> Any:
    """The same for scans that can be one: the operator, its options and the shapes of its inputs."""
    places = scan.graph.find_nodes(op="placeholder")
    (call,) = (node for node in scan.graph.nodes if node.op == "call_function")
    given = tuple(places.index(one) if isinstance(one, Node) else one for one in call.args)
    return call.target, given, tuple(sorted(call.kwargs.items())), tuple(one.shape for one in inputs)


class Compiled(nn.Module):
    """A part as it was compiled.

    Args:
        edge: ExecuTorch's ``EdgeProgramManager`` of the part.
        lowered: what is called there.
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

    def forward(self, *given: Tensor) -> Any:
        """As the part: a tensor, or several."""
        results = self.lowered(*(given[place] for place in self.inputs))
        chosen = tuple(results[place] for place in self.outputs)
        return chosen if len(chosen) > 1 else chosen[0]
