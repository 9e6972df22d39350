"""The CUDA kernels without a GPU, on the one case list: the same source, compiled as C++ and run thread by thread."""

import platform
import shutil
from dataclasses import replace

import pytest
import torch
from cuda_sources import CUDA, compile_emulated

from vmp_edge.ops import _arguments, _cuda, _cuda_kernels, _memory, reference
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, ConvCase, ScanCase, error
from vmp_edge.ops.stateful_cases import STATE_CASES, StateCase, errors

DEVICES = {"a100": (80, 108), "orin": (87, 16), "orin-nano": (87, 8), "h200": (90, 132), "thor": (110, 20)}

PARSERS = {
    "selective_scan": _arguments.scan_arguments,
    "bi_selective_scan": _arguments.bi_scan_arguments,
    "causal_conv_silu": _arguments.conv_arguments,
}
# several blocks of steps and of channels, and every length around a run of steps
LONG_CONV_CASES = [ConvCase(2, 401, 130, taps, reverse) for taps in (4, 7) for reverse in (False, True)]
LONG_CONV_CASES += [ConvCase(1, length, 3, 4, length % 2 == 0) for length in (15, 16, 17, 20, 31, 32, 33, 65)]
HALF_CASES = [case for case in SCAN_CASES if case.dt == "usual"] + CONV_CASES + LONG_CONV_CASES

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="not installed: g++"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the emulation is for x86-64"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("cuda") / "libvmp_cuda_emulated.so"
    return _cuda.open_library(compile_emulated(sorted((CUDA / "src").glob("*.cu")), path))


@pytest.fixture(params=DEVICES)
def device(request, library):
    library.vmp_emulate(*DEVICES[request.param], 0)
    yield request.param
    library.vmp_emulate(*DEVICES["orin"], 0)


def _arguments_of(case, dtype=torch.float32):
    """Return the case's arguments with activations of a dtype; parameters stay float32."""
    inputs = {n: t if t is None or t.dim() < 3 else t.to(dtype) for n, t in case.inputs().items()}
    return PARSERS[case.operator](**inputs, **case.options())


def _compute(library, a):
    run = _cuda_kernels.run_conv if isinstance(a, _arguments.ConvArguments) else _cuda_kernels.run_scan
    return run(library, a, 0)[0]


def _run(library, case):
    return _compute(library, _arguments_of(case))


def _with_state(library, case, dtype=torch.float32, rounded=torch.float32):
    """Return the operator of a case with its state, as `StateCase.run` calls it, with activations of a dtype."""
    run = _cuda_kernels.run_conv if case.operator == "causal_conv_silu" else _cuda_kernels.run_scan

    def operator(*, return_state, **inputs):
        for name, value in inputs.items():
            if isinstance(value, torch.Tensor) and value.dim() == 3 and name != "state":
                inputs[name] = value.to(rounded).to(dtype)
        return run(library, PARSERS[case.operator](**inputs, keeps_state=return_state), 0)

    return operator


@pytest.mark.parametrize("case", SCAN_CASES + CONV_CASES + LONG_CONV_CASES, ids=lambda case: case.name)
def test_matches_the_float64_reference(case, library, device):
    assert error(case, _run(library, case)) <= case.tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", HALF_CASES, ids=lambda case: case.name)
def test_half_precision_is_computed_in_float32(case, dtype, library):
    a = _arguments_of(case, dtype)
    y = _compute(library, a)
    assert y.dtype == dtype
    assert torch.equal(y, _compute(library, a.map_tensors(torch.Tensor.float)).to(dtype))


# several blocks of steps in one call and in several
LONG_STATE_CASES = [
    StateCase(replace(inner, length=401), splits, "given")
    for inner in (
        ScanCase(1, 1, 40, 33, "forward", "first_input"),
        ScanCase(1, 1, 40, 16, "backward", "zero", True),
        ScanCase(1, 1, 40, 16, "both", "first_input", True),
        ConvCase(2, 1, 130, 7),
        ConvCase(2, 1, 130, 4, reverse=True),
    )
    for splits in ((401,), (200, 1, 200))
]


@pytest.mark.parametrize("case", STATE_CASES + LONG_STATE_CASES, ids=lambda case: case.name)
def test_states_match_the_float64_reference(case, library):
    for name in ("orin", "h200"):
        library.vmp_emulate(*DEVICES[name], 0)
        assert errors(case, *case.run(_with_state(library, case))) <= case.tolerance
    library.vmp_emulate(*DEVICES["orin"], 0)


@pytest.mark.parametrize("case", LONG_STATE_CASES, ids=lambda case: case.name)
def test_states_are_float32_in_half_precision(case, library):
    y, last = case.run(_with_state(library, case, torch.float16))
    exact, exact_last = case.run(_with_state(library, case, rounded=torch.float16))
    assert y.dtype == torch.float16 and last.dtype == torch.float32
    assert torch.equal(y, exact.half()) and torch.equal(last, exact_last)


ORDER_CASES = [
    ScanCase(2, 67, 70, 16, "both", "first_input", True),
    ScanCase(1, 130, 40, 33, "both", "first_input"),
    ScanCase(2, 97, 20, 64, "backward", "zero", True),
    ScanCase(1, 200, 9, 20, "forward", "first_input"),
]
CONV_CASE = LONG_CONV_CASES[1]


@pytest.mark.parametrize("case", [*ORDER_CASES, CONV_CASE], ids=lambda case: case.name)
def test_the_order_of_threads_and_blocks_does_not_matter(case, library):
    try:
        runs = []
        for backwards in (0, 1):
            library.vmp_emulate(*DEVICES["h200"], backwards)
            runs.append(_run(library, case))
    finally:
        library.vmp_emulate(*DEVICES["orin"], 0)
    assert error(case, runs[0]) <= case.tolerance
    assert torch.equal(*runs)


def _struct(case):
    return _cuda_kernels.scan_struct(_cuda_kernels.kernel_inputs(_arguments_of(case)))


def test_chunks_are_short_for_a_small_batch_and_long_for_a_full_gpu(library):
    library.vmp_emulate(*DEVICES["orin"], 0)

    def chunks(batch):
        case = ScanCase(batch, 1569, 384, 16, "both")
        struct = _cuda.Scan(batch, case.length, case.channels, case.states, A_b=1)
        count, rest = divmod(_cuda.workspace_bytes(library, struct), 2 * batch * 384 * (16 + 1) * 4)
        assert rest == 0
        return count

    assert [chunks(batch) for batch in (1, 2, 8)] == [33, 17, 17]


def test_one_chunk_needs_no_workspace(library, device):
    assert _cuda.workspace_bytes(library, _struct(ScanCase(2, 16, 40, 16, "both"))) == 0


@pytest.mark.parametrize("case", ORDER_CASES, ids=lambda case: case.name)
def test_nothing_beside_the_outputs_is_written_and_the_workspace_needs_no_initial_value(case, library, device):
    a = _cuda_kernels.kernel_inputs(_arguments_of(case))
    struct = _cuda_kernels.scan_struct(a)
    size = _cuda.workspace_bytes(library, struct) // 4
    workspace = torch.full((size + 64,), torch.nan)
    workspace[size:] = 7
    rows = torch.full((case.batch, case.length + 2, case.channels + 5), 7.0)
    y = rows[:, 1:-1, 2:-3]
    _cuda.check(library, library.vmp_cuda_selective_scan(struct, _memory.view(y), workspace.data_ptr(), 4 * size, 0))
    assert error(case, y) <= case.tolerance
    assert bool((workspace[size:] == 7).all())
    y.fill_(7)
    assert bool((rows == 7).all())


def test_the_convolution_writes_nothing_beside_its_output(library):
    case = CONV_CASE
    a = _cuda_kernels.kernel_inputs(_arguments_of(case))
    rows = torch.full((case.batch, case.length + 2, case.channels + 5), 7.0)
    y = rows[:, 1:-1, 2:-3]
    _cuda.check(library, library.vmp_cuda_causal_conv_silu(_cuda_kernels.conv_struct(a), _memory.view(y), None))
    assert error(case, y) <= case.tolerance
    y.fill_(7)
    assert bool((rows == 7).all())


@pytest.mark.parametrize("taps", [3, 4, 5, 16])
@pytest.mark.parametrize("reverse", [False, True])
def test_not_a_number_is_seen_by_as_many_steps_as_there_are_taps(taps, reverse, library):
    a = _arguments_of(ConvCase(1, 60, 5, taps, reverse))
    a.x[0, 30, 2] = torch.nan
    seen = torch.isnan(_compute(library, a))
    expected = torch.zeros_like(seen)
    expected[0, slice(31 - taps, 31) if reverse else slice(30, 30 + taps), 2] = True
    assert torch.equal(seen, expected)


def test_the_convolution_of_very_negative_numbers_is_zero(library):
    x = torch.tensor([-80.0, -1e3, -1e30, -3e38]).repeat(1, 5, 1)
    y = _compute(library, _arguments.conv_arguments(x, torch.ones(4, 1)))
    torch.testing.assert_close(y, torch.nn.functional.silu(x), rtol=1e-5, atol=1e-37)


def test_not_a_number_is_not_hidden(library, device):
    case = ScanCase(1, 60, 20, 16)
    a = _arguments_of(case)
    a.dt[0, 3, 5] = torch.nan
    y = _compute(library, a)
    assert torch.isnan(y[0, 3:, 5]).all()
    assert torch.isfinite(y[0, :3]).all() and torch.isfinite(y[0, :, :5]).all() and torch.isfinite(y[0, :, 6:]).all()


def test_a_rate_of_zero_keeps_the_state_over_the_longest_steps(library, device):
    a = _arguments_of(ScanCase(1, 150, 3, 2, leave_out=("D", "z", "dt_bias")))
    a = a._replace(A=torch.zeros(3, 2), x=torch.zeros(1, 150, 3), dt=torch.full((1, 150, 3), 3e38))
    a.x[:, 0] = 1
    a = a._replace(initial_state="first_input", B=torch.zeros(1, 150, 2))
    torch.testing.assert_close(_compute(library, a), reference.selective_scan(
        a.x, a.dt, a.A, a.B, a.C, initial_state="first_input"))  # fmt: skip


def test_activations_of_several_dtypes_are_computed_in_float32(library):
    case = ScanCase(1, 60, 20, 16, "both")
    a = _arguments_of(case)
    mixed = a._replace(x=a.x.half())
    y = _compute(library, mixed)
    assert y.dtype == torch.float16
    assert torch.equal(y, _compute(library, a._replace(x=a.x.half().float())).half())


@pytest.mark.parametrize(
    "change",
    [{"batch": 0}, {"length": 0}, {"channels": -1}, {"states": 65}, {"dtype": 3}, {"batch": 2**40}, {"channels": 2**62},
     {"A": None}, {"x": _cuda.View()}],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_refuses_what_is_out_of_range(change, library):
    struct = _struct(ScanCase(1, 16, 4, 4))
    for name, value in change.items():
        setattr(struct, name, value)
    code = library.vmp_cuda_selective_scan(struct, _memory.view(torch.empty(1, 16, 4)), None, 0, None)
    assert code == 1 and b"out of range" in library.vmp_cuda_error(code)


@pytest.mark.parametrize(
    "change",
    [{"batch": 0}, {"length": -1}, {"channels": 0}, {"taps": 0}, {"taps": 17}, {"dtype": -1}, {"batch": 2**40},
     {"length": 2**62}, {"channels": 2**63 - 1}, {"batch": 2**31 - 1, "length": 65}, {"weight": None},
     {"x": _cuda.View()}],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_refuses_a_convolution_out_of_range(change, library):
    struct = _cuda_kernels.conv_struct(_arguments_of(ConvCase(1, 16, 4, 4)))
    for name, value in change.items():
        setattr(struct, name, value)
    y = _memory.view(torch.empty(1, 16, 4))
    assert library.vmp_cuda_causal_conv_silu(struct, y, None) == 1
    assert library.vmp_cuda_causal_conv_silu(struct, _cuda.View(), None) == 1


def test_refuses_a_workspace_that_is_too_small(library):
    case = ORDER_CASES[0]
    struct = _struct(case)
    y = torch.empty(case.batch, case.length, case.channels)
    workspace = torch.empty(_cuda.workspace_bytes(library, struct) // 4)
    arguments = (struct, _memory.view(y), workspace.data_ptr(), 4 * workspace.numel() - 1, 0)
    assert library.vmp_cuda_selective_scan(*arguments) == 2
    assert library.vmp_cuda_selective_scan(struct, _memory.view(y), None, 1 << 40, 0) == 2


def test_refuses_a_device_without_code(library):
    library.vmp_emulate(75, 40, 0)
    try:
        with pytest.raises(RuntimeError, match="emulated CUDA error"):
            _run(library, ScanCase(1, 16, 4, 4))
    finally:
        library.vmp_emulate(*DEVICES["orin"], 0)
