"""Bundles for NVIDIA GPUs, tested without a GPU: kernels are compiled for each architecture, and run on the CPU."""

import ctypes
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from bundles import unsealed

from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration import quantisation
from vmp_edge.cli import main
from vmp_edge.compile import graph, target
from vmp_edge.errors import BuildError, MissingDependencyError, UsageError
from vmp_edge.machine import host_machine

pytest.importorskip("tvm", reason="needs apache-tvm, of the extra `tvm`")

from vmp_edge.compile.emulation.cuda import compile_kernels
from vmp_edge.compile.emulation.runners import EmulatedTvm
from vmp_edge.compile.lowerings.tvm.cuda import kernels, toolchain
from vmp_edge.compile.lowerings.tvm.cuda.kernels import Gpu, Scan, ScanPlan, View
from vmp_edge.compile.lowerings.tvm.lowering import to_gpu_library
from vmp_edge.runtimes.tvm.library import CUDART, build_cuda_driver, build_cudart, cuda_library, package_folder

CUDA = target.load("cuda")
ORIN = Gpu(87, 16)
NVCC = toolchain.find_nvcc()
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="not installed: nvcc")
needs_nvrtc = pytest.mark.skipif(toolchain.find_nvrtc() is None, reason="needs NVRTC, of the extra `jetpack6`")
pytestmark = pytest.mark.skipif(host_machine() != "x86_64", reason="the emulated GPU's host is x86-64 here")


# ------------------------------------------------------------------------------------------------------------ kernels


def launch(library, operation, arrays):
    """Run an operation's kernels on host arrays, by the buffers' names."""
    arguments = [ctypes.c_void_p(arrays[buffer.name].ctypes.data) for buffer in operation.buffers]
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
    for kernel in operation.launches:
        sizes = [(ctypes.c_uint * 3)(*size) for size in (kernel.grid, kernel.block)]
        run = getattr(library, f"vmp_launch_{kernel.name}")
        assert run(*sizes, ctypes.c_size_t(0), pointers) == 0


GEMMS = [  # m, n, k, the length of a's rows, and the first column in them
    (1, 10, 96, 96, 0),
    (65, 192, 6, 38, 0),
    (65, 38, 192, 192, 0),
    (70, 129, 40, 44, 4),
    (130, 64, 64, 136, 72),
    (33, 7, 33, 50, 17),
]


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """The library of all products of `GEMMS`, compiled once, and their operations."""
    operations = {}
    for index, (m, n, k, stride, offset) in enumerate(GEMMS):
        for dtype in ("float16", "float32"):
            for rows, gpu in ((64, Gpu(87, 1)), (32, Gpu(87, -(-m // 64) * -(-n // 64) + 1)), (16, Gpu(87, 10**6))):
                for extras in ((), ("bias", "residual")):
                    out = "float32" if extras else dtype
                    name = f"gemm_{index}_{dtype}_{rows}_{len(extras)}"
                    operations[name] = kernels.gemm(name, m, n, View(stride, offset), k, dtype, out, extras, gpu)
    folder = tmp_path_factory.mktemp("products")
    library = compile_kernels([kernels.source_of(list(operations.values()))], "g++", folder)
    return ctypes.CDLL(str(library)), operations


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("extras", [0, 2], ids=["plain", "bias+residual"])
@pytest.mark.parametrize("rows", [64, 32, 16])
@pytest.mark.parametrize("index", range(len(GEMMS)), ids=lambda index: "x".join(map(str, GEMMS[index])))
def test_products_agree_with_numpy(products, index, rows, extras, dtype):
    library, operations = products
    m, n, k, _, offset = GEMMS[index]
    operation = operations[f"gemm_{index}_{dtype}_{rows}_{extras}"]
    rng = np.random.default_rng(3)
    arrays = {b.name: rng.standard_normal(b.shape).astype(b.dtype) for b in operation.inputs}
    arrays["y"] = np.full((m, n), np.nan, operation.outputs[0].dtype)
    launch(library, operation, arrays)
    expected = arrays["a"][:, offset : offset + k].astype(np.float64) @ arrays["w"].astype(np.float64).T
    expected += arrays.get("bias", 0) + arrays.get("residual", np.float64(0))
    relative = 1e-3 if operation.outputs[0].dtype == "float16" else 1e-5  # sums are always float32
    np.testing.assert_allclose(arrays["y"], expected, rtol=relative, atol=relative * np.sqrt(k))


@pytest.mark.parametrize("out", ["float16", "float32"])
@pytest.mark.parametrize(("rows", "width"), [(1, 96), (7, 33), (9, 1), (65, 200)])
def test_norms_agree_with_numpy(tmp_path, rows, width, out):
    operation = kernels.normalise("rms", rows, width, 1e-5, out)
    library = ctypes.CDLL(str(compile_kernels([kernels.source_of([operation])], "g++", tmp_path)))
    x = np.random.default_rng(4).standard_normal((rows, width), dtype=np.float32)
    y = np.full((rows, width), np.nan, out)
    launch(library, operation, {"x": x, "y": y})
    expected = x / np.sqrt(np.square(x.astype(np.float64)).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected, rtol=1e-3 if out == "float16" else 1e-6)


def test_scans_are_cut_as_the_library_does(tmp_path):
    """The size of the workspace that scan.cu asks for shows its number of chunks."""
    from tests.support.cuda_sources import CUDA as SOURCES
    from tests.support.cuda_sources import compile_emulated
    from vmp_edge.ops import _cuda

    library = _cuda.open_library(
        compile_emulated([SOURCES / "src" / "scan.cu", SOURCES / "src" / "conv.cu"], tmp_path / "libvmp_cuda.so")
    )
    for gpu in (Gpu(80, 108), Gpu(87, 16), Gpu(87, 8), Gpu(90, 132), Gpu(110, 20)):
        library.vmp_emulate(gpu.sm, gpu.processors, 0)
        for length, channels, states, both in [
            (1, 8, 4, True), (65, 192, 16, True), (1569, 384, 16, True), (1569, 384, 16, False),
            (12545, 1152, 16, True), (700, 96, 33, True), (5000, 64, 64, False),
        ]:  # fmt: skip
            plan = ScanPlan.of(length, channels, states, both, gpu)
            scan = _cuda.Scan(batch=1, length=length, channels=channels, states=states, A_b=int(both))
            floats = plan.directions * plan.chunks * channels * (1 + states) if plan.chunks > 1 else 0
            assert _cuda.workspace_bytes(library, scan) == 4 * floats


def test_a_tuning_row_serves_newer_chips_of_its_major_version():
    assert kernels.tuning(86) == kernels.tuning(80) != kernels.tuning(90)
    assert set(kernels.tuning_table()) == {80, 87, 90, 110}


# ------------------------------------------------------------------------------------------------------------ bundles


def random_video(frames=4, side=32):
    return np.random.default_rng(0).standard_normal((2, 3, frames, side, side), dtype=np.float32)


@pytest.fixture
def compiled(tmp_path):
    """A function that compiles a model and returns its bundle and the source of its kernels."""

    def make(model, precision):
        sources = to_gpu_library(graph.export(model), CUDA, precision, NVCC, tmp_path / "model.so")
        shutil.copy(build_cudart(), tmp_path / CUDART)
        options = model.options
        features = 0 if options.num_classes else options.features
        return unsealed(tmp_path, "model.so", options, machine="x86_64", features=features), sources

    return make


@needs_nvcc
def test_half_precision_agrees_with_the_source_model(model, compiled):
    check(model, compiled, "fp16", 5e-3)


@needs_nvcc
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"directions": "separate", "initial_state": "zero", "mask_backward": False},
        {"readout": "mean"},
        {"readout": "pooled_frames", "projection": 6, "num_classes": 0},
    ],
)
def test_single_precision_agrees_with_the_source_model(make, options, compiled):
    check(make(**options), compiled, "fp32", 1e-5)


def check(model, compiled, precision, tolerance):
    """Compare an emulated bundle with the model. Both clips go through one process: the second replays a CUDA graph."""
    bundle, sources = compiled(model, precision)
    video = random_video()
    with torch.no_grad():
        expected = model(torch.from_numpy(video)).numpy()
    got = EmulatedTvm(bundle, sources).run(video)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.ptp(expected)
    assert not np.array_equal(got[0], got[1])


@needs_nvcc
def test_one_cuda_graph_holds_all_kernels_but_the_first_and_the_last(make, tmp_path):
    from vmp_edge.compile.lowerings.tvm.cuda.compiling import Device, compile_module

    executable, sources = compile_module(
        graph.export(make()), Device((87,), ORIN, {"mtriple": "x86_64-linux-gnu"}), quantisation.load("fp16"), NVCC
    )
    functions = dict(part.split(":\n", 1) for part in executable.as_text().split("@")[1:] if ":\n" in part)
    assert "cuda_graph.run_or_capture" in functions["main"]
    captured = [name for name in functions if name.endswith("cuda_graph_capture")]
    assert functions[captured[0]].count("call  vmp_scan") == 3  # both directions of block one, and two of the last
    assert "vmp_scan" not in functions["main"]
    assert len(sources) == 2 and "mma_sync" not in sources[1]  # TVM generates no product


@pytest.mark.parametrize("left", [("head",), ("*.in_x", "patch"), ()], ids=str)
def test_products_are_of_the_precision_that_the_recipe_says(make, left):
    from vmp_edge.compile.lowerings.tvm.cuda.converters import to_relax

    recipe = dataclasses.replace(quantisation.load("fp16"), keep_float=left)
    program = graph.export(make())
    _, operations = to_relax(program, ORIN, recipe)
    weights = {b.shape: b.dtype for o in operations for b in o.inputs if b.name == "w"}
    sizes = {name: tuple(t.flatten(1).shape) for name, t in program.state_dict.items() if name.endswith(".weight")}
    alone = [
        name for name in ("head", "patch", "blocks.0.in_x") if list(sizes.values()).count(sizes[f"{name}.weight"]) == 1
    ]
    assert "head" in alone and "patch" in alone
    for name in alone:
        assert weights[sizes[f"{name}.weight"]] == ("float32" if recipe.stays(f"{name}.weight") else "float16"), name
    assert {b.dtype for o in operations for b in o.inputs if b.name in ("A", "A_b", "D", "dt_bias")} == {"float32"}


def test_the_runtime_has_all_that_tvm_calls():
    elffile = pytest.importorskip("elftools.elf.elffile", reason="needs pyelftools, of the extra `test`")

    def symbols(path, undefined):
        with path.open("rb") as file:
            table = elffile.ELFFile(file).get_section_by_name(".dynsym")
            return {s.name for s in table.iter_symbols() if (s["st_shndx"] == "SHN_UNDEF") == undefined}

    needed = symbols(cuda_library(), undefined=True)
    assert {name for name in needed if name.startswith("cuda")} <= symbols(build_cudart(), undefined=False)
    driver = {name for name in needed if name.startswith("cu") and not name.startswith("cuda")}
    assert driver <= symbols(build_cuda_driver(), undefined=False)


RUN = """
import sys, numpy as np, vmp_edge
with vmp_edge.load(sys.argv[1]) as recognizer:
    for video in np.load(sys.argv[2]):
        print(" ".join(f"{logit:.9g}" for logit in recognizer.predict_video(video[None])[0]))
"""


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """egomotion-nano's bundle, and the source of its kernels."""
    if NVCC is None:
        pytest.skip("not installed: nvcc")
    from vmp_edge.compile.lowerings.tvm import lowering as tvm
    from vmp_edge.compile.pipeline import Request, build

    recorded = []
    original = tvm._emulator
    tvm._emulator = lambda kernels=(): recorded.append(kernels) or original(kernels)
    try:
        bundle = build(Request(target="cuda", output=tmp_path_factory.mktemp("nano") / "bundle"))
    finally:
        tvm._emulator = original
    return bundle, recorded[0]


def python(bundle, folder, sources, *command, **variables):
    """Run Python on an emulated GPU."""
    library = compile_kernels(sources, "g++", folder) if sources else ""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(build_cuda_driver().parent), **variables}
    environment |= {"VMP_CUDA_KERNELS": str(library)} if sources else {}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=folder)


def test_python_runs_it_on_an_emulated_gpu(nano, tmp_path):
    bundle, sources = nano
    assert 0 <= bundle.manifest.parity["max_difference"] <= 5e-3
    assert bundle.manifest.parity["emulator"] == "an emulated GPU"
    video = random_video(8, 64)
    np.save(tmp_path / "video.npy", video)
    process = python(bundle, tmp_path, sources, "-c", RUN, str(bundle.path), "video.npy", VMP_CUDA_SM="90")
    assert process.returncode == 0, process.stderr
    got = np.array([line.split() for line in process.stdout.splitlines()], np.float32)
    np.testing.assert_allclose(got, EmulatedTvm(bundle, sources).run(video), atol=1e-6)
    process = python(bundle, tmp_path, sources, "-m", "vmp_edge", "doctor", str(bundle.path), VMP_CUDA_SM="80")
    assert process.returncode == 0, process.stdout
    assert "emulated GPU, sm_80, 16 SMs" in process.stdout and "nothing is missing" in process.stdout


def test_a_gpu_of_another_kind_is_one_line(nano, tmp_path):
    bundle, sources = nano
    process = python(bundle, tmp_path, sources, "-m", "vmp_edge", "verify", str(bundle.path), VMP_CUDA_SM="75")
    assert process.returncode == 1
    assert "has machine code for sm_80, sm_90, and emulated GPU is sm_75" in process.stderr.splitlines()[-1]


def test_no_gpu_is_one_line(nano, tmp_path):
    bundle, _ = nano
    process = python(bundle, tmp_path, [], "-m", "vmp_edge", "verify", str(bundle.path))
    assert (process.returncode, "the NVIDIA driver finds no GPU" in process.stderr.splitlines()[-1]) == (1, True)
    process = python(bundle, tmp_path, [], "-m", "vmp_edge", "doctor", str(bundle.path))
    assert process.returncode == 1
    assert "MISSING  engine tvm: the NVIDIA driver finds no GPU" in process.stdout
    assert process.stdout.endswith("1 missing\n")


def test_a_driver_that_is_too_old_is_one_line(nano, tmp_path, monkeypatch):
    from vmp_edge.runtimes.tvm import cuda, engine

    bundle, _ = nano
    monkeypatch.setattr(cuda, "find_gpu", lambda: cuda.Gpu("old", 80, 1, (11, 4)))
    with pytest.raises(Exception, match=r"is of CUDA 13\.\d, and this driver's is 11\.4: update the driver"):
        engine._use_gpu(bundle)


@pytest.mark.parametrize("jetpack", [pytest.param("6", marks=needs_nvrtc), pytest.param("7", marks=needs_nvcc)])
def test_jetson_orin_runs_under_emulators(tmp_path, jetpack, capfd):
    """egomotion-nano runs with an Arm64 host by the C++ runner: TVM's host code and runtime are the device's own."""
    for tool in ("qemu-aarch64", "aarch64-linux-gnu-g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"not installed: {tool}")
    output = tmp_path / "bundle"
    command = ["build", "--target", "jetson-orin", "--jetpack", jetpack, "--device", "nx", "--output", str(output)]
    assert main([*command, "--json"]) == 0
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert summary["gpu"] == {"architectures": [87], "cuda": summary["tools"]["cuda"], "device": "nx"}
    assert toolchain.JETPACKS[jetpack] >= tuple(map(int, summary["gpu"]["cuda"].split(".")))
    assert summary["parity"]["emulator"] == "an emulated GPU, qemu-aarch64"
    assert 0 <= summary["parity"]["max_difference"] <= 5e-3
    assert set(toolchain.architectures_inside((output / "model.so").read_bytes())) == {87}
    assert main(["doctor", str(output), "--json"]) == 1
    summary = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert summary["missing"] == ["machine"]
    assert {"libcuda.so.1", "libtvm_runtime_cuda.so"} <= {finding["subject"] for finding in summary["bundle"]}


@needs_nvcc
def test_jetson_thor_compiles(make, tmp_path):
    thor = target.load("jetson-thor")
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("not installed: aarch64-linux-gnu-g++")
    if NVCC.version < (13, 0):
        pytest.skip("sm_110 needs CUDA 13")
    to_gpu_library(graph.export(make()), thor, "fp16", NVCC, tmp_path / "model.so")
    assert set(toolchain.architectures_inside((tmp_path / "model.so").read_bytes())) == {110}


# ------------------------------------------------------------------------------------- machine code and its compilers


SCAN = Scan(65, 64, 16, "float16", (("x", View(64)), ("dt", View(64)), ("B", View(32)), ("C", View(32, 16))),
            ("A_b",), False, True, True)  # fmt: skip


@needs_nvcc
def test_a_scan_inside_is_machine_code_of_each_architecture(tmp_path):
    source = kernels.source_of([SCAN.operation("scan", ORIN)])
    for architectures in ([87], [80, 90]):
        assert toolchain.architectures_inside(NVCC.compile(source, architectures)) == architectures
    (tmp_path / "model.so").write_bytes(b"\x7fELF" + b"\0" * 60 + NVCC.compile(source, [80]))
    toolchain.check_inside(tmp_path / "model.so", [80], 1)
    with pytest.raises(BuildError, match="has 0 of 1 modules of machine code for sm_87 inside"):
        toolchain.check_inside(tmp_path / "model.so", [87], 1)
    with pytest.raises(BuildError, match=r"nvcc: .*error"):
        NVCC.compile("extern void f( {", [87])


@needs_nvcc
def test_no_kernel_of_a_bundle_spills_a_register(nano, tmp_path):
    (tmp_path / "kernels.cu").write_text(nano[1][0])
    folders = [f"-I{folder}" for folder in toolchain.include_folders()]
    for sm in (87, 90):
        command = [NVCC.path, *toolchain.OPTIONS, "-O3", "-cubin", f"-arch=sm_{sm}", "-Xptxas", "-v", *folders]
        process = subprocess.run([*command, "kernels.cu", "-o", "cubin"], capture_output=True, text=True, cwd=tmp_path)
        spills = [line for line in process.stderr.splitlines() if "spill stores" in line]
        assert len(spills) == nano[1][0].count("__global__") > 10
        assert all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills)


@needs_nvrtc
def test_the_library_compiler_says_what_is_wrong():
    nvrtc = toolchain.find_nvrtc()
    assert nvrtc.version == (12, 6)
    source = kernels.source_of([SCAN.operation("scan", ORIN)])
    assert toolchain.architectures_inside(nvrtc.compile(source, [87])) == [87]
    with pytest.raises(BuildError, match=r"NVRTC: .*error"):
        nvrtc.compile("extern void f( {", [87])
    with pytest.raises(BuildError, match="for one architecture"):
        nvrtc.compile(source, [80, 90])


def test_a_missing_compiler_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: None)
    monkeypatch.setattr(toolchain, "find_nvrtc", lambda: None)
    assert main(["build", "--target", "cuda", "--output", str(tmp_path / "bundle")]) == 1
    assert "needs nvcc, which is not on the PATH: install the CUDA toolkit" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "bundle").exists()


def test_a_compiler_newer_than_the_device_is_refused(monkeypatch):
    newer = toolchain.Nvcc("nvcc", (13, 0))
    monkeypatch.setattr(toolchain, "find_nvcc", lambda: newer)
    monkeypatch.setattr(toolchain, "find_nvrtc", lambda: None)
    assert toolchain.find((13, 0)) is newer
    with pytest.raises(BuildError, match=r"nvcc is of CUDA 13\.0, newer than the device's 12\.6: .*jetpack6"):
        toolchain.find((12, 6))


def test_a_wrong_nvcc_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDACXX", str(tmp_path / "none"))
    with pytest.raises(BuildError, match=r"does not run .*set CUDACXX"):
        toolchain.find()
    monkeypatch.setenv("CUDACXX", shutil.which("true"))
    with pytest.raises(BuildError, match="is not nvcc"):
        toolchain.find()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--target", "jetson-orin", "--device", "pico"],
            "--device is 'pico'; target jetson-orin has agx, agx-32gb, nx",
        ),
        (["--target", "jetson-orin", "--jetpack", "5"], "--jetpack is '5'; target jetson-orin has 6, 7"),
        (["--target", "cuda", "--jetpack", "7"], "--jetpack is '7'; target cuda has none"),
        (["--target", "host", "--device", "agx"], "--device is 'agx'; target host has none"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, capfd, arguments, text):
    assert main(["build", *arguments, "--output", str(tmp_path / "bundle")]) == 2
    assert text in capfd.readouterr().err.splitlines()[-1]


def test_a_manifest_without_architectures_is_refused(nano, tmp_path):
    bundle, _ = nano
    folder = shutil.copytree(bundle.path, tmp_path / "bundle")
    text = (folder / "manifest.yaml").read_text()
    (folder / "manifest.yaml").write_text(text.replace("architectures:\n  - 80\n  - 90\n", "architectures: []\n"))
    with pytest.raises(Exception, match=r"needs a list of whole numbers for 'gpu\.architectures'"):
        Bundle.open(folder)


def test_a_target_without_gpus_has_no_device():
    kind = target.load("x86-64-v3")
    assert target.choose(kind, None, None) is kind
    with pytest.raises(UsageError):
        target.choose(kind, "agx", None)
    assert target.choose(CUDA, "a100", None).gpu.device == "a100"
    assert not target.runs_here(dataclasses.replace(CUDA, machine="riscv"))


def test_no_driver_is_one_line(monkeypatch):
    from vmp_edge.runtimes.tvm import cuda

    monkeypatch.setattr(cuda, "DRIVER", "libnone.so.1")
    with pytest.raises(MissingDependencyError, match=r"no NVIDIA driver .*JetPack brings it"):
        cuda.find_gpu()
    assert package_folder("tvm").is_dir()
