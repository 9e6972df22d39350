"""The scan made of ordinary operations, on the one case list, in half precision and inside exported graphs."""

import math
from functools import partial

import pytest
import torch

from vmp_edge.compile.graph import with_plain_operations
from vmp_edge.ops import chunked, reference
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, ConvCase, ScanCase, error, expected
from vmp_edge.ops.chunked import Form
from vmp_edge.ops.stateful_cases import STATE_CASES, StateCase, errors

FORMS = [
    Form("loop", 2),
    Form("loop", 7, "polynomial"),
    Form("loop", 16),
    Form("loop", 1000),
    Form("hillis-steele", 8, "polynomial"),
    Form("hillis-steele", 1000),
]
PLAIN = {
    *("slice.Tensor", "cat.default", "view.default", "mul.Tensor", "add.Tensor", "sub.Tensor", "exp.default"),
    *("sum.dim_IntList", "relu.default", "sigmoid.default", "expand.default", "clone.default", "permute.default"),
    *("unsqueeze.default", "constant_pad_nd.default", "alias.default"),
}


def name(form):
    return "-".join(map(str, form))


def relative_to_largest(case, y):
    """Return the largest difference over the largest result."""
    exact, _ = expected(case)
    return float((y.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("form", FORMS, ids=name)
@pytest.mark.parametrize("case", SCAN_CASES, ids=lambda case: case.name)
def test_matches_the_float64_reference(case, form):
    y = getattr(chunked, case.operator)(**case.inputs(), **case.options(), form=form)
    assert error(case, y) <= case.tolerance
    assert relative_to_largest(case, y) < 1e-6


@pytest.mark.parametrize("case", CONV_CASES, ids=lambda case: case.name)
def test_convolution_matches_the_float64_reference(case):
    assert error(case, chunked.causal_conv_silu(**case.inputs(), **case.options())) <= case.tolerance


def _with_state(case, **options):
    """Return the operator of a case with its state, as `StateCase.run` calls it."""
    operator = getattr(chunked, f"{case.operator}_with_state")
    return lambda *, return_state, **inputs: operator(**inputs, **options)


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_states_match_the_float64_reference(form):
    for case in STATE_CASES:
        options = {} if case.operator == "causal_conv_silu" else {"form": form}
        assert errors(case, *case.run(_with_state(case, **options))) <= case.tolerance, case.name


@pytest.fixture(scope="module")
def half_cases():
    """Return the cases whose exact results fit into float16, with their float16 inputs and exact results.

    Step sizes are limited to what float16 can hold.
    """
    cases = []
    for case in SCAN_CASES:
        inputs = {key: None if t is None else t.half() for key, t in case.inputs().items()}
        inputs["dt"] = inputs["dt"].clamp(-6e4, 88)
        wide = {key: None if t is None else t.double() for key, t in inputs.items()}
        exact = getattr(reference, case.operator)(**wide, **case.options())
        if exact.abs().max() < 3e4:
            cases.append((case, inputs, exact))
    assert {case.dt for case, _, _ in cases} == {"usual", "large", "small", "mixed"}
    return cases


@pytest.mark.parametrize("form", FORMS, ids=name)
def test_half_precision_throughout(form, half_cases):
    for case, inputs, exact in half_cases:
        y = getattr(chunked, case.operator)(**inputs, **case.options(), form=form)
        assert y.dtype == torch.float16
        assert float((y.double() - exact).abs().max() / exact.abs().max()) < 5e-3, case.name


@pytest.mark.parametrize("kind", chunked.SOFTPLUS)
def test_softplus_is_accurate_far_below_zero_too(kind):
    v = torch.linspace(-80, 100, 100_001)
    exact = torch.nn.functional.softplus(v.double(), threshold=1000)
    assert float(((chunked.softplus(v, kind) - exact) / exact).abs().max()) < 5e-7
    ends = chunked.softplus(torch.tensor([-1e30, -math.inf, 1e30, 1e4]), kind)
    torch.testing.assert_close(ends, torch.tensor([0.0, 0.0, 1e30, 1e4]), rtol=0, atol=0)


def test_shared_decays_are_computed_once():
    inputs = ScanCase(1, 33, 8, 4, "both").inputs()
    inputs["A_b"] = inputs["A"]

    def exponentials(**inputs):
        program = torch.export.export(Scan({}, Form("loop", 8)), (), inputs, strict=False)
        return [node.target for node in program.graph.nodes].count(torch.ops.aten.exp.default)

    separate = exponentials(**{**inputs, "A_b": inputs["A"].clone()})
    shared = exponentials(**{key: t for key, t in inputs.items() if key != "A_b"})
    # one for each of the 8 positions of the chunks, and one for the single token before them
    assert separate - shared == 9


class Scan(torch.nn.Module):
    def __init__(self, options, form):
        super().__init__()
        self.options = {**options, "form": form}

    def forward(self, **inputs):
        inputs.setdefault("A_b", inputs["A"])
        return chunked.bi_selective_scan(**inputs, **self.options)


@pytest.mark.parametrize("form", [Form("loop", 8, "polynomial"), Form("hillis-steele", 8, "polynomial")], ids=name)
def test_plain_operations_of_at_most_four_dimensions(form):
    case = ScanCase(1, 49, 8, 4, "both", "first_input", True)
    program = torch.export.export(Scan(case.options(), form), (), case.inputs(), strict=False).run_decompositions()
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    assert {str(node.target).removeprefix("aten.") for node in calls} <= PLAIN
    assert max(node.meta["val"].dim() for node in calls) <= 4


IN_A_GRAPH = [
    ScanCase(2, 37, 5, 3, "forward", "first_input"),
    ScanCase(2, 37, 5, 3, "backward", "first_input", True),
    ScanCase(2, 37, 5, 3, "both", "first_input", True),
    ScanCase(2, 37, 5, 3, "both"),
    ScanCase(1, 1, 5, 3, "both", "zero", True),
]


@pytest.mark.parametrize("form", chunked.FORMS)
@pytest.mark.parametrize("case", IN_A_GRAPH, ids=lambda case: case.name)
def test_in_place_of_the_operator_in_a_graph(form, case):
    """The form "scan" is tested here only: outside of graphs, PyTorch would compile it."""
    inputs = tuple(case.inputs().values())
    operator = getattr(torch.ops.vmp, case.operator)

    class Module(torch.nn.Module):
        def forward(self, *inputs):
            return operator(*inputs, **case.options())

    program = torch.export.export(Module(), inputs, strict=False)
    replace = partial(getattr(chunked, case.operator), form=Form(form, 4))
    program = program.run_decompositions({operator.default: replace})
    targets = [str(node.target) for node in program.graph.nodes]
    assert not [target for target in targets if target.startswith("vmp.")]
    assert targets.count("scan") == (form == "scan")  # one for both directions
    assert error(case, program.module()(*inputs)) <= case.tolerance


STATES_IN_A_GRAPH = [
    StateCase(ScanCase(2, 37, 5, 3, "forward", "first_input"), (37,), "given"),
    StateCase(ScanCase(2, 37, 5, 3, "backward", "first_input", True), (37,), "given"),
    StateCase(ScanCase(2, 37, 5, 3, "both", "first_input", True), (37,), "given"),
    StateCase(ScanCase(40, 1, 5, 3), (1,), "given"),
    StateCase(ScanCase(2, 5, 5, 3, "both"), (5,), "none"),
    StateCase(ConvCase(2, 37, 5, 4), (37,), "given"),
    StateCase(ConvCase(40, 1, 5, 4, reverse=True), (1,), "given"),
    StateCase(ConvCase(2, 5, 5, 1), (5,), "given"),
]


@pytest.mark.parametrize("form", chunked.FORMS)
@pytest.mark.parametrize("case", STATES_IN_A_GRAPH, ids=lambda case: case.name)
def test_in_place_of_the_operator_with_a_state_in_a_graph(form, case):
    operator = getattr(torch.ops.vmp, f"{case.operator}_with_state")

    class Module(torch.nn.Module):
        def forward(self, *inputs):
            return operator(*inputs, **case.options())

    inputs = tuple(case.inputs().values())
    program = with_plain_operations(torch.export.export(Module(), inputs, strict=False), Form(form, 4))
    targets = [str(node.target) for node in program.graph.nodes]
    assert not [target for target in targets if target.startswith("vmp.")]
    assert targets.count("scan") == (form == "scan" and "scan" in case.operator)
    assert errors(case, *program.module()(*inputs)) <= case.tolerance


@pytest.mark.parametrize(
    "form", [Form("cumulative"), Form("loop", 1), Form("loop", 8, "log")], ids=lambda form: str(form)
)
def test_unknown_forms_are_refused(form):
    case = ScanCase(1, 5, 4, 2)
    with pytest.raises(ValueError, match="is not a form of the scan"):
        chunked.selective_scan(**case.inputs(), **case.options(), form=form)
    with pytest.raises(ValueError, match="initial_state is 'ones'"):
        chunked.selective_scan(**case.inputs(), initial_state="ones")
