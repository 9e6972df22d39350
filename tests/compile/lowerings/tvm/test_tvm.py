"""TVM bundles give the source model's numbers on this CPU, at every x86-64 level that it has, and on emulated Arm."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from bundles import unsealed

from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import main
from vmp_edge.compile import graph, target
from vmp_edge.errors import BundleError, MissingDependencyError, UsageError, VmpError
from vmp_edge.machine import host_machine
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, error
from vmp_edge.ops.stateful_cases import STATE_CASES, errors
from vmp_edge.recognizer import load

pytest.importorskip("tvm", reason="needs apache-tvm, of the extra `tvm`")

import tvm
import tvm_ffi

from vmp_edge.compile.lowerings.tvm.gemm import TILES, Gemm
from vmp_edge.compile.lowerings.tvm.lowering import link_library, to_library
from vmp_edge.compile.pipeline import Request, build
from vmp_edge.runtimes.tvm.engine import TvmEngine
from vmp_edge.runtimes.tvm.library import build_operators, build_runner, package_folder, runtime_library

NATIVE = target.native()
X86_LEVELS = ["x86-64-v3", "x86-64-v4"]


@pytest.fixture(scope="module")
def library_of(tmp_path_factory):
    """A function that compiles a model's library for this CPU: each model's once, as they differ in options alone."""
    folder, paths = tmp_path_factory.mktemp("libraries"), {}

    def library(model):
        options = repr(model.options)
        if options not in paths:
            to_library(graph.export(model), NATIVE, folder / f"{len(paths)}.so")
            paths[options] = folder / f"{len(paths)}.so"
        return paths[options]

    return library


@pytest.fixture
def as_bundle(tmp_path, library_of):
    """A function that returns what an engine sees of a model's bundle."""

    def make(model):
        shutil.copyfile(library_of(model), tmp_path / "model.so")
        return unsealed(tmp_path, "model.so", model.options)

    return make


@pytest.fixture
def host_bundle(once, checkpoint):
    """A bundle of the small model for this machine; not to be changed."""
    return Bundle.open(once.bundle("--target", "host", "--engine", "tvm", checkpoint=checkpoint))


def random_video(batch=1, frames=4, side=32):
    return np.random.default_rng(0).standard_normal((batch, 3, frames, side, side), dtype=np.float32)


def test_agrees_with_the_source_model(model, as_bundle):
    engine = TvmEngine(as_bundle(model), threads=2)
    video = random_video(batch=2)
    with torch.no_grad():
        expected = model(torch.from_numpy(video)).numpy()
    got = engine.run(video)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
    results = []  # of another thread, which has a pool of its own
    thread = threading.Thread(target=lambda: results.append(engine.run(video)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(results[0], got)
    engine.close()
    engine.close()


def compile_here(function, name):
    """Compile a TIR function for this CPU, and return it as a Python function."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    return tvm.compile(module, target=tvm.target.Target({"kind": "llvm", **NATIVE.llvm}))[name]


EXTRAS = {"": {}, "bias": {"bias": True}, "all": {"epsilon": 1e-2, "bias": True, "residual": True}}


@pytest.mark.parametrize("simd", TILES)
@pytest.mark.parametrize("sizes", [(1, 5, 9), (15, 16, 32), (64, 45, 7)], ids=str)
@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize(("first", "blocks"), [(None, 1), (3, 2)])
def test_products_agree_with_numpy(simd, sizes, extras, first, blocks):
    """All tiles run on this CPU: LLVM makes do with the registers that there are."""
    extra = EXTRAS[extras]
    part = {} if first is None else {"row": sizes[2] + 5, "first": first}
    gemm = Gemm(*sizes, dataclasses.replace(TILES[simd], blocks=blocks), **part, **extra)
    rng = np.random.default_rng(1)
    rows = np.full((gemm.m, gemm.row or gemm.k), np.nan, np.float32)
    a = rows[:, gemm.first : gemm.first + gemm.k]
    a[:] = rng.standard_normal(a.shape)
    weight = rng.standard_normal((gemm.n, gemm.k), dtype=np.float32)
    bias = rng.standard_normal(gemm.n, dtype=np.float32) * gemm.bias
    residual = rng.standard_normal((gemm.m, gemm.n), dtype=np.float32) * gemm.residual
    arrays = [rows, gemm.pack(weight), *([bias] if gemm.bias else []), *([residual] if gemm.residual else [])]
    result = tvm.runtime.tensor(np.full((gemm.m, gemm.n), np.nan, np.float32))
    compile_here(gemm.function(), gemm.name)(*map(tvm.runtime.tensor, arrays), result)
    wide = a.astype(np.float64)
    scale = 1 if gemm.epsilon is None else (np.square(wide).mean(1, keepdims=True) + gemm.epsilon) ** -0.5
    np.testing.assert_allclose(result.numpy(), wide * scale @ weight.T + bias + residual, atol=1e-4, rtol=1e-5)


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    """The operators that are linked into every bundle, as a library of their own."""
    path = tmp_path_factory.mktemp("operators") / "operators.so"
    link_library("g++", str(path), [], build_operators())
    return tvm_ffi.load_module(str(path))


def arguments(case):
    """The arguments of an operator for a case, without the result."""
    return packed(case.inputs(), case.options(), case.layout == "slices")


def packed(inputs, options, as_columns=False):
    """The arguments of an operator, without the results; inputs may be given as columns of the tensors they are of."""
    tensors, firsts = [], []
    for name, tensor in inputs.items():
        first = 0
        if tensor is not None and as_columns and tensor.dim() == 3 and tensor._base is not None:
            tensor, first = tensor._base, tensor.storage_offset()
        tensors.append(None if tensor is None else tvm_ffi.from_dlpack(tensor.contiguous()))
        firsts += [first] if name in ("x", "dt", "B", "C", "z") else []
    flags = [options["reverse"]] if "reverse" in options else []
    if "initial_state" in options:
        flags += [options["initial_state"] == "first_input", options.get("mask_diagonal", options.get("mask_backward"))]
    return [*tensors, *firsts, *map(int, flags)]


@pytest.mark.parametrize("case", [*SCAN_CASES, *CONV_CASES], ids=lambda case: case.name)
def test_operators_agree_with_the_reference(case, operators):
    y = torch.full(case.inputs()["x"].shape, torch.nan)
    operators[f"vmp_{case.operator}"](*arguments(case), tvm_ffi.from_dlpack(y))
    assert error(case, y) <= case.tolerance


@pytest.mark.parametrize("case", STATE_CASES, ids=lambda case: case.name)
def test_operators_carry_a_state(case, operators):
    def operator(return_state, **given):
        inputs = {name: value for name, value in given.items() if name not in case.options()}
        y, last = torch.full(inputs["x"].shape, torch.nan), torch.full(case.state_shape(), torch.nan)
        run = operators[f"vmp_{case.operator}_with_state"]
        run(*packed(inputs, case.options()), tvm_ffi.from_dlpack(y), tvm_ffi.from_dlpack(last))
        return y, last

    y, last = case.run(operator)
    assert errors(case, y, last) <= case.tolerance


def test_operators_refuse_wrong_states(operators):
    case = STATE_CASES[-1]
    tensors = packed(case.inputs(), case.options())
    y, last = torch.empty(case.inputs()["x"].shape), torch.empty(case.state_shape())
    run = operators[f"vmp_{case.operator}_with_state"]
    with pytest.raises(ValueError, match="the last state has a shape"):
        run(*tensors, tvm_ffi.from_dlpack(y), tvm_ffi.from_dlpack(last[:, 1:].contiguous()))
    tensors[list(case.inputs()).index("state")] = tvm_ffi.from_dlpack(last[1:].contiguous())
    with pytest.raises(ValueError, match="state has a shape"):
        run(*tensors, tvm_ffi.from_dlpack(y), tvm_ffi.from_dlpack(last))


def test_operators_refuse_wrong_shapes(operators):
    x, weight, bias, first, reverse = arguments(CONV_CASES[0])
    y = torch.empty(CONV_CASES[0].inputs()["x"].shape)
    result = tvm_ffi.from_dlpack(y)
    with pytest.raises(ValueError, match="bias has a shape"):
        operators["vmp_causal_conv_silu"](x, weight, x, first, reverse, result)
    with pytest.raises(ValueError, match="the result has a shape"):
        operators["vmp_causal_conv_silu"](x, weight, bias, first, reverse, tvm_ffi.from_dlpack(y[:, 1:]))
    for beyond in (-1, 1):
        with pytest.raises(ValueError, match="x has a shape"):
            operators["vmp_causal_conv_silu"](x, weight, bias, beyond, reverse, result)


@pytest.mark.parametrize("name", X86_LEVELS)
def test_x86_targets_run_here(tmp_path, checkpoint, name):
    if not target.runs_here(target.load(name)):
        pytest.skip(f"this CPU is no {name}")
    bundle = build(Request(target=name, checkpoint=checkpoint, output=tmp_path / "bundle"))
    manifest = bundle.manifest
    assert (manifest.engine, manifest.machine, manifest.program) == ("tvm", "x86_64", "model.so")
    assert 0 <= manifest.parity["max_difference"] <= 1e-4
    assert "avx2" in manifest.cpu_features
    assert main(["verify", str(bundle.path)]) == 0


def need_emulator():
    missing = [tool for tool in ("qemu-aarch64", "aarch64-linux-gnu-g++") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    from vmp_edge.compile.cross import tvm_runtime

    try:
        tvm_runtime("aarch64")
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_arm64_runs_under_an_emulator(tmp_path, capfd):
    """egomotion-nano is cross-compiled and run by the C++ runner."""
    if host_machine() == "aarch64":
        pytest.skip("this machine is one: the host's tests cover it")
    need_emulator()
    output = tmp_path / "bundle"
    assert main(["build", "--target", "arm64", "--output", str(output), "--json"]) == 0
    captured = capfd.readouterr()
    parity = json.loads(captured.out.splitlines()[-1])["parity"]
    assert parity["emulator"] == "qemu-aarch64"
    assert 0 <= parity["max_difference"] <= 1e-4
    assert "(under qemu-aarch64)" in captured.err
    with pytest.raises(BundleError, match="is for aarch64, this machine is"):
        Bundle.open(output)


def test_a_bundle_that_cannot_be_run_says_so(tmp_path, checkpoint, capfd, monkeypatch):
    name = "arm64" if host_machine() != "aarch64" else "x86-64-v3"
    if shutil.which(f"{target.load(name).machine.replace('_', '-')}-linux-gnu-g++") is None:
        pytest.skip(f"no C++ compiler for {name}")
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda tool, **given: None if "qemu" in tool else which(tool, **given))
    output = tmp_path / "bundle"
    assert main(["build", "--target", name, "--checkpoint", str(checkpoint), "--output", str(output)]) == 0
    parity = Bundle.open(output, any_machine=True).manifest.parity
    assert list(parity) == ["not_run"]
    assert "NOT compared with the source model: running it needs qemu" in capfd.readouterr().err


def test_the_runner_needs_no_python(tmp_path, host_bundle):
    """The C++ runner runs this machine's own bundle."""
    bundle = host_bundle
    video = random_video(batch=2)
    video.transpose(0, 2, 1, 3, 4).tofile(tmp_path / "in")
    command = [
        build_runner(),
        "cpu",
        runtime_library(),
        bundle.program,
        tmp_path / "in",
        tmp_path / "out",
        "5",  # classes
        *("4", "3", "32", "32"),
    ]
    environment = {"LD_LIBRARY_PATH": str(package_folder("tvm_ffi") / "lib")}
    subprocess.run(command, check=True, env=environment)
    got = np.fromfile(tmp_path / "out", np.float32).reshape(2, -1)
    with load(bundle.path) as recognizer:
        np.testing.assert_array_equal(got, recognizer.predict_video(video))
    (tmp_path / "in").write_bytes(b"1234567")
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr == "runner: the input file is not a whole number of clips\n"


RUN_WITHOUT_TORCH = """
import json, sys
import numpy as np
import vmp_edge
recognizer = vmp_edge.load(sys.argv[1])
size = recognizer.manifest.image_size
recognizer.predict(np.zeros((4, size, size, 3), np.uint8))
print(json.dumps([name for name in ("torch", "tvm") if name in sys.modules]))
"""


def test_runs_without_pytorch_and_compiler(tmp_path, host_bundle):
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, str(host_bundle.path)]
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(process.stdout) == []
    assert process.stderr == ""


def test_a_cpu_that_lacks_a_feature_is_refused(host_bundle):
    manifest = dataclasses.replace(host_bundle.manifest, cpu_features=("avx1024",))
    with pytest.raises(BundleError, match="needs a CPU with avx1024, which this one lacks"):
        TvmEngine(dataclasses.replace(host_bundle, manifest=manifest))


def test_no_target_fits_this_cpu(monkeypatch):
    monkeypatch.setattr(target, "missing_cpu_features", lambda needed: list(needed))
    with pytest.raises(UsageError, match=r"TVM has no target for this CPU .*choose another --engine"):
        target.native()


def test_a_damaged_library_is_one_line(as_bundle, model, tmp_path):
    as_bundle(model).program.write_bytes(b"not a library")
    bundle = unsealed(tmp_path, "model.so", model.options)
    with pytest.raises(BundleError, match=r"model\.so: cannot be loaded .*build the bundle again") as caught:
        TvmEngine(bundle)
    assert "\n" not in str(caught.value)


def test_a_wrong_video_is_one_line(as_bundle, model):
    engine = TvmEngine(as_bundle(model), threads=1)
    engine._program._tensors = [tvm_ffi.from_dlpack(np.zeros((1, 2, 3, 4), np.float32))]
    with pytest.raises(VmpError, match=r"^TVM: ") as caught:
        engine.run(random_video())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["tvm", "tvm_ffi"])
def test_missing_extra_is_one_line(tmp_path, checkpoint, missing):
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from vmp_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "build", "--target", "host", "--engine", "tvm"]
    command += ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "bundle")]
    environment = {**os.environ, "VMP_EDGE_CACHE": str(tmp_path / "cache")}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert process.returncode == 1
    assert "[tvm]'" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "bundle").exists()


def test_missing_compiler_is_one_line(checkpoint, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    name = "arm64" if host_machine() != "aarch64" else "x86-64-v3"
    assert main(["build", "--target", name, "--checkpoint", str(checkpoint), "--output", str(tmp_path / "b")]) == 1
    assert "(Debian: apt install g++-" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "b").exists()
