"""Quantising an exported program by a recipe: int8 weights, and activations with fixed or with run-time ranges.

What comes out is a program like the one that went in, in PT2E's words, for every engine: a layer that computes in int8
is an ``aten.linear`` or ``aten.conv2d`` whose weight comes from ``quantized_decomposed.dequantize_per_channel`` and
whose input comes from ``dequantize_per_tensor`` (static: scale and zero point are numbers, and the output goes through
``quantize_per_tensor`` and ``dequantize_per_tensor``, unless the recipe leaves that out) or from
``choose_qparams_per_token_asymmetric``, ``quantize_per_token`` and ``dequantize_per_token`` (dynamic: the output is a
float); where only the weight is int8, its input is a float. Everything else is as it was.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from vmp_edge.errors import MissingDependencyError, UsageError

from .decoding import Progress

FOLDER = Path(__file__).parent / "recipes"
STATIC, DYNAMIC, FLOAT = ACTIVATIONS = ("static", "dynamic", "float")
HALF = "float16"
LAYERS = (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default)
_EPS = 2**-12  # least scale, XNNPACK's


@dataclass(frozen=True)
class Recipe:
    """How a program is quantised.

    Layers are named as the program's parameters are, without ``.weight``; patterns are those of `fnmatch`.

    Attributes:
        name: of the precision.
        description: in a sentence.
        activations: of all layers but those named below: ``static``, one range for each tensor, from calibration;
            ``dynamic``, a range for each token, at run time; ``float``, only weights are quantised; ``float16``,
            nothing is quantised: weights and activations have half the bits (`vmp_edge.compile.graph.in_float16`).
        ranges: how the ranges of what static layers take are chosen, see `RangeObserver`.
        outputs: likewise of what they give, which XNNPACK needs fixed, too, and others skip; None for no range.
        percentile: where either is ``percentile``.
        headroom: by which fixed ranges are then widened around zero, 1 or more.
        dynamic: patterns of layers whose activations are dynamic all the same.
        float: patterns of layers that stay as they are; of ``float16``, of any parameters, whose operations compute
            in float32.
        smooth: 0 to 1, how much of the inequality of a layer's input channels is moved into its weights (SmoothQuant,
            Xiao et al., arXiv 2211.10438); 0 for none.
        smoothed: patterns of layers whose inputs are smoothed; costs a multiplication of the input.
        rotated: patterns of layers whose inputs are rotated by Hadamard matrices (QuaRot, arXiv 2404.00456; for
            state-space models Quamba, arXiv 2410.13229), their weights back; costs a matrix product.
    """

    name: str
    description: str
    activations: str
    ranges: str = "percentile"
    outputs: str | None = "percentile"
    percentile: float = 99.99
    headroom: float = 1.0  # type: ignore[valid-type]
    dynamic: tuple[str, ...] = ()
    float: tuple[str, ...] = ()
    smooth: float = 0.0  # type: ignore[valid-type]
    smoothed: tuple[str, ...] = ()
    rotated: tuple[str, ...] = ()

    @property
    def needs_clips(self) -> bool:
        """Whether anything is learnt from clips."""
        return self.activations == STATIC or bool(self.smooth and self.smoothed)

    def stays(self, parameter: str) -> bool:
        """Whether a parameter stays float32; a layer's has ``.weight`` or ``.bias`` behind its name, or nothing."""
        return _matches(parameter.removesuffix(".weight").removesuffix(".bias"), self.float)

    def kind(self, layer: str) -> str | None:
        """One of `ACTIVATIONS` for a layer; None if it is not quantised."""
        if self.stays(layer):
            return None
        return DYNAMIC if _matches(layer, self.dynamic) else self.activations


def _matches(layer: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(layer, pattern) for pattern in patterns)


def names() -> list[str]:
    """The recipes that come with the package, a precision's each."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Recipe:
    """A recipe by its precision's name.

    Raises:
        UsageError: there is none.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise UsageError(f"there is no recipe {name!r}; there are {', '.join(names())}")
    entry = yaml.safe_load(path.read_text(encoding="utf-8"))
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Recipe(name, **{**entry, **lists})


def quantise(
    program: ExportedProgram,
    recipe: Recipe,
    inputs: Sequence[Tensor],
    progress: Progress | None = None,
    quantizer: Any = None,
) -> ExportedProgram:
    """Quantise a program; equal arguments give equal programs.

    Args:
        program: takes one tensor.
        recipe: how.
        inputs: what it is calibrated on, float32 of the program's input's shape each; may be empty where the recipe
            learns nothing from them.
        progress: makes a progress bar, as `tqdm.tqdm` does; None shows nothing.
        quantizer: of PT2E, that marks what is quantised in the recipe's place; None lets the recipe do it.

    Raises:
        UsageError: the recipe needs inputs and there are none.
        MissingDependencyError: torchao is not installed.
    """
    if recipe.needs_clips and not inputs:
        raise UsageError(f"{recipe.name} is calibrated on clips, and there are none")
    quantize_pt2e = _torchao()
    example = program.example_inputs[0]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside the libraries: nothing that a user could mend
        module = program.module(check_guards=False)
        _balance(module, recipe, inputs, progress)
        prepared = quantize_pt2e.prepare_pt2e(module, quantizer or _quantizer(recipe))
        if recipe.activations == STATIC:
            for tensor in _shown(inputs, "calibrate", progress):
                prepared(tensor)
        else:
            prepared(*example)  # observers of weights look at them when they are used
        converted = quantize_pt2e.convert_pt2e(prepared)
        _per_token(converted)
        return torch.export.export(converted, tuple(example), strict=False)


def _torchao() -> Any:
    for name in ("torchao", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        from torchao.quantization.pt2e import quantize_pt2e
    except ImportError as error:
        raise MissingDependencyError(
            f"quantising needs {error.name}, which is not installed; run: pip install 'vmp-edge[compile]'"
        ) from error
    return quantize_pt2e


def _shown(inputs: Sequence[Tensor], what: str, progress: Progress | None) -> Any:
    return progress(inputs, total=len(inputs), desc=what, unit="clip") if progress and inputs else inputs


def layers(module: GraphModule) -> Iterator[tuple[str, Node]]:
    """Name and node of every linear layer and convolution of a program's module, in its order."""
    for node in module.graph.nodes:
        if node.target in LAYERS:
            weight = node.args[1]
            yield str(weight.target).removesuffix(".weight"), node


def _quantizer(recipe: Recipe) -> Any:
    from torchao.quantization.pt2e import PerChannelMinMaxObserver, PlaceholderObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    from .observers import RangeObserver

    int8: dict[str, Any] = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}
    taken, given = (
        ranges
        and QuantizationSpec(
            **int8,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=RangeObserver.with_args(**_range_options(recipe, ranges)),
        )
        for ranges in (recipe.ranges, recipe.outputs)
    )
    dynamic = QuantizationSpec(
        **int8,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=_EPS),
    )
    weight = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-24),
    )
    inputs = {STATIC: taken, DYNAMIC: dynamic, FLOAT: None}

    class ByRecipe(Quantizer):  # type: ignore[misc]
        """Marks the layers that the recipe quantises."""

        def annotate(self, model: GraphModule) -> GraphModule:
            for name, node in layers(model):
                kind = recipe.kind(name)
                if kind is not None:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: inputs[kind], node.args[1]: weight},
                        output_qspec=given if kind == STATIC else None,
                        _annotated=True,
                    )
            return model

        def validate(self, model: GraphModule) -> None:
            """Nothing could be wrong."""

    return ByRecipe()


def range_options(recipe: Recipe) -> dict[str, Any]:
    """What `RangeObserver` takes of a recipe."""
    return {"ranges": recipe.ranges, "percentile": recipe.percentile, "headroom": recipe.headroom}


def _range_options(recipe: Recipe, ranges: str) -> dict[str, Any]:
    return {**range_options(recipe), "ranges": ranges, "eps": _EPS}


def static_ranges(module: GraphModule, recipe: Recipe, inputs: Sequence[Tensor]) -> dict[Node, tuple[float, int]]:
    """Scale and zero point of all that has a fixed range by a recipe: what such layers take, and what they give.

    Args:
        module: of a float program.
        recipe: see `Recipe`.
        inputs: what the ranges are learnt from.

    Raises:
        MissingDependencyError: torchao is not installed.
    """
    _torchao()
    from .observers import RangeObserver

    chosen = [node for name, node in layers(module) if recipe.kind(name) == STATIC]
    int8: dict[str, Any] = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}
    ways = {input_of(layer): recipe.ranges for layer in chosen}
    ways |= {layer: recipe.outputs for layer in chosen if recipe.outputs}
    observers = {node: RangeObserver(**_range_options(recipe, way), **int8) for node, way in ways.items()}
    recorder = Recorder(module, list(observers), lambda node, value: observers[node](value))
    with torch.no_grad():
        for tensor in inputs if observers else ():
            recorder.run(tensor)
    found = {node: observer.calculate_qparams() for node, observer in observers.items()}
    return {node: (float(scale), int(zero_point)) for node, (scale, zero_point) in found.items()}


def _per_token(module: GraphModule) -> None:
    """Make dynamic ranges those of a token; PT2E's own are those of a tensor."""
    ops = torch.ops.quantized_decomposed
    for node in module.graph.nodes:
        if node.target is ops.choose_qparams.tensor:
            node.target, node.args = ops.choose_qparams_per_token_asymmetric.default, (node.args[0], torch.int8)
        elif node.target is ops.quantize_per_tensor.tensor:
            node.target = ops.quantize_per_token.default
        elif node.target is ops.dequantize_per_tensor.tensor:
            node.target, node.args = ops.dequantize_per_token.default, (*node.args[:6], torch.float32)
            node.kwargs = {}
    module.recompile()


def _balance(module: GraphModule, recipe: Recipe, inputs: Sequence[Tensor], progress: Progress | None) -> None:
    """Smooth and rotate the inputs of the layers for which the recipe asks it, their weights the other way round."""
    found = list(layers(module))
    if recipe.smooth and recipe.smoothed:
        chosen = [(name, node) for name, node in found if _matches(name, recipe.smoothed)]
        peaks = _peaks(module, [node for _, node in chosen], inputs, progress)
        for source in dict.fromkeys(input_of(node) for _, node in chosen):
            sharing = [node for _, node in chosen if node.args[0] is source]
            heaviest = torch.stack([_weight(module, node).abs().amax(0) for node in sharing]).amax(0)
            scale = peaks[source].clamp(min=1e-5) ** recipe.smooth / heaviest.clamp(min=1e-5) ** (1 - recipe.smooth)
            for node in sharing:
                _replace_weight(module, node, _weight(module, node) * scale)
            _insert(module, source, sharing, torch.ops.aten.mul.Tensor, 1 / scale)
    for source in dict.fromkeys(input_of(node) for name, node in found if _matches(name, recipe.rotated)):
        sharing = [node for name, node in found if node.args[0] is source and _matches(name, recipe.rotated)]
        rotation = hadamard(_weight(module, sharing[0]).shape[1])
        for node in sharing:
            _replace_weight(module, node, _weight(module, node) @ rotation)
        _insert(module, source, sharing, torch.ops.aten.matmul.default, rotation)
    module.graph.lint()
    module.recompile()


def input_of(node: Node) -> Node:
    """What a layer takes."""
    return node.all_input_nodes[0]


def _weight(module: GraphModule, node: Node) -> Tensor:
    return module.get_parameter(str(node.all_input_nodes[1].target)).data


def _replace_weight(module: GraphModule, node: Node, values: Tensor) -> None:
    """Give a layer another weight; the one that it has is the float program's, too."""
    owner, _, name = str(node.all_input_nodes[1].target).rpartition(".")
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


def hadamard(size: int) -> Tensor:
    """An orthogonal matrix, float32 (size, size): blocks of Sylvester's Hadamard matrix, as large as divide it."""
    block = torch.ones(1, 1)
    while size % (2 * len(block)) == 0:
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)])
    return torch.kron(torch.eye(size // len(block)), block / len(block) ** 0.5)


class Recorder(Interpreter):
    """Runs a program's module and shows the values of some nodes.

    Args:
        module: of the program.
        nodes: those.
        show: is given each of them with its value.
    """

    def __init__(self, module: GraphModule, nodes: Sequence[Node], show: Callable[[Node, Tensor], None]) -> None:
        super().__init__(module)
        self.nodes, self.show = set(nodes), show

    def run_node(self, n: Node) -> Any:
        """As `Interpreter` does."""
        result = super().run_node(n)
        if n in self.nodes:
            self.show(n, result)
        return result


def _peaks(
    module: GraphModule, nodes: Sequence[Node], inputs: Sequence[Tensor], progress: Progress | None
) -> dict[Node, Tensor]:
    """Largest absolute value of each input channel of layers, by the node that the layer takes."""
    peaks: dict[Node, Tensor] = {}

    def note(node: Node, value: Tensor) -> None:
        peak = value.abs().flatten(0, -2).amax(0)
        peaks[node] = torch.maximum(peaks[node], peak) if node in peaks else peak

    recorder = Recorder(module, [input_of(node) for node in nodes], note)
    for tensor in _shown(inputs, "find outliers", progress):
        recorder.run(tensor)
    return peaks


def signal_to_noise(program: ExportedProgram, quantised: ExportedProgram, inputs: Sequence[Tensor]) -> dict[str, float]:
    """How much stronger each layer's output is than what quantising changes in it.

    Args:
        program: the float one.
        quantised: what `quantise` made of it.
        inputs: over which is averaged.

    Returns:
        Decibels by layer, in the program's order; the errors of all layers before it are in each.
    """
    modules = [each.module(check_guards=False) for each in (program, quantised)]
    names = _numbered([name for name, _ in layers(modules[0])])
    ours, theirs = ({node: name for name, (_, node) in zip(names, layers(m), strict=True)} for m in modules)
    power, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    values: dict[str, Tensor] = {}

    def keep(node: Node, value: Tensor) -> None:
        values[ours[node]] = value

    def compare(node: Node, value: Tensor) -> None:
        name = theirs[node]
        reference = values.pop(name)
        power[name] += float(reference.square().sum())
        noise[name] += float((value - reference).square().sum())

    with torch.no_grad():
        for tensor in inputs:
            Recorder(modules[0], list(ours), keep).run(tensor)
            Recorder(modules[1], list(theirs), compare).run(tensor)
    return {name: decibels(power[name], noise[name]) for name in names}


def _numbered(names: Sequence[str]) -> list[str]:
    """Names that differ: a layer that is used again gets a number."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return numbered


def decibels(power: float, noise: float) -> float:
    """Of a signal-to-noise ratio; 200 where there is no noise to speak of."""
    return 10 * float(torch.log10(torch.tensor(power / max(noise, 1e-20 * power, 1e-38), dtype=torch.float64)))
