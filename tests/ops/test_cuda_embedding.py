"""The CUDA device code inside kernels that a compiler generates, with sizes, strides and options as constants.

Such a kernel has pointers as parameters, builds the job from the pointers and its constants, and calls the device code.
The tests compile the same text by NVRTC 12.6 (JetPack 6), by nvcc, and as C++ for the emulation of threads.
"""

import ctypes
import functools
import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cuda_sources import INCLUDES, compile_emulated

from vmp_edge import ops
from vmp_edge.ops import _cuda
from vmp_edge.ops.cases import ConvCase, ScanCase, error

TYPES = {torch.float32: "float", torch.float16: "__half", torch.bfloat16: "__nv_bfloat16"}
OPTIONS = ["-std=c++17", "-ftz=true"]
LANES, CONV_STEPS, CONV_RUNS = 64, 16, 4  # of tuning.h
CHUNK = 24
NO_STATE = "nullptr, nullptr"  # neither a state before the first step nor memory for the last one
TINY = ScanCase(1, 1569, 384, 16, "both", "first_input", True)  # VideoMambaPro Tiny with one clip
TINY_CONV = ConvCase(1, 1569, 384, 4)
SMALL = [
    ScanCase(2, 67, 70, 16, "both", "first_input", True),
    ScanCase(1, 60, 70, 33, "both", leave_out=("D", "z")),
    ScanCase(2, 49, 9, 7, "backward", "zero", True, leave_out=("dt_bias",)),
    ScanCase(1, 24, 5, 20, "forward", "first_input"),
    ConvCase(2, 70, 70, 4),
    ConvCase(1, 150, 19, 7, reverse=True, bias=False),
]

needs_emulation = pytest.mark.skipif(
    shutil.which("g++") is None or platform.machine() != "x86_64", reason="needs g++ on x86-64"
)
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="not installed: nvcc")


def ceil_div(a, b):
    return -(-a // b)


class Source:
    """The source of kernels that are specialised for a case, and their launches. It needs the headers only."""

    def __init__(self, case, dtype):
        self.case, self.type = case, TYPES[dtype]
        self.dtype = _cuda.DTYPES[str(dtype).removeprefix("torch.")]
        self.tensors = [name for name, tensor in case.inputs().items() if tensor is not None] + ["y"]
        self.launches = {}  # grid and block, by kernel
        self.text = self._conv() if isinstance(case, ConvCase) else self._scan()

    def _view(self, name, columns):
        pointer = name if name in self.tensors else "nullptr"
        return f"{{{pointer}, {self.case.length * columns}, {columns}}}"

    def _pointers(self, *names):
        return ", ".join(name if name in self.tensors else "nullptr" for name in names)

    def _kernel(self, name, job, body, bounds, grid, block):
        self.launches[name] = grid, block
        activations = ("x", "dt", "B", "C", "z")
        kinds = {n: f"const {self.type if n in activations else 'float'}*" for n in self.tensors}
        kinds |= {"y": f"{self.type}*"} | {n: "float*" for n in ("delta_sums", "states") if n in self.tensors}
        parameters = ", ".join(f"{kind} {n}" for n, kind in kinds.items())
        return (
            f'extern "C" __global__ void __launch_bounds__({bounds}) {name}({parameters}) {{\n  {job}\n  {body}\n}}\n'
        )

    def _conv(self):
        c = self.case
        channel_blocks = ceil_div(c.channels, LANES)
        step_blocks = ceil_div(c.length, CONV_STEPS * CONV_RUNS)
        job = (
            f"const vmp_cuda::ConvJob job{{{{{c.batch}, {c.length}, {c.channels}, {c.taps}, "
            f"{self._view('x', c.channels)}, {self._pointers('weight', 'bias')}, {self.dtype}, {c.reverse:d}, "
            f"{NO_STATE}}}, {self._view('y', c.channels)}, {channel_blocks}, {step_blocks}}};"
        )
        body = f"vmp_cuda::causal_conv_silu<{self.type}, {c.taps}>(job);"
        grid, block = (c.batch * channel_blocks * step_blocks, 1, 1), (LANES, CONV_RUNS, 1)
        return '#include "conv.cuh"\n' + self._kernel("conv", job, body, LANES * CONV_RUNS, grid, block)

    def _scan(self):
        c = self.case
        states, groups = next(s for s in ((8, 1), (16, 1), (16, 2), (16, 4)) if c.states <= s[0] * s[1])
        directions = 1 + (c.direction == "both")
        chunks, channel_blocks = ceil_div(c.length, CHUNK), ceil_div(c.channels, LANES // groups)
        self.tensors += ["delta_sums", "states"]
        views = [self._view(n, c.states if n in "BC" else c.channels) for n in ("x", "dt", "B", "C", "z")]
        job = (
            f"const vmp_cuda::Job job{{{{{c.batch}, {c.length}, {c.channels}, {c.states}, {', '.join(views)}, "
            f"{self._pointers('A', 'A_b', 'D', 'dt_bias')}, {self.dtype}, {c.direction == 'backward':d}, "
            f"{c.initial_state == 'first_input':d}, {c.mask:d}, {NO_STATE}}}, {self._view('y', c.channels)}, "
            f"{CHUNK}, {chunks}, {channel_blocks}, delta_sums, states}};"
        )
        spread, grid = f"<{states}, {groups}>", (c.batch * chunks * channel_blocks, 1, 1)
        text = '#include "scan.cuh"\n'
        for name, floats in (
            ("summarise", f"vmp_cuda::staged_floats{spread}({CHUNK})"),
            ("carry", ""),
            ("replay", f"vmp_cuda::replay_floats{spread}({CHUNK}, {directions})"),
        ):
            if name == "carry":
                carry = (c.batch * ceil_div(c.channels, LANES), c.states, directions)
                body = f"vmp_cuda::carry_states<{self.type}>(job);"
                text += self._kernel(name, job, body, LANES, carry, (LANES, 1, 1))
                continue
            body = (
                f"__shared__ float4 memory[{floats} / 4];\n"
                f"  vmp_cuda::{name}_chunks<{self.type}, {states}, {groups}>(job, memory);"
            )
            bounds = f"{2 * LANES}, vmp_cuda::kCompiled.{name}_blocks"
            text += self._kernel(name, job, body, bounds, grid, (LANES, directions, 1))
        return text

    def launcher(self):
        """Write a host function that runs the kernels in order, given an array of the addresses of their arguments."""
        calls = [f"cudaLaunchKernel({name}, dim3{g}, dim3{b}, arguments)" for name, (g, b) in self.launches.items()]
        visible = '__attribute__((visibility("default")))'
        return f'extern "C" {visible} int run(void** arguments) {{ return {" || ".join(calls)}; }}\n'


def emulate(case, dtype, folder):
    """Run a case's specialised kernels with activations rounded to dtype, and return y."""
    source = Source(case, dtype)
    (folder / "kernels.cu").write_text(source.text + source.launcher())
    library = ctypes.CDLL(str(compile_emulated([folder / "kernels.cu"], folder / "kernels.so")))
    tensors = {name: t if t is None or t.dim() < 3 else t.to(dtype) for name, t in case.inputs().items()}
    tensors["y"] = torch.full((case.batch, case.length, case.channels), torch.nan, dtype=dtype)
    columns = 2 * case.batch * ceil_div(case.length, CHUNK) * case.channels
    tensors |= {"delta_sums": torch.full((columns,), torch.nan), "states": torch.full((columns * 64,), torch.nan)}
    pointers = [ctypes.c_void_p(tensors[name].data_ptr()) for name in source.tensors]
    arguments = (ctypes.c_void_p * len(pointers))(*(ctypes.addressof(pointer) for pointer in pointers))
    assert library.run(arguments) == 0
    return tensors["y"]


@needs_emulation
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_specialised_kernels_match_the_float64_reference(case, tmp_path):
    assert error(case, emulate(case, torch.float32, tmp_path)) <= case.tolerance


@needs_emulation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [SMALL[0], SMALL[-1]], ids=lambda case: case.name)
def test_specialised_kernels_in_half_precision_compute_what_the_operator_does(case, dtype, tmp_path):
    y = emulate(case, dtype, tmp_path)
    inputs = {name: t if t is None or t.dim() < 3 else t.to(dtype) for name, t in case.inputs().items()}
    torch.testing.assert_close(y, getattr(ops, case.operator)(**inputs, **case.options()), atol=1e-4, rtol=1e-2)


def nvrtc():
    """Return NVRTC of CUDA 12 and the folder of its headers."""
    folders = []
    for package in ("nvrtc", "runtime"):
        try:
            spec = importlib.util.find_spec(f"nvidia.cuda_{package}")
        except ModuleNotFoundError:
            spec = None
        if spec is None:
            pytest.skip(f"not installed: nvidia-cuda-{package}-cu12")
        folders.append(Path(next(iter(spec.submodule_search_locations))))
    return ctypes.CDLL(str(next(folders[0].glob("lib/libnvrtc.so.*")))), folders[1] / "include"


def compile_at_run_time(text, options):
    """Compile a source by NVRTC; return the cubin and the log."""
    library, headers = nvrtc()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    options = [option.encode() for option in [*options, *(f"-I{folder}" for folder in (headers, *INCLUDES))]]
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    outputs = []
    for output in ("ProgramLog",) if failed else ("ProgramLog", "CUBIN"):
        assert getattr(library, f"nvrtcGet{output}Size")(program, ctypes.byref(size)) == 0
        outputs.append(ctypes.create_string_buffer(size.value))
        assert getattr(library, f"nvrtcGet{output}")(program, outputs[-1]) == 0
    library.nvrtcDestroyProgram(ctypes.byref(program))
    log = outputs[0].value.decode()
    assert not failed, log
    return outputs[1].raw, log


def check_kernels(source, cubin, log):
    """Check that the cubin has each kernel under its plain name, and that no kernel spills registers."""
    for name in source.launches:
        assert f".text.{name}\0".encode() in cubin
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert spills == [("0", "0")] * len(source.launches), log
    assert "warning" not in log, log


@pytest.mark.parametrize("extra", [[], ["-default-device"]], ids=["", "default-device"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", [TINY, TINY_CONV], ids=lambda case: case.name)
def test_nvrtc_compiles_the_device_code_for_orin(case, dtype, extra):
    source = Source(case, dtype)
    cubin, log = compile_at_run_time(source.text, [*OPTIONS, "-arch=sm_87", "--ptxas-options=-v", *extra])
    check_kernels(source, cubin, log)


def test_nvrtc_tells_what_is_wrong():
    with pytest.raises(AssertionError, match="no_such_function"):
        compile_at_run_time('extern "C" __global__ void kernel() { no_such_function(); }', [])


@functools.cache
def nvcc_architectures():
    done = subprocess.run(["nvcc", "--list-gpu-code"], capture_output=True, text=True, check=True)
    return done.stdout.split()


@needs_nvcc
@pytest.mark.parametrize("sm", [87, 90, 110])
@pytest.mark.parametrize("case", [TINY, TINY_CONV], ids=lambda case: case.name)
def test_nvcc_compiles_the_device_code_to_a_cubin(case, sm, tmp_path):
    if f"sm_{sm}" not in nvcc_architectures():
        pytest.skip(f"this nvcc does not know sm_{sm}")
    source = Source(case, torch.float16)
    (tmp_path / "kernels.cu").write_text(source.text)
    folders = [f"-I{folder}" for folder in INCLUDES]
    command = ["nvcc", *OPTIONS, f"-arch=sm_{sm}", "-cubin", "-Xptxas", "-v", *folders, "kernels.cu", "-o", "cubin"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_kernels(source, (tmp_path / "cubin").read_bytes(), done.stderr)
