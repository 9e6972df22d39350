"""Quantised programs for the tests of lowerings: the least that PT2E can be asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram

STATIC, DYNAMIC, WEIGHT_ONLY = KINDS = ("int8", "int8-dynamic", "int8-weight-only")
FEW = (".dt_down", ".dt_up", ".B", ".C", "head")  # layers that are dynamic in "int8"


def quantised(
    program: ExportedProgram,
    kind: str,
    outputs: bool = True,
    left_out: tuple[str, ...] = (),
    inputs: Sequence[Tensor] = (),
) -> ExportedProgram:
    """A program with int8 layers, in PT2E's words.

    Args:
        program: of `graph.export`.
        kind: one of `KINDS`.
        outputs: whether static layers have quantised outputs.
        left_out: layers that stay float.
        inputs: whose ranges static layers get; two random ones where none are given.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module = program.module(check_guards=False)
    prepared = prepare_pt2e(module, _quantizer(kind, outputs, left_out))
    generator, shape = torch.Generator().manual_seed(0), program.example_inputs[0][0].shape
    with torch.no_grad():
        for one in inputs or [torch.randn(shape, generator=generator) for _ in range(2)]:
            prepared(one)
        converted = convert_pt2e(prepared)
        _make_per_token(converted)
        return torch.export.export(converted, program.example_inputs[0], strict=False)


def _quantizer(kind, outputs, left_out):
    from torchao.quantization.pt2e import MinMaxObserver, PerChannelMinMaxObserver, PlaceholderObserver
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    def spec(observer, least=-128, scheme=torch.per_tensor_affine, **options):
        return QuantizationSpec(
            observer_or_fake_quant_ctr=observer.with_args(eps=2**-12),
            dtype=torch.int8,
            quant_min=least,
            quant_max=127,
            qscheme=scheme,
            **options,
        )

    static, dynamic = spec(MinMaxObserver), spec(PlaceholderObserver, is_dynamic=True)
    weight = spec(PerChannelMinMaxObserver, -127, torch.per_channel_symmetric, ch_axis=0)

    class Layers(Quantizer):
        def annotate(self, model):
            for node in model.graph.nodes:
                if node.target not in (torch.ops.aten.linear.default, torch.ops.aten.conv2d.default):
                    continue
                name = node.args[1].target.removesuffix(".weight")
                if name.endswith("normalise.mean") or name in left_out:
                    continue
                few = kind == STATIC and name.endswith(FEW)
                source = {STATIC: dynamic if few else static, DYNAMIC: dynamic, WEIGHT_ONLY: None}[kind]
                node.meta["quantization_annotation"] = QuantizationAnnotation(
                    input_qspec_map={node.args[0]: source, node.args[1]: weight},
                    output_qspec=static if source is static and outputs else None,
                    _annotated=True,
                )
            return model

        def validate(self, model):
            pass

    return Layers()


def _make_per_token(module):
    """PT2E's dynamic ranges are those of a tensor; here, those of a row."""
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
