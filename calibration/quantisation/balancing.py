"""Balance the input channels of layers before they are quantised: smoothing and rotation.

Both change a layer's input and undo the change in its weight, so that the float program computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..decoding import Progress
from .layers import Recorder, input_of, layers, progress_over
from .recipe import Recipe, matches


def balance(module: GraphModule, recipe: Recipe, inputs: Sequence[Tensor], progress: Progress | None) -> None:
    """Smooth and rotate the inputs of the layers that a recipe names.

    Args:
        module: A float program's module; its graph and parameters are changed in place.
        recipe: See `Recipe`.
        inputs: The program's inputs from which smoothing learns the channels' sizes.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.
    """
    program_layers = list(layers(module))
    if recipe.smooth and recipe.smoothed:
        nodes = [node for name, node in program_layers if matches(name, recipe.smoothed)]
        _smooth(module, nodes, recipe.smooth, _peaks(module, nodes, inputs, progress))
    _rotate(module, [node for name, node in program_layers if matches(name, recipe.rotated)])
    module.graph.lint()
    module.recompile()


def hadamard(size: int) -> Tensor:
    """Return an orthogonal matrix, float32 (size, size).

    Its diagonal blocks are Sylvester's Hadamard matrix of the largest power of two that divides ``size``.
    """
    block = torch.ones(1, 1)
    while size % (2 * len(block)) == 0:
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
    return torch.kron(torch.eye(size // len(block)), block / len(block) ** 0.5)


def _smooth(module: GraphModule, nodes: Sequence[Node], strength: float, peaks: dict[Node, Tensor]) -> None:
    """Divide input channels by scales and multiply the weights' columns with them (SmoothQuant's equation 4).

    Args:
        module: See `balance`.
        nodes: The layers.
        strength: SmoothQuant's alpha.
        peaks: See `_peaks`.
    """
    for source in dict.fromkeys(input_of(node) for node in nodes):
        users = [node for node in nodes if node.args[0] is source]
        heaviest = torch.stack([_weight(module, node).abs().amax(0) for node in users]).amax(0)
        scale = peaks[source].clamp(min=1e-5) ** strength / heaviest.clamp(min=1e-5) ** (1 - strength)
        for node in users:
            _replace_weight(module, node, _weight(module, node) * scale)
        _insert(module, source, users, torch.ops.aten.mul.Tensor, 1 / scale)


def _rotate(module: GraphModule, nodes: Sequence[Node]) -> None:
    """Multiply the layers' inputs and weights with an orthogonal matrix, see `hadamard`."""
    for source in dict.fromkeys(input_of(node) for node in nodes):
        users = [node for node in nodes if node.args[0] is source]
        rotation = hadamard(_weight(module, users[0]).shape[1])
        for node in users:
            _replace_weight(module, node, _weight(module, node) @ rotation)
        _insert(module, source, users, torch.ops.aten.matmul.default, rotation)


def _peaks(
    module: GraphModule, nodes: Sequence[Node], inputs: Sequence[Tensor], progress: Progress | None
) -> dict[Node, Tensor]:
    """Return the largest absolute value of each input channel of layers, by the node that feeds the layer."""
    peaks: dict[Node, Tensor] = {}

    def record(node: Node, value: Tensor) -> None:
        peak = value.abs().flatten(0, -2).amax(0)
        peaks[node] = torch.maximum(peaks[node], peak) if node in peaks else peak

    recorder = Recorder(module, [input_of(node) for node in nodes], record)
    for tensor in progress_over(inputs, "find outliers", progress):
        recorder.run(tensor)
    return peaks


def _weight(module: GraphModule, layer: Node) -> Tensor:
    return module.get_parameter(str(layer.all_input_nodes[1].target)).data


def _replace_weight(module: GraphModule, layer: Node, values: Tensor) -> None:
    """Give a layer a new parameter as its weight, because the float program shares the old one."""
    owner, _, name = str(layer.all_input_nodes[1].target).rpartition(".")
    setattr(module.get_submodule(owner), name, torch.nn.Parameter(values, requires_grad=False))


def _insert(
    module: GraphModule, source: Node, users: Sequence[Node], operation: Callable[..., Tensor], constant: Tensor
) -> None:
    """Let the users of ``source`` take its product with a constant instead."""
    name = f"balance_{source.name}_{operation}".replace(".", "_")
    module.register_buffer(name, constant)
    with module.graph.inserting_after(source):
        attribute = module.graph.get_attr(name)
    with module.graph.inserting_after(attribute):
        product = module.graph.call_function(operation, (source, attribute))
    product.meta["val"] = source.meta["val"]
    for user in users:
        user.replace_input_with(source, product)
