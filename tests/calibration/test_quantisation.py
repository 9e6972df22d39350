"""Test recipes, ranges, and quantised programs."""

import dataclasses

import pytest
import torch

from vmp_edge.calibration import quantisation
from vmp_edge.calibration.quantisation import DYNAMIC, FLOAT, STATIC, Recipe, hadamard, layers
from vmp_edge.errors import UsageError
from vmp_edge.models import ModelOptions, VideoMamba

pytest.importorskip("torchao", reason="needs torchao, of the extra `compile`")

from vmp_edge.calibration.observers import RangeObserver
from vmp_edge.compile import graph
from vmp_edge.compile.precision import Quantiser, quantised_by

QUANTISED = quantised_by(Quantiser.RECIPE)

OPS = torch.ops.quantized_decomposed
INPUT_OF = {STATIC: OPS.dequantize_per_tensor.default, DYNAMIC: OPS.dequantize_per_token.default}


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(embed_dim=32, depth=2, image_size=32, num_frames=4, num_classes=5)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "head.bias", "in_proj.weight", "out_proj.weight")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return graph.export(model)


@pytest.fixture(scope="module")
def inputs(program):
    torch.manual_seed(1)
    return [torch.randn_like(program.example_inputs[0][0]) for _ in range(3)]


def run(program, inputs):
    with torch.no_grad():
        return torch.cat([program.module(check_guards=False)(x) for x in inputs])


@pytest.mark.parametrize("name", QUANTISED)
def test_layers_are_what_the_recipe_says(program, inputs, name):
    """The quantised program has the form that the engines' lowerings expect."""
    recipe = quantisation.load(name)
    module = quantisation.quantise(program, recipe, inputs).module(check_guards=False)
    expected = {layer: recipe.kind(layer) for layer, _ in layers(program.module(check_guards=False))}
    assert {"blocks.0.in_x", "blocks.1.forwards.dt_up", "patch", "head"} <= set(expected)
    nodes = [node for node in module.graph.nodes if node.target in quantisation.LAYERS]
    plain = [layer for layer, _ in layers(program.module(check_guards=False))]
    assert len(nodes) == len(plain)
    for layer, node in zip(plain, nodes, strict=True):
        kind, (x, weight) = expected[layer], node.args[:2]
        if kind is None:
            assert weight.op == "get_attr", layer
            continue
        assert weight.target == OPS.dequantize_per_channel.default, layer
        stored, _, zeros, axis = weight.args[:4]
        assert module.get_buffer(stored.target).dtype == torch.int8
        assert axis == 0 and not module.get_buffer(zeros.target).any()
        if kind == FLOAT:
            assert "dequantize" not in str(x.target), layer
        else:
            assert x.target == INPUT_OF[kind], layer
        quantised_after = any(user.target == OPS.quantize_per_tensor.default for user in node.users)
        assert quantised_after == (kind == STATIC), layer
    float_ops = [str(node.target) for node in module.graph.nodes if str(node.target).startswith("vmp.")]
    assert float_ops == [
        str(node.target)
        for node in program.module(check_guards=False).graph.nodes
        if str(node.target).startswith("vmp.")
    ]


@pytest.mark.parametrize("name", QUANTISED)
def test_close_to_float_the_same_each_time_and_the_float_program_unharmed(program, inputs, name):
    before = run(program, inputs)
    recipe = dataclasses.replace(quantisation.load(name), smooth=0.5, smoothed=("*.in_x", "*.in_z"), rotated=("*.out",))
    once, again = (run(quantisation.quantise(program, recipe, inputs), inputs) for _ in range(2))
    torch.testing.assert_close(run(program, inputs), before, atol=0, rtol=0)
    torch.testing.assert_close(once, again, atol=0, rtol=0)
    assert 1e-6 < (once - before).abs().max() / before.abs().max() < 0.2


@pytest.mark.parametrize("outputs", ["percentile", "minmax", None])
def test_what_layers_take_and_what_they_give_have_ranges_of_their_own(program, inputs, outputs):
    recipe = Recipe("t", "", STATIC, ranges="minmax", outputs=outputs, percentile=90.0, keep_float=("patch", "head"))
    module = quantisation.quantise(program, recipe, inputs).module(check_guards=False)
    named = dict(zip([name for name, _ in layers(program.module(check_guards=False))], layers(module), strict=True))
    layer = named["blocks.0.in_x"][1]
    seen = {name: [] for name in ("input", "output")}
    source = program.module(check_guards=False)
    node = next(node for name, node in layers(source) if name == "blocks.0.in_x")
    show = {quantisation.input_of(node): "input", node: "output"}
    recorder = quantisation.Recorder(source, list(show), lambda n, value: seen[show[n]].append(value))
    with torch.no_grad():
        for x in inputs:
            recorder.run(x)
    widest = {name: float(torch.cat(values).max() - torch.cat(values).min()) / 255 for name, values in seen.items()}
    assert layer.args[0].args[1] == pytest.approx(widest["input"], rel=1e-4)
    after = [user for user in layer.users if user.target == OPS.quantize_per_tensor.default]
    assert len(after) == (outputs is not None)
    if after:
        assert (after[0].args[1] > 0.9 * widest["output"]) == (outputs == "minmax")


def test_smoothing_and_rotating_change_nothing_but_the_numbers_inside(program, inputs):
    recipe = Recipe(
        "t", "", FLOAT, keep_float=("*",), smooth=0.5, smoothed=("*.in_x", "*.in_z", "*.out"), rotated=("*.out", "head")
    )
    balanced = quantisation.quantise(program, recipe, inputs)
    weight = balanced.state_dict["blocks.0.out.weight"]
    assert (weight - program.state_dict["blocks.0.out.weight"]).abs().max() > 0.01
    torch.testing.assert_close(run(balanced, inputs), run(program, inputs), atol=1e-5, rtol=1e-4)


def test_recipes_that_learn_need_clips(program):
    assert quantisation.load("int8").needs_clips
    assert not quantisation.load("int8-dynamic").needs_clips
    with pytest.raises(UsageError, match="int8 is calibrated on clips, and there are none"):
        quantisation.quantise(program, quantisation.load("int8"), [])
    with pytest.raises(UsageError, match="there is no recipe 'int3'; there are 16a8w, fp16, int8, int8-dynamic"):
        quantisation.load("int3")


def test_ranges():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(4000), torch.tensor([100.0])])
    spans = {}
    for ranges in ("minmax", "percentile", "mse"):
        observer = RangeObserver(ranges, 99.9, dtype=torch.int8, quant_min=-128, quant_max=127)
        assert observer(values) is values
        scale, zero_point = observer.calculate_qparams()
        spans[ranges] = 255 * float(scale)
        assert -128 <= int(zero_point) <= 127
    assert spans["minmax"] == pytest.approx(100 - float(values.min()), rel=1e-3)
    assert 5 < spans["percentile"] < 10
    assert spans["mse"] <= spans["minmax"]


@pytest.mark.parametrize("ranges", ["minmax", "percentile"])
def test_headroom_widens_ranges_around_zero(ranges):
    values = torch.linspace(-3, 5, 1001)
    results = []
    for headroom in (1.0, 1.5):
        observer = RangeObserver(ranges, 99.0, headroom, dtype=torch.int32, quant_min=0, quant_max=65535)
        observer(values)
        assert observer.calculate_qparams() == observer.calculate_qparams()
        results.append(observer.calculate_qparams())
    (scale, zero_point), (wide, same) = results
    assert float(wide) == pytest.approx(1.5 * float(scale))
    assert abs(int(same) - int(zero_point)) <= 1


def test_a_recipes_headroom_is_in_the_program(program, inputs):
    def scales(headroom):
        recipe = dataclasses.replace(quantisation.load("int8"), headroom=headroom)
        nodes = quantisation.quantise(program, recipe, inputs).graph.nodes
        return torch.tensor([node.args[1] for node in nodes if node.target == OPS.quantize_per_tensor.default])

    torch.testing.assert_close(scales(1.25), 1.25 * scales(1.0))


def test_mse_cuts_what_is_rare():
    torch.manual_seed(0)
    values = torch.cat([torch.randn(40_000), torch.tensor([8.0, -8.0])])
    observers = {
        name: RangeObserver(name, dtype=torch.int8, quant_min=-128, quant_max=127) for name in ("mse", "minmax")
    }
    errors = {}
    for name, observer in observers.items():
        observer(values)
        scale, zero_point = observer.calculate_qparams()
        rounded = torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero_point), -128, 127)
        errors[name] = float((rounded - values).square().mean())
    assert errors["mse"] < errors["minmax"]


@pytest.mark.parametrize("size", [1, 12, 96, 192, 35])
def test_hadamard_matrices_are_orthogonal(size):
    matrix = hadamard(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size))


def test_signal_to_noise_by_layer(program, inputs):
    quantised = quantisation.quantise(program, quantisation.load("int8"), inputs)
    ratios = quantisation.signal_to_noise(program, quantised, inputs[:1])
    assert next(iter(ratios)) == "patch" and list(ratios)[-1] == "head"
    assert "blocks.1.normalise.mean (2)" in ratios  # the norm runs once more, for the class token alone
    assert all(5 < value < 80 for value in ratios.values())
    assert set(quantisation.signal_to_noise(program, program, inputs[:1]).values()) == {200.0}


def test_float_in_a_recipes_file_is_what_stays_float():
    """The YAML key is `float`; in Python the name would hide the builtin."""
    recipe = quantisation.load("int8-weight-only")
    assert recipe.keep_float == ("patch", "stem.*", "head", "*normalise.mean")
    assert recipe.kind("head") is None and recipe.kind("blocks.0.in_x") == FLOAT
