"""The NEON kernels, cross-compiled and run under qemu on the same cases as the kernels of this machine."""

import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.ops import reference
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, error
from vmp_edge.ops.stateful_cases import STATE_CASES, errors

HERE = Path(__file__).parent
TOOLCHAIN = HERE.parents[1] / "runtimes" / "native" / "cmake" / "aarch64-linux-gnu.cmake"
CMAKE = shutil.which("cmake") or shutil.which("cmake", path=Path(sys.executable).parent)
MISSING = [tool for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64", "make") if shutil.which(tool) is None]
MISSING += [] if CMAKE else ["cmake"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

OPERATIONS = {"selective_scan": 0, "bi_selective_scan": 1, "causal_conv_silu": 2}
ELEMENTARY = {"exp": 3, "decay": 4, "softplus": 5, "silu": 6}
OPTIONAL = ("D", "z", "dt_bias")
RATE = np.float32(-16)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neon")
    for command in (
        [
            CMAKE,
            "-S",
            HERE / "runner",
            "-B",
            folder,
            f"-DCMAKE_TOOLCHAIN_FILE={TOOLCHAIN}",
            "-DCMAKE_BUILD_TYPE=Release",
        ],
        [CMAKE, "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stdout + done.stderr

    def run(isa, records):
        (folder / "in").write_bytes(b"".join(records))
        command = ["qemu-aarch64", folder / "case_runner", isa, folder / "in", folder / "out"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return np.fromfile(folder / "out", np.float32)

    return run


def _weight(case):
    return torch.randn(case.batch, case.length, case.channels, generator=torch.Generator().manual_seed(1))


def _record(case, inputs=None, weights=None):
    """Return the record of a case, or of a call with these inputs and weights of its results."""
    inputs, options = case.inputs() if inputs is None else inputs, case.options()
    conv = "weight" in inputs
    weights = [_weight(case)] if weights is None else weights
    optional = [inputs.get(name) for name in (("bias", "state") if conv else (*OPTIONAL, "state"))] + weights[1:]
    header = [
        OPERATIONS[case.operator], *inputs["x"].shape, inputs["weight" if conv else "A"].shape[1],
        options.get("reverse", False), options.get("initial_state") == "first_input",
        options.get("mask_diagonal", options.get("mask_backward", False)), 2,
        sum(1 << bit for bit, tensor in enumerate(optional) if tensor is not None and tensor.numel()),
    ]  # fmt: skip
    arrays = [t.contiguous().numpy() for t in (*inputs.values(), *weights) if t is not None]
    return np.array(header, np.int64).tobytes() + b"".join(array.tobytes() for array in arrays)


@cache
def _exact_gradients(case):
    inputs = {n: None if t is None else t.double().requires_grad_() for n, t in case.inputs().items()}
    y = getattr(reference, case.operator)(**inputs, **case.options())
    leaves = [t for t in inputs.values() if t is not None]
    return torch.autograd.grad(y, leaves, _weight(case).double(), materialize_grads=True)


@pytest.mark.parametrize("isa", ["neon", "scalar"])
def test_cases_and_gradients(runner, isa):
    cases = SCAN_CASES + CONV_CASES
    results = torch.from_numpy(runner(isa, [_record(case) for case in cases]))
    for case in cases:
        y, results = results[: _weight(case).numel()], results[_weight(case).numel() :]
        assert error(case, y.view(_weight(case).shape)) <= case.tolerance, case.name
        for exact in _exact_gradients(case):
            grad, results = results[: exact.numel()].view(exact.shape), results[exact.numel() :]
            assert float((grad.double() - exact).abs().max() / (exact.abs().max() + 1e-30)) <= 2e-5, case.name
    assert results.numel() == 0


def _take(results, shapes):
    """Cut arrays of these shapes off the front of the results."""
    arrays = []
    for shape in shapes:
        size = int(np.prod(shape))
        arrays.append(results[:size].view(shape))
        results = results[size:]
    return arrays, results


def _check_gradients(case, call, weights, grads):
    inputs = {n: None if t is None else t.double().requires_grad_() for n, t in call.items()}
    y, last = getattr(reference, case.operator)(**inputs, **case.options(), return_state=True)
    leaves = [t for t in inputs.values() if t is not None]
    total = sum((t * weight.double()).sum() for t, weight in zip((y, last), weights, strict=True))
    for grad, exact in zip(grads, torch.autograd.grad(total, leaves, materialize_grads=True), strict=True):
        if exact.numel():
            assert float((grad.double() - exact).abs().max() / (exact.abs().max() + 1e-30)) <= 5e-5, case.name


@pytest.mark.parametrize("isa", ["neon", "scalar"])
def test_states_and_their_gradients(runner, isa):
    """Each round runs the next call of all cases."""
    cases = [*STATE_CASES, *(replace(case, splits=(case.case.length,)) for case in STATE_CASES)]
    running = [(case, calls, next(calls)) for case in cases for calls in [case.calls()]]
    done, generator = {}, torch.Generator().manual_seed(1)
    while running:
        shapes = [[call["x"].shape, case.state_shape()] for case, _, call in running]
        weights = [[torch.randn(shape, generator=generator) for shape in pair] for pair in shapes]
        records = [_record(case, call, pair) for (case, _, call), pair in zip(running, weights, strict=True)]
        results, left = torch.from_numpy(runner(isa, records)), []
        for (case, calls, call), pair in zip(running, weights, strict=True):
            inputs = [t.shape for t in call.values() if t is not None]
            (y, last, *grads), results = _take(results, [*(t.shape for t in pair), *inputs])
            _check_gradients(case, call, pair, grads)
            try:
                left.append((case, calls, calls.send((y, last))))
            except StopIteration as end:
                done[case] = end.value
        running = left
    for case in STATE_CASES:
        assert errors(case, *done[case]) <= case.tolerance, case.name
        if getattr(case.case, "direction", "") != "both":  # several calls equal one bit for bit
            assert all(map(torch.equal, done[case], done[replace(case, splits=(case.case.length,))])), case.name


@pytest.mark.parametrize("isa", ["neon", "scalar"])
@pytest.mark.parametrize(
    ("name", "low", "high", "exact"),
    [
        ("exp", -87.3, 88.7, np.exp),
        ("decay", 0, 87.3 / 16, lambda v: np.exp(v * -16)),
        ("softplus", -87, 100, lambda v: np.maximum(v, 0) + np.log1p(np.exp(-np.abs(v)))),
        ("silu", -80, 100, lambda v: v / (1 + np.exp(-v))),
    ],
)
def test_elementary_functions_are_accurate(runner, isa, name, low, high, exact):
    values = np.linspace(low, high, 200_001, dtype=np.float32)
    values = values[values != 0]
    header = np.array([ELEMENTARY[name], 0, len(values), 0, 0, 0, 0, 0, 0, 0], np.int64)
    out = runner(isa, [header.tobytes() + values.tobytes() + RATE.tobytes()])
    expected = exact(values.astype(np.float64))
    assert np.max(np.abs(out - expected) / np.abs(expected)) <= 2e-6
