"""Operators that take and return a state: the one case list on every instruction set, splits, gradients, PyTorch."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from vmp_edge import ops
from vmp_edge.ops import _native, reference
from vmp_edge.ops.cases import ConvCase, ScanCase
from vmp_edge.ops.stateful_cases import LONG_CASES, STATE_CASES, StateCase, errors

SOME = [
    StateCase(ScanCase(2, 9, 6, 4, "backward", "first_input", True), (9,), "given"),
    StateCase(ScanCase(1, 5, 7, 3, "forward", leave_out=("D", "z", "dt_bias")), (5,), "none"),
    StateCase(ScanCase(2, 9, 6, 4, "both", "first_input", True), (9,), "given"),
    StateCase(ScanCase(2, 9, 6, 4, "both", layout="slices", leave_out=("z",)), (9,), "zero"),
    StateCase(ConvCase(2, 9, 6, 4, reverse=True), (9,), "given"),
    StateCase(ConvCase(2, 2, 6, 4), (2,), "given"),
    StateCase(ConvCase(2, 9, 6, 3, bias=False, layout="transposed"), (9,), "none"),
]
some_cases = pytest.mark.parametrize("case", SOME, ids=lambda case: case.name)


@pytest.fixture(params=_native.isas())
def isa(request):
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(None)


def _operator(case, module=ops):
    return getattr(module, case.operator)


def _overload(case):
    return getattr(torch.ops.vmp, f"{case.operator}_with_state")


def test_the_names_of_the_cases_are_unique():
    assert len({case.name for case in STATE_CASES}) == len(STATE_CASES)


def test_matches_the_float64_reference(isa):
    for case in STATE_CASES:
        y, last = case.run(_operator(case))
        assert last.is_contiguous() and last.dtype == torch.float32, case.name
        assert errors(case, y, last) <= case.tolerance, case.name


def test_the_reference_holds_its_own_tolerance_in_float32():
    for case in STATE_CASES:
        assert errors(case, *case.run(_operator(case, reference))) <= case.tolerance, case.name


def test_several_calls_equal_one_bit_for_bit(isa):
    for case in STATE_CASES:
        if getattr(case.case, "direction", "") != "both":  # whose backward direction starts afresh in each call
            whole = replace(case, splits=(case.case.length,))
            assert all(map(torch.equal, case.run(_operator(case)), whole.run(_operator(case)))), case.name


def test_without_a_state_the_result_is_that_of_the_plain_operator(isa):
    for case in STATE_CASES:
        whole = replace(case, splits=(case.case.length,), start="none")
        plain = _operator(case)(**case.case.inputs(), **case.options())
        assert torch.equal(whole.run(_operator(case))[0], plain), case.name


@pytest.mark.parametrize("case", LONG_CASES, ids=lambda case: case.case.name)
def test_a_hundred_thousand_steps_do_not_drift(case, isa):
    y, last = case.run(_operator(case))
    assert errors(case, y, last) <= case.tolerance
    one = replace(case, splits=(case.case.length,)).run(_operator(case))
    assert torch.equal(y, one[0]) and torch.equal(last, one[1])


def _gradients(module, case, dtype):
    whole = {**case.case.inputs(), "state": case.state()}
    inputs = {n: None if t is None else t.to(dtype).requires_grad_() for n, t in whole.items()}
    y, last = case.run(_operator(case, module), inputs)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=generator).to(dtype) for t in (y, last)]
    leaves = {n: t for n, t in inputs.items() if t is not None}
    total = sum((t * w).sum() for t, w in zip((y, last), weights, strict=True))
    return dict(zip(leaves, torch.autograd.grad(total, list(leaves.values()), materialize_grads=True), strict=True))


@cache
def _exact_gradients(case):
    return _gradients(reference, case, torch.float64)


def test_gradients_through_all_calls_match_autograd_through_the_float64_reference(isa):
    for case in STATE_CASES:
        exact = _exact_gradients(case)
        for name, grad in _gradients(ops, case, torch.float32).items():
            assert grad.shape == exact[name].shape and torch.isfinite(grad).all(), (case.name, name)
            if grad.numel():
                # The gradient of the state goes through the decays of all steps, whose errors add up.
                tolerance = 5e-5 if name == "state" else 2e-5
                largest = exact[name].abs().max() + 1e-30
                assert float((grad.double() - exact[name]).abs().max() / largest) <= tolerance, (case.name, name)


@some_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(case, dtype):
    inputs = [None if t is None else t.to(dtype).requires_grad_() for t in case.inputs().values()]
    torch.library.opcheck(_overload(case).default, inputs, case.options())


@some_cases
def test_opcheck_of_the_gradient(case):
    inputs = list(case.inputs().values())
    y, last = case.run(_operator(case))
    grads = [torch.randn_like(y), torch.randn_like(last)]
    backward = getattr(torch.ops.vmp, f"{case.operator}_with_state_backward").default
    torch.library.opcheck(backward, [*grads, *inputs], case.options())
    alone = backward(grads[0], None, *inputs, **case.options())
    with_zeros = backward(grads[0], torch.zeros_like(last), *inputs, **case.options())
    assert all(torch.equal(a, b) for a, b in zip(alone, with_zeros, strict=True))


@some_cases
def test_float64_passes_gradcheck(case):
    inputs = {n: None if t is None else t.double().requires_grad_() for n, t in case.inputs().items()}
    names = [name for name, tensor in inputs.items() if tensor is not None]

    def function(*tensors):
        by_name = dict(zip(names, tensors, strict=True))
        return _operator(case)(**{n: by_name.get(n) for n in inputs}, **case.options(), return_state=True)

    y, last = function(*(inputs[name] for name in names))
    assert y.dtype == last.dtype == torch.float64
    assert torch.autograd.gradcheck(function, [inputs[name] for name in names])


@some_cases
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_state_in_float32(case, dtype):
    inputs = {n: t if t is None or n == "state" else t.to(dtype) for n, t in case.inputs().items()}
    y, last = _operator(case)(**inputs, **case.options(), return_state=True)
    wide = {n: None if t is None else t.float() for n, t in inputs.items()}
    exact, exact_last = _operator(case)(**wide, **case.options(), return_state=True)
    assert y.dtype == dtype and torch.equal(y, exact.to(dtype))
    assert last.dtype == torch.float32 and torch.equal(last, exact_last)


@some_cases
def test_out_variant_writes_what_the_operator_returns(case):
    out, last = torch.empty(0), torch.empty(0)
    results = _overload(case).out(*case.inputs().values(), **case.options(), out=out, last=last)
    assert results[0] is out and results[1] is last
    expected = _operator(case)(**case.inputs(), **case.options(), return_state=True)
    assert torch.equal(out, expected[0]) and torch.equal(last, expected[1])


@some_cases
def test_exports_as_a_single_node(case):
    inputs = case.inputs()
    names = [name for name, tensor in inputs.items() if tensor is not None]

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            by_name = dict(zip(names, tensors, strict=True))
            return _operator(case)(**{n: by_name.get(n) for n in inputs}, **case.options(), return_state=True)

    tensors = tuple(inputs[name] for name in names)
    program = torch.export.export(Module(), tensors)
    for graph in (program.graph, program.run_decompositions().graph):
        nodes = [node.target for node in graph.nodes if node.op == "call_function"]
        assert [node for node in nodes if "getitem" not in str(node)] == [_overload(case).default]
    expected = _operator(case)(**inputs, **case.options(), return_state=True)
    assert all(torch.equal(a, b) for a, b in zip(program.module()(*tensors), expected, strict=True))


@some_cases
def test_a_state_without_a_wish_for_the_last_one(case):
    y = _operator(case)(**case.inputs(), **case.options())
    assert torch.equal(y, _operator(case)(**case.inputs(), **case.options(), return_state=True)[0])


def test_a_state_may_lie_at_any_stride():
    case = SOME[2]
    inputs = case.inputs()
    state = inputs["state"].transpose(1, 2).contiguous().transpose(1, 2)
    expected = case.run(ops.bi_selective_scan)
    results = ops.bi_selective_scan(**{**inputs, "state": state}, **case.options(), return_state=True)
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.parametrize("case", [SOME[0], SOME[4]], ids=lambda case: case.name)
def test_results_do_not_depend_on_the_number_of_threads(case, isa):
    case = replace(case, case=replace(case.case, batch=5, channels=70))
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            runs.append(case.run(_operator(case)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (SOME[0], {"state": torch.zeros(2, 4, 6)}, r"state has shape \(2, 4, 6\).*channels, states\) = \(2, 6, 4\)"),
        (SOME[4], {"state": torch.zeros(2, 4, 6)}, r"state has shape \(2, 4, 6\).*taps - 1, channels\) = \(2, 3, 6\)"),
        (SOME[0], {"state": torch.zeros(2, 6, 4, dtype=torch.int32)}, "must be floating point"),
        (SOME[0], {"state": torch.zeros(2, 6, 4, device="meta")}, "on one device"),
    ],
)
def test_refuses_what_does_not_fit(case, changes, message):
    with pytest.raises(ValueError, match=message):
        _operator(case)(**{**case.inputs(), **changes}, **case.options())
