"""The native kernels on every instruction set of this machine: the one case list, published goldens, gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge import ops
from vmp_edge.ops import _native, reference
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, ConvCase, ScanCase, error

DATA = Path(__file__).parents[1] / "data"
GOLDENS = sorted(DATA.glob("scan_*.npz"))
EXTREME = ("large", "small", "mixed")


@pytest.fixture(params=_native.isas())
def isa(request):
    _native.set_isa(request.param)
    yield request.param
    _native.set_isa(None)


@pytest.mark.parametrize("case", SCAN_CASES + CONV_CASES, ids=lambda case: case.name)
def test_matches_the_float64_reference(case, isa):
    y = getattr(ops, case.operator)(**case.inputs(), **case.options())
    assert y.is_contiguous()
    assert error(case, y) <= case.tolerance


@pytest.mark.parametrize("case", SCAN_CASES + CONV_CASES, ids=lambda case: case.name)
def test_the_reference_holds_its_own_tolerance_in_float32(case):
    assert error(case, getattr(reference, case.operator)(**case.inputs(), **case.options())) <= case.tolerance


def test_error_sees_a_wrong_element():
    case = SCAN_CASES[-1]
    y = ops.bi_selective_scan(**case.inputs(), **case.options())
    y[1, 5, 100] += 1e-3 * y.abs().max()
    assert error(case, y) > 10 * case.tolerance


def _gradients(module, case, dtype, weight):
    inputs = {n: None if t is None else t.to(dtype).requires_grad_() for n, t in case.inputs().items()}
    y = getattr(module, case.operator)(**inputs, **case.options())
    leaves = {n: t for n, t in inputs.items() if t is not None}
    grads = torch.autograd.grad(y, list(leaves.values()), weight.to(dtype), materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("case", SCAN_CASES + CONV_CASES, ids=lambda case: case.name)
def test_gradients_match_autograd_through_the_float64_reference(case, isa):
    weight = torch.randn(case.batch, case.length, case.channels, generator=torch.Generator().manual_seed(1))
    native = _gradients(ops, case, torch.float32, weight)
    exact = _gradients(reference, case, torch.float64, weight)
    for name, grad in native.items():
        assert torch.isfinite(grad).all(), name
        scale = exact[name].abs().max() + 1e-30
        assert float((grad.double() - exact[name]).abs().max() / scale) <= 2e-5, name


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_published_goldens(path, isa):
    data = {name: torch.from_numpy(array) for name, array in np.load(path).items() if array.dtype == np.float32}
    x, dt, z, B, C = (data[name].transpose(1, 2) for name in ("x", "dt", "z", "B", "C"))

    def scan(A, **options):
        return ops.selective_scan(x, dt, A, B, C, data["D"], z, data["dt_bias"], **options)

    def both(**options):
        return ops.bi_selective_scan(x, dt, data["A"], data["A_b"], B, C, data["D"], z, data["dt_bias"], **options)

    A, A_b = data["A"], data["A_b"]
    residual = {"initial_state": "first_input"}
    results = {
        "vanilla_forward": scan(A),
        "vanilla_backward": scan(A_b, reverse=True),
        "residual_forward": scan(A, **residual),
        "residual_backward": scan(A_b, reverse=True, **residual),
        "residual_masked_backward": scan(A_b, reverse=True, mask_diagonal=True, **residual),
    }
    for name, y in results.items():
        torch.testing.assert_close(y.transpose(1, 2), data[name], rtol=1e-4, atol=1e-5, msg=name)
    for options, parts in (
        ({}, ("vanilla_forward", "vanilla_backward")),
        (residual, ("residual_forward", "residual_backward")),
        ({**residual, "mask_backward": True}, ("residual_forward", "residual_masked_backward")),
    ):
        total = data[parts[0]] + data[parts[1]]
        torch.testing.assert_close(both(**options).transpose(1, 2), total, rtol=1e-4, atol=2e-5)


def test_goldens_are_there():
    assert len(GOLDENS) == 4


@pytest.mark.parametrize(
    "case",
    [
        ScanCase(1, 300, 200, 16, "both", "first_input", True),
        ScanCase(3, 77, 40, 17, "backward"),
        ConvCase(2, 301, 70, 4),
    ],
    ids=lambda case: case.name,
)
def test_results_do_not_depend_on_the_number_of_threads(case, isa):
    weight = torch.randn(case.batch, case.length, case.channels, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y = getattr(ops, case.operator)(**case.inputs(), **case.options())
            runs.append([y, *_gradients(ops, case, torch.float32, weight).values()])
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(single, many) for single, many in zip(runs[0], run, strict=True))


def _sweep(low, high):
    return np.concatenate([np.linspace(low, high, 400_001), np.random.default_rng(0).uniform(low, high, 400_000)])


def _apply(function, values, *arguments):
    values = np.ascontiguousarray(values, np.float32)
    out = np.empty_like(values)
    _native.check(function(values.ctypes.data, *arguments, out.ctypes.data, values.size))
    return values.astype(np.float64), out


def _relative(result, exact):
    return np.max(np.abs(result - exact) / np.abs(exact))


def test_exp_is_accurate(isa):
    v, out = _apply(_native.load().vmp_exp, _sweep(-87.3, 88.7))
    assert _relative(out, np.exp(v)) <= 2e-6
    _, out = _apply(_native.load().vmp_exp, [0, 89, 1e4, 1e30, np.inf, -104, -1e4, -1e30, -np.inf])
    np.testing.assert_array_equal(out, [1, *[np.inf] * 4, *[0] * 4])


@pytest.mark.parametrize("rate", [-1e-3, -0.37, -1.0, -16.0, -1234.5])
def test_decay_is_accurate_and_vanishes_for_long_steps(rate, isa):
    delta, out = _apply(_native.load().vmp_decay, _sweep(0, 87.3 / -rate), rate)
    assert _relative(out, np.exp(delta * float(np.float32(rate)))) <= 2e-6
    _, out = _apply(_native.load().vmp_decay, [0, 200 / -rate, 1e6 / -rate, 1e30, 3e38], rate)
    np.testing.assert_array_equal(out, [1, 0, 0, 0, 0])


def test_softplus_is_accurate_far_below_zero_too(isa):
    v, out = _apply(_native.load().vmp_softplus, np.concatenate([_sweep(-87, 100), _sweep(-3, 3)]))
    exact = np.maximum(v, 0) + np.log1p(np.exp(-np.abs(v)))
    assert _relative(out, exact) <= 2e-6
    _, out = _apply(_native.load().vmp_softplus, [-1e30, -1e4, 1e4, 1e30])
    np.testing.assert_array_equal(out, np.float32([0, 0, 1e4, 1e30]))


def test_silu_is_accurate(isa):
    v, out = _apply(_native.load().vmp_silu, np.concatenate([_sweep(-80, 100), _sweep(-3, 3)]))
    v, out = v[v != 0], out[v != 0]
    assert _relative(out, v / (1 + np.exp(-v))) <= 2e-6
    _, out = _apply(_native.load().vmp_silu, [0, -1e30, 1e30])
    np.testing.assert_array_equal(out, np.float32([0, 0, 1e30]))


def test_not_a_number_is_not_hidden(isa):
    inputs = ScanCase(1, 8, 20, 16).inputs()
    inputs["dt"][0, 3, 5] = torch.nan
    y = ops.selective_scan(**inputs)
    assert torch.isnan(y[0, 3:, 5]).all()
    assert torch.isfinite(y[0, :3]).all() and torch.isfinite(y[0, :, :5]).all() and torch.isfinite(y[0, :, 6:]).all()
