"""Test quantisation-aware fine-tuning: the student's arithmetic, and its learning."""

import dataclasses

import pytest
import torch

from vmp_edge.calibration import quantisation
from vmp_edge.errors import UsageError
from vmp_edge.models import ModelOptions, VideoMamba

pytest.importorskip("torchao", reason="needs torchao, of the extra `compile`")

from vmp_edge.calibration.finetuning import FIXED, Schedule, Student, finetune
from vmp_edge.compile import graph
from vmp_edge.compile.precision import Quantiser, quantised_by

QUANTISED = quantised_by(Quantiser.RECIPE)

HARSH = dataclasses.replace(quantisation.load("int8"), dynamic=(), keep_float=(), ranges="percentile", percentile=99.0)


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(embed_dim=32, depth=2, image_size=32, num_frames=4, num_classes=5)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "head.bias", "in_proj.weight", "out_proj.weight", "head.weight")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return graph.export(model)


@pytest.fixture(scope="module")
def inputs(program):
    torch.manual_seed(1)
    return [torch.randn_like(program.example_inputs[0][0]) for _ in range(12)]


def run(program, inputs):
    with torch.no_grad():
        return torch.cat([program.module(check_guards=False)(x) for x in inputs])


@pytest.mark.parametrize("recipe", [*map(quantisation.load, QUANTISED), HARSH], ids=lambda r: r.name)
def test_the_student_computes_what_the_quantised_program_will(program, inputs, recipe):
    module = program.module(check_guards=False)
    ranges = quantisation.static_ranges(module, recipe, inputs[:3])
    student = Student(module, dict(module.named_parameters()), recipe, ranges)
    expected = run(quantisation.quantise(program, recipe, inputs[:3]), inputs[3:6])
    with torch.no_grad():
        actual = torch.cat([student.outputs(x).logits for x in inputs[3:6]])
    error, change = (actual - expected).abs().max(), (run(program, inputs[3:6]) - expected).abs().max()
    assert error < 0.1 * change  # sums in another order may round to another int8


def test_the_student_comes_closer_to_the_float_program_on_other_clips(program, inputs):
    learnt, held_out = inputs[:8], inputs[8:]
    before = {name: value.clone() for name, value in program.state_dict.items()}
    expected = run(program, held_out)
    schedule = Schedule(20, batch=4, learning_rate=1e-3)
    tuned, again = (finetune(program, HARSH, learnt, schedule) for _ in range(2))
    errors = [
        float((run(quantisation.quantise(variant, HARSH, learnt), held_out) - expected).square().mean())
        for variant in (program, tuned)
    ]
    assert errors[1] < 0.7 * errors[0]
    assert all(torch.equal(value, program.state_dict[name]) for name, value in before.items()), "left as it was"
    assert all(torch.equal(value, again.state_dict[name]) for name, value in tuned.state_dict.items())
    changed = {name for name, value in tuned.state_dict.items() if not torch.equal(value, before[name])}
    assert {"blocks.0.in_x.weight", "blocks.1.out.weight", "head.weight", "patch.weight"} <= changed
    assert not [name for name in changed if name.endswith(FIXED)]


def test_it_shows_its_progress_and_needs_clips(program, inputs):
    calls = []

    def progress(steps, **options):
        calls.append(options)
        return steps

    finetune(program, quantisation.load("int8-dynamic"), inputs[:2], Schedule(1, batch=3), progress)
    assert calls == [{"total": 1, "desc": "fine-tune", "unit": "step"}]
    with pytest.raises(UsageError, match="learns from clips, and there are none"):
        finetune(program, HARSH, [], Schedule(1))
