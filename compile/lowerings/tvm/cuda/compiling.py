"""Compile a program for NVIDIA GPUs: one module with the host's code, the GPU's machine code and the weights.

`converters` makes the Relax module, `toolchain` the machine code of the kernels, and TVM all the rest; `tvm.lowering`
writes the result into a bundle.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tvm
import tvm_ffi
from tvm import relax
from tvm.s_tir import dlight

from vmp_edge.calibration.quantisation import Recipe
from vmp_edge.errors import MissingDependencyError
from vmp_edge.progress import part
from vmp_edge.runtimes.tvm.cuda import load_driver, load_runtime
from vmp_edge.runtimes.tvm.library import build_cuda_driver, build_cudart

from . import kernels
from .converters import to_relax
from .kernels import Gpu, Operation
from .toolchain import Compiler

if TYPE_CHECKING:
    from torch.export import ExportedProgram

CALLBACK = "tvm_callback_cuda_compile"
TAGS = [f"{index}.{axis}" for index in ("blockIdx", "threadIdx") for axis in "xyz"]
# The limits of every GPU from sm_80 on, for TVM's schedules.
LIMITS = {
    "max_threads_per_block": 1024,
    "max_shared_memory_per_block": 48 << 10,
    "thread_warp_size": 32,
    "registers_per_block": 65536,
}


@dataclass(frozen=True)
class Device:
    """The device that a library is made for.

    Attributes:
        architectures: The compute capabilities to make machine code for; the first one is that of `gpu`.
        gpu: The GPU that kernels are tuned for.
        host: TVM's LLVM target of the CPU, without its ``kind``.
    """

    architectures: tuple[int, ...]
    gpu: Gpu
    host: dict[str, str]


def compile_module(
    program: ExportedProgram, device: Device, recipe: Recipe | None, compiler: Compiler
) -> tuple[relax.VMExecutable, list[str]]:
    """Compile a program of `graph.export`.

    Args:
        program: The model's program.
        device: The device to compile for.
        recipe: The recipe ``fp16``, or None for fp32, as for `to_relax`.
        compiler: The compiler of the machine code.

    Returns:
        The executable, and the CUDA C++ sources that it was made of: that of the hand-written kernels, then those that
        TVM generated.

    Raises:
        MissingDependencyError: TVM's CUDA runtime cannot be loaded.
        BuildError: The kernels do not compile.
    """
    _load_cuda_runtime()
    module, operations = to_relax(program, device.gpu, recipe)
    handwritten = kernels.source_of(operations)
    codes = ", ".join(f"sm_{sm}" for sm in device.architectures)
    with part(f"compile our kernels for {codes}"):
        cubin = compiler.compile(handwritten, device.architectures)
    module = module.with_attr("external_mods", [device_module(operations, cubin)])
    machine = tvm.target.Target(
        {"kind": "cuda", "arch": f"sm_{device.gpu.sm}", **LIMITS, "host": {"kind": "llvm", **device.host}}
    )
    generated: list[str] = []
    config = {"relax.backend.use_cuda_graph": True}
    with (
        part(f"compile the other kernels for {codes}"),
        _compile_with(compiler, device.architectures, generated),
        tvm.transform.PassContext(config=config),
        machine,
    ):
        executable = tvm.compile(module, target=machine, relax_pipeline=pipeline(machine))
    return executable, [handwritten, *generated]


def _load_cuda_runtime() -> None:
    """Load TVM's CUDA runtime, without which TVM makes no modules of machine code.

    The runtime needs a driver: where there is none, the driver without a GPU is loaded.
    """
    try:
        load_driver()
    except MissingDependencyError:
        ctypes.CDLL(str(build_cuda_driver()), mode=ctypes.RTLD_GLOBAL)
    load_runtime(str(build_cudart()))


@contextlib.contextmanager
def _compile_with(compiler: Compiler, architectures: tuple[int, ...], sources: list[str]) -> Iterator[None]:
    """Let TVM compile the kernels that it generates with this compiler, and append their source to `sources`."""

    def compile_source(code: str) -> bytes:
        sources.append(code)
        return compiler.compile(code, architectures)

    before = tvm_ffi.get_global_func(CALLBACK)
    tvm_ffi.register_global_func(CALLBACK, compile_source, override=True)
    try:
        yield
    finally:
        tvm_ffi.register_global_func(CALLBACK, before, override=True)


def device_module(operations: Sequence[Operation], cubin: bytes) -> tvm.runtime.Module:
    """Return the hand-written kernels as a module whose functions TIR calls by name."""
    kernels = {
        launch.name: {
            "name": launch.name,
            "arg_types": ["handle"] * len(operation.buffers),
            "launch_param_tags": TAGS,
        }
        for operation in operations
        for launch in operation.launches
    }
    metadata = json.dumps({"tvm_version": tvm.__version__, "func_info": kernels})
    table = tvm_ffi.get_global_func("runtime.LoadMetaDataFromJSON")(metadata)
    return tvm_ffi.get_global_func("ffi.Module.create.cuda")(cubin, "cubin", table, {})


def pipeline(machine: tvm.target.Target) -> tvm.transform.Pass:
    """Return the passes from Relax to the virtual machine's code, with CUDA graphs.

    This is TVM's own pipeline without dlight's rule for matrix-vector products. The rule fails in TVM 0.27, and we need
    none, as our products are kernels already.
    """
    rules = (dlight.gpu.Reduction(), dlight.gpu.GeneralReduction(), dlight.gpu.Fallback())
    passes = relax.transform

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def run(module: tvm.IRModule, _: tvm.transform.PassContext) -> tvm.IRModule:
        with machine:
            return tvm.transform.Sequential(
                [
                    passes.LegalizeOps(),
                    passes.AnnotateTIROpPattern(),
                    passes.FoldConstant(),
                    passes.FuseOps(),
                    passes.FuseTIR(),
                    dlight.ApplyDefaultSchedule(*rules),
                    *relax.backend.cuda.pipeline.dataflow_lower_passes(machine),
                    *relax.backend.cuda.pipeline.finalize_passes(machine),
                ]
            )(module)

    return run
