"""The native library itself: its choice of an instruction set, threads, forks, and errors when it is absent."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from vmp_edge import ops
from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.ops import _native
from vmp_edge.ops.cases import ScanCase, error

CASE = ScanCase(2, 40, 70, 16, "both", "first_input", True)


@pytest.fixture(autouse=True)
def two_threads():
    """So that the kernels divide their work."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


def test_the_best_instruction_set_is_the_default(monkeypatch):
    monkeypatch.delenv("VMP_OPS_ISA", raising=False)
    _native.set_isa(None)
    assert _native.isa() == _native.isas()[0]
    assert "scalar" in _native.isas()


@pytest.mark.parametrize("name", _native.isas())
def test_the_environment_picks_the_instruction_set(name):
    run = _run("from vmp_edge.ops import _native; print(_native.isa())", VMP_OPS_ISA=name)
    assert run.stdout.strip() == name, run.stderr


def test_an_unknown_instruction_set_in_the_environment_is_one_clear_error():
    code = "import torch; from vmp_edge import ops; ops.causal_conv_silu(torch.ones(1, 2, 3), torch.ones(3, 4))"
    run = _run(code, VMP_OPS_ISA="mmx")
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert "UsageError: VMP_OPS_ISA" in last and "usable here: " in last and "scalar" in last


def test_an_unknown_instruction_set_is_refused_and_changes_nothing():
    before = _native.isa()
    with pytest.raises(UsageError, match="'sse9' cannot be used; usable here"):
        _native.set_isa("sse9")
    assert _native.isa() == before


def test_a_missing_library_says_how_to_build_it(monkeypatch, tmp_path):
    monkeypatch.setenv("VMP_OPS_LIBRARY", str(tmp_path / "libvmp_ops.so"))
    with pytest.raises(MissingDependencyError, match=r"pip install -e "):
        _native.library_path()


def test_a_file_that_is_no_library_is_one_clear_error(tmp_path):
    broken = tmp_path / "libvmp_ops.so"
    broken.write_text("not a library")
    code = "from vmp_edge.ops import _native; _native.load()"
    run = _run(code, VMP_OPS_LIBRARY=str(broken))
    assert "MissingDependencyError" in run.stderr.strip().splitlines()[-1]


def test_the_package_imports_without_the_library():
    run = _run("import vmp_edge.ops", VMP_OPS_LIBRARY="/nowhere/libvmp_ops.so")
    assert run.returncode == 0, run.stderr


def test_null_pointers_and_sizes_out_of_range_are_error_codes():
    library = _native.load()
    assert library.vmp_selective_scan(_native.Scan(1, 1, 1, 1), _native.View(), None) == 1
    assert library.vmp_causal_conv_silu(_native.Conv(1, 1, 1, 17), _native.View(), None) == 1
    with pytest.raises(RuntimeError, match="out of range"):
        _native.check(1)
    with pytest.raises(MemoryError):
        _native.check(2)


def test_a_forked_child_uses_threads_of_its_own():
    torch.set_num_threads(3)
    try:
        inputs = CASE.inputs()
        y = ops.bi_selective_scan(**inputs, **CASE.options())  # starts this process's threads
        child = os.fork()
        if child == 0:
            same = torch.equal(ops.bi_selective_scan(**inputs, **CASE.options()), y)
            os._exit(0 if same else 3)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert torch.equal(ops.bi_selective_scan(**inputs, **CASE.options()), y)
    finally:
        torch.set_num_threads(2)


def test_data_loader_workers_may_scan():
    class Scans(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return ops.bi_selective_scan(**CASE.inputs(), **CASE.options())

    expected = ops.bi_selective_scan(**CASE.inputs(), **CASE.options())
    batches = list(torch.utils.data.DataLoader(Scans(), batch_size=2, num_workers=2, timeout=100))
    assert all(torch.equal(y, expected) for batch in batches for y in batch)


def test_calls_from_several_threads_at_once():
    from concurrent.futures import ThreadPoolExecutor

    inputs, expected = CASE.inputs(), ops.bi_selective_scan(**CASE.inputs(), **CASE.options())
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: ops.bi_selective_scan(**inputs, **CASE.options()), range(40)))
    assert all(torch.equal(y, expected) for y in results)


def test_the_caller_may_bring_a_thread_pool():
    range_fn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    parallel_for = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, range_fn, ctypes.c_void_p)
    calls = []

    @parallel_for
    def backwards_one_by_one(pool, count, task, job):
        calls.append((pool, count))
        for i in reversed(range(count)):
            task(job, i, i + 1)

    inputs = {name: t.contiguous() for name, t in CASE.inputs().items()}
    y = torch.empty_like(inputs["x"])
    views = [
        _native.View(t.data_ptr(), t.stride(0), t.stride(1)) for t in (inputs[n] for n in ("x", "dt", "B", "C", "z"))
    ]
    scan = _native.Scan(
        CASE.batch, CASE.length, CASE.channels, CASE.states, *views,
        *(inputs[name].data_ptr() for name in ("A", "A_b", "D", "dt_bias")), 0, 1, 1,
    )  # fmt: skip
    threads = _native.Threads(1, ctypes.cast(backwards_one_by_one, ctypes.c_void_p), 42)
    code = _native.load().vmp_bi_selective_scan(scan, _native.View(y.data_ptr(), y.stride(0), y.stride(1)), threads)
    assert code == 0 and len(calls) == 1 and calls[0][0] == 42 and calls[0][1] > 1
    assert error(CASE, y) <= CASE.tolerance
