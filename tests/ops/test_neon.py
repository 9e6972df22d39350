"""The NEON kernels, cross-compiled and run under qemu on the same cases as the kernels of this machine."""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.ops import reference
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, ConvCase, error

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


def _record(case):
    inputs, options = case.inputs(), case.options()
    conv = isinstance(case, ConvCase)
    optional = ("bias",) if conv else OPTIONAL
    header = [
        OPERATIONS[case.operator], case.batch, case.length, case.channels, case.taps if conv else case.states,
        options.get("reverse", False), options.get("initial_state") == "first_input",
        options.get("mask_diagonal", options.get("mask_backward", False)), 2,
        sum(1 << bit for bit, name in enumerate(optional) if inputs[name] is not None),
    ]  # fmt: skip
    arrays = [t.contiguous().numpy() for t in (*inputs.values(), _weight(case)) if t is not None]
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
