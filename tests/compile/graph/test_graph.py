"""The graph that lowerings start from gives the source model's numbers, with every scan as one node."""

import dataclasses
import itertools

import pytest
import torch
from small_models import READOUTS

from vmp_edge.calibration import quantisation
from vmp_edge.compile import graph
from vmp_edge.models.options import CHOICES


def test_inference_form_equals_the_source_model(model):
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = model(video)
        got = graph.InferenceModel(model)(graph.fold_frames(video, model.options.tubelet_size))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_features_follow_the_logits(model):
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = torch.cat([model(video), model.forward_features(video)], 1)
        got = graph.InferenceModel(model, features=True)(graph.fold_frames(video, model.options.tubelet_size))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


OF_BLOCKS = {name: values for name, values in CHOICES.items() if name != "stem"}  # which is ahead of all blocks
OPTIONS = [*OF_BLOCKS, "mask_backward", "depth"]
COMBINATIONS = [
    values
    for values in itertools.product(*OF_BLOCKS.values(), (False, True), (1, 2))
    if not ("forward" in values and True in values[:-1])  # one direction has no backward scan to mask
]


@pytest.mark.parametrize("values", COMBINATIONS, ids=str)
def test_every_option_survives_the_last_block(make, values):
    """The last block computes the class token alone: one step forwards, the whole sequence backwards."""
    options = dict(zip(OPTIONS, values, strict=True))
    if options["directions"] == "forward" and options["mask_backward"]:
        pytest.skip("there is no backward direction to mask")
    if options["readout"] == "pooled_frames":
        options |= {"projection": 6, "num_classes": 0}
    model = make(**options, image_size=32, embed_dim=16)
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected = model(video)
        got = graph.InferenceModel(model)(graph.fold_frames(video, model.options.tubelet_size))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", READOUTS.values(), ids=READOUTS)
def test_tokens_are_averaged_without_the_operation_that_delegates_refuse(make, options):
    targets = {str(node.target) for node in graph.export(make(**options)).graph.nodes}
    assert "aten.sum.dim_IntList" in targets and not [name for name in targets if name.startswith("aten.mean")]


def test_scans_and_convolutions_are_single_nodes(model):
    targets = [str(node.target) for node in graph.export(model).graph.nodes if node.op == "call_function"]
    shared = model.options.directions == "shared"
    assert targets.count("vmp.bi_selective_scan.default") == (model.options.depth - 1 if shared else 0)
    assert targets.count("vmp.selective_scan.default") == (2 if shared else 2 * model.options.depth)
    assert targets.count("vmp.causal_conv_silu.default") == (1 if shared else 2) * model.options.depth
    assert not [name for name in targets if "flip" in name or "chunk" in name or "split" in name]


def test_linear_patches_keep_the_numbers(model):
    """No convolution is left, and no tensor on the way has more than four axes."""
    video = torch.randn(1, 3, 4, 32, 32)
    frames = graph.fold_frames(video, model.options.tubelet_size)
    program = graph.with_linear_patches(graph.export(model))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(frames), model(video), atol=1e-5, rtol=1e-5)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert not [node for node in calls if "conv2d" in str(node.target)]
    assert max(node.meta["val"].dim() for node in calls) <= 4


@pytest.mark.parametrize("patterns", [None, ("*.A*", "head"), ()], ids=str)
def test_parameters_become_float16_except_those_of_the_recipe(model, patterns):
    recipe = quantisation.load("fp16")
    recipe = recipe if patterns is None else dataclasses.replace(recipe, keep_float=patterns)
    program = graph.export(model)
    halved = graph.in_float16(program, recipe.stays)
    types = {name.removeprefix("module."): tensor.dtype for name, tensor in halved.state_dict.items()}
    assert types == {n: torch.float32 if recipe.stays(n) else torch.float16 for n in program.state_dict}
    for node in graph.scans(halved):
        assert {arg.meta["val"].dtype for arg in node.all_input_nodes} == {types["blocks.0.A"]}
    video = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        got, expected = halved.module()(graph.fold_frames(video, model.options.tubelet_size)), model(video)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=5e-3 * float(expected.max() - expected.min()), rtol=0)
    assert all(tensor.dtype == torch.float32 for tensor in program.state_dict.values())


def test_the_fp16_recipe_keeps_what_float16_cannot_hold(model):
    """The squares of tokens of ten thousand are beyond float16: norms, and the tokens that they read, stay float32."""
    with torch.no_grad():
        model.cls_token[..., ::2], model.cls_token[..., 1::2] = 10000.0, -10000.0
        video = torch.randn(1, 3, 4, 32, 32)
        frames = graph.fold_frames(video, model.options.tubelet_size)
        program, recipe = graph.export(model), quantisation.load("fp16")
        got = graph.in_float16(program, recipe.stays).module()(frames)
        all_half = graph.in_float16(program, lambda name: False).module()(frames)
        expected = model(video)
    assert torch.isfinite(expected).all()
    spread = float(expected.max() - expected.min())
    torch.testing.assert_close(got, expected, atol=2e-2 * spread, rtol=0)
    assert not torch.allclose(all_half, expected, atol=2e-2 * spread, rtol=0)


def test_bounded_norms_keep_the_numbers_and_survive_float16(model):
    """The tokens are of one, of three thousand, whose squares are beyond float16, and of zeros."""
    video = torch.randn(1, 3, 4, 32, 32)
    frames = graph.fold_frames(video, model.options.tubelet_size)
    bounded = graph.with_bounded_norms(graph.export(model)).module(check_guards=False)
    with torch.no_grad():
        torch.testing.assert_close(bounded(frames), model(video), atol=1e-5, rtol=1e-5)
    norm = graph.Normalise(32)
    program = torch.export.export(norm.half(), (torch.zeros(1, 3, 32, dtype=torch.float16),))
    tokens = torch.randn(1, 3, 32) * torch.tensor([1.0, 3000.0, 0.0])[:, None]
    expected = tokens * torch.rsqrt(tokens.square().mean(-1, keepdim=True) + 1e-5)
    with torch.no_grad():
        assert not torch.allclose(program.module()(tokens.half()).float(), expected, atol=2e-3)
        got = graph.with_bounded_norms(program).module()(tokens.half()).float()
    torch.testing.assert_close(got, expected, atol=4e-3, rtol=2e-3)
