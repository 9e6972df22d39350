"""The step program of a causal model gives the source model's numbers, step after step, for every option."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from small_models import CAUSAL, SMALL, make_model, stepped

from vmp_edge.compile import graph
from vmp_edge.errors import UsageError
from vmp_edge.models import ModelOptions
from vmp_edge.models.options import CHOICES
from vmp_edge.models.stream_state import program_states

STEPS = 4


def run(program, model, video):
    """Return the outputs of each step, and the last state as the source model has it."""
    states, outputs = [torch.zeros(shape) for shape in program_states(model.options).values()], []
    with torch.no_grad():
        for frames in video.split(model.options.tubelet_size, dim=2):
            output, *states = program(graph.fold_frames(frames, model.options.tubelet_size), *states)
            outputs.append(output)
    return torch.cat(outputs), torch.cat([state.flatten() for state in states])


def assert_steps_equal(program, model):
    video = torch.randn(1, 3, STEPS * model.options.tubelet_size, 32, 32)
    outputs, state = run(program, model, video)
    expected, last = stepped(model, video, features=True)
    np.testing.assert_allclose(outputs, expected, atol=2e-5, rtol=1e-5)
    np.testing.assert_allclose(state, last[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL)
def test_an_exported_step_equals_the_source_model(options):
    model = make_model(**options)
    assert_steps_equal(graph.export(model, features=True).module(), model)


NAMES = ("directions", "initial_state", "scan_input", "scan_order", "readout", "mask_backward")


def combinations():
    """All options of the small models that there are."""
    for values in itertools.product(*(CHOICES[name] for name in NAMES[:5]), (False, True)):
        options = dict(zip(NAMES, values, strict=True))
        with contextlib.suppress(UsageError):
            ModelOptions(**{**SMALL, **options}, causal=True)
            yield pytest.param(options, id="-".join(map(str, values)))


@pytest.mark.parametrize("options", combinations())
def test_every_option_survives(options):
    model = make_model(**options, causal=True, tubelet_size=2)
    assert_steps_equal(graph.StepModel(model, features=True), model)


@pytest.mark.parametrize("options", CAUSAL.values(), ids=CAUSAL)
def test_scans_and_convolutions_are_single_nodes(options):
    model = make_model(**options)
    program = graph.export(model)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    own = [name for name in targets if name.startswith("vmp")]
    with_state = [name for name in own if "with_state" in name]
    depth, is_tapped = model.options.depth, model.options.d_conv > 1
    assert len(with_state) == depth * (1 + is_tapped), "a convolution and a forward scan for each layer"
    backwards = model.options.directions != "forward"
    assert backwards or len(own) == len(with_state)
    assert not [name for name in targets if "flip" in name or "chunk" in name or "split" in name]
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    assert len(names) == 1 + len(program_states(model.options)), "every state is an input of the program"


def test_a_model_without_classes_gives_its_features():
    model = make_model(causal=True, readout="mean", num_classes=0)
    program = graph.export(model).module()
    video = torch.randn(1, 3, STEPS, 32, 32)
    outputs, _ = run(program, model, video)
    with torch.no_grad():
        torch.testing.assert_close(outputs, model.forward_steps(video)[1][0], atol=2e-5, rtol=1e-5)


def test_plain_operations_keep_the_numbers_and_the_states():
    from vmp_edge.ops.chunked import Form

    model = make_model(**CAUSAL["spatiotemporal"])
    for form in (Form(), Form("loop", 4), Form("scan")):
        program = graph.with_plain_operations(graph.export(model, features=True), form)
        assert not [node for node in program.graph.nodes if str(node.target).startswith("vmp")]
        assert_steps_equal(program.module(), model)
