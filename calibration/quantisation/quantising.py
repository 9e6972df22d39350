"""Quantise a program by a recipe, or by another quantiser of PT2E."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule

from vmp_edge.errors import UsageError
from vmp_edge.progress import part

from ..decoding import Progress
from .balancing import balance
from .layers import layers, progress_over
from .ranges import EPS, INT8, import_torchao, int8_range_options
from .recipe import DYNAMIC, FLOAT, STATIC, Recipe


def quantise(
    program: ExportedProgram,
    recipe: Recipe,
    inputs: Sequence[Tensor],
    progress: Progress | None = None,
    quantizer: Any = None,
) -> ExportedProgram:
    """Quantise a program; equal arguments give equal programs.

    Args:
        program: Takes one tensor.
        recipe: See `Recipe`.
        inputs: Clips to calibrate on, float32 in the shape of the program's input. May be empty if the recipe learns
            nothing from clips.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.
        quantizer: A PT2E quantiser that marks what is quantised; None marks the layers that the recipe names.

    Raises:
        UsageError: The recipe needs inputs and there are none.
        MissingDependencyError: torchao is not installed.
    """
    if recipe.needs_clips and not inputs:
        raise UsageError(f"{recipe.name} is calibrated on clips, and there are none")
    quantize_pt2e = import_torchao()
    example = program.example_inputs[0]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside the libraries, which users cannot mend
        module = program.module(check_guards=False)
        balance(module, recipe, inputs, progress)
        with part("prepare"):
            prepared = quantize_pt2e.prepare_pt2e(module, quantizer or make_quantizer(recipe))
        if recipe.activations == STATIC:
            for tensor in progress_over(inputs, "calibrate", progress):
                prepared(tensor)
        else:
            prepared(*example)  # the observers of weights look at the weights when the program runs
        with part("convert and export"):
            converted = quantize_pt2e.convert_pt2e(prepared)
            _choose_ranges_by_token(converted)
            return torch.export.export(converted, tuple(example), strict=False)


def make_quantizer(recipe: Recipe) -> Any:
    """Make the PT2E quantiser that marks the layers that a recipe quantises."""
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer

    input_specs = {STATIC: _static_spec(recipe, recipe.ranges), DYNAMIC: _dynamic_spec(), FLOAT: None}
    output_specs = {STATIC: _static_spec(recipe, recipe.outputs) if recipe.outputs else None}
    weight_spec = _weight_spec()

    class ByRecipe(Quantizer):  # type: ignore[misc]
        """Marks the layers that the recipe quantises."""

        def annotate(self, model: GraphModule) -> GraphModule:
            for name, node in layers(model):
                kind = recipe.kind(name)
                if kind is not None:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: input_specs[kind], node.args[1]: weight_spec},
                        output_qspec=output_specs.get(kind),
                        _annotated=True,
                    )
            return model

        def validate(self, model: GraphModule) -> None:
            """Accept every model: `annotate` cannot leave a wrong one."""

    return ByRecipe()


def _static_spec(recipe: Recipe, ranges: str) -> Any:
    """Return PT2E's description of an int8 tensor with a fixed range."""
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    from ..observers import RangeObserver

    return QuantizationSpec(
        **INT8,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=RangeObserver.with_args(**int8_range_options(recipe, ranges)),
    )


def _dynamic_spec() -> Any:
    """Return PT2E's description of an int8 tensor whose range is chosen at run time."""
    from torchao.quantization.pt2e import PlaceholderObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    return QuantizationSpec(
        **INT8,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=EPS),
    )


def _weight_spec() -> Any:
    """Return PT2E's description of an int8 weight with a scale for each output channel."""
    from torchao.quantization.pt2e import PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantizer import QuantizationSpec

    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver.with_args(eps=2**-24),
    )


def _choose_ranges_by_token(module: GraphModule) -> None:
    """Give each token its own dynamic range; PT2E chooses one range for a whole tensor."""
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
