"""Lowering to TVM: one shared library, of native code for CPUs or with machine code for NVIDIA GPUs inside."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vmp_edge.bundle import Bundle, Staging
from vmp_edge.compile import target
from vmp_edge.compile.cross import cmake_toolchain, cross_compiler
from vmp_edge.compile.lowering import EmulatedEngine, Lowered, Source
from vmp_edge.compile.target import Target
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.manifest import host_machine
from vmp_edge.runtimes.tvm.library import CUDART, INSTALL_HINT, build_cudart, build_operators, runtime_library

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from vmp_edge.compile.cuda.toolchain import Compiler

PROGRAM, EMBEDDING = "model.so", "embedding.so"
RUNTIME_LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so")


def lower(source: Source, staging: Staging, kind: Target, precision: str) -> Lowered:
    """Write ``model.so`` into a bundle, and for GPUs the CUDA runtime.

    Args:
        source: the model.
        staging: the bundle that is being made.
        kind: the target; ``host`` becomes the most demanding target that this CPU satisfies.
        precision: one of the target's.

    Raises:
        MissingDependencyError: TVM, the target's C++ compiler, or nvcc, is not installed.
        UsageError: no target fits this CPU, the target's tuning log is none, or the program is not of the precision.
        BuildError: the library cannot be built for the target.
    """
    runtime_library()
    from vmp_edge.compile import pt2e  # which needs PyTorch

    kind = resolve(kind, precision)
    pt2e.check(source.program, precision)
    tools = {name: importlib.metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")}
    path = staging.path / PROGRAM
    if kind.gpu:
        return _lower_for_gpu(source.program, staging, kind, precision, tools)
    to_library(source.program, kind, path)
    staging.add(PROGRAM)
    if source.embedding is not None:
        to_library(source.embedding, kind, staging.path / EMBEDDING)
        staging.add(EMBEDDING)
    return Lowered(
        PROGRAM,
        tools,
        kind.cpu_features,
        libraries=RUNTIME_LIBRARIES,
        emulate=None if kind.machine == host_machine() else _emulated(),
        embedding=EMBEDDING if source.embedding is not None else None,
    )


def resolve(kind: Target, precision: str = "fp32") -> Target:
    """The target, with what the precision needs; for ``host``, the most demanding target that this CPU satisfies.

    Raises:
        UsageError: there is none.
    """
    if kind.machine == "host":
        return dataclasses.replace(target.native(precision), tuning=kind.tuning)
    return target.for_precision(kind, precision)


def tune(program: ExportedProgram, kind: Target) -> None:
    """Time register tiles for a program's products on this machine, and keep the best in the target's log.

    Args:
        program: of `graph.export`.
        kind: the target, or ``host``.

    Raises:
        MissingDependencyError: TVM is not installed.
        UsageError: this machine cannot run the target's code, or the log that is there is none.
        BuildError: the log cannot be written.
    """
    runtime_library()
    from vmp_edge.compile import tuning
    from vmp_edge.compile.cpu import products
    from vmp_edge.compile.gemm import TILES, Tiles
    from vmp_edge.compile.gemm_int8 import DOTS

    kind = resolve(kind)
    tuning.check(kind)
    assert kind.simd is not None
    tuning.tune(kind, products(program, Tiles(TILES[kind.simd]), DOTS[kind.simd]))


def _lower_for_gpu(
    program: ExportedProgram, staging: Staging, kind: Target, precision: str, tools: dict[str, str]
) -> Lowered:
    from vmp_edge.compile.cuda import toolchain

    assert kind.gpu is not None
    jetpack = kind.gpu.jetpack
    compiler = toolchain.find(toolchain.JETPACKS[jetpack] if jetpack else None)
    kernels = to_gpu_library(program, kind, precision, compiler, staging.path / PROGRAM)
    staging.add(PROGRAM)
    staging.add(CUDART, build_cudart(cmake_toolchain(kind.machine)))
    version = toolchain.dotted(compiler.version)
    return Lowered(
        PROGRAM,
        {**tools, "cuda": version},
        kind.cpu_features,
        libraries=(*RUNTIME_LIBRARIES, "libtvm_runtime_cuda.so", "libcuda.so.1"),
        gpu={"architectures": list(kind.gpu.architectures), "cuda": version, "device": kind.gpu.device},
        emulate=_emulated(kernels),
    )


def _emulated(kernels: Sequence[str] = ()) -> Callable[[Bundle], EmulatedEngine]:
    def make(bundle: Bundle) -> EmulatedEngine:
        from vmp_edge.compile import emulator  # which needs what is here

        return emulator.EmulatedEngine(bundle, kernels)

    return make


def to_gpu_library(program: ExportedProgram, kind: Target, precision: str, compiler: Compiler, path: Path) -> list[str]:
    """Compile a program for a target's GPUs.

    Args:
        program: of `graph.export`.
        kind: a target with a ``gpu`` entry.
        precision: one of the target's.
        compiler: makes the GPU's machine code.
        path: of the shared library.

    Returns:
        CUDA C++ of the library's kernels.

    Raises:
        MissingDependencyError, BuildError: as `lower`; or machine code for an architecture is not inside.
    """
    _import_tvm()
    from vmp_edge.calibration import quantisation
    from vmp_edge.compile.cuda.kernels import Gpu
    from vmp_edge.compile.cuda.lowering import Device, compile_module
    from vmp_edge.compile.cuda.toolchain import check_inside

    assert kind.gpu is not None and kind.llvm is not None
    linker = cross_compiler(kind.machine)
    chosen = kind.gpu.devices[kind.gpu.device]
    device = Device(kind.gpu.architectures, Gpu(chosen.architecture, chosen.processors), kind.llvm)
    recipe = None if precision == "fp32" else quantisation.load(precision)
    executable, sources = compile_module(program, device, recipe, compiler)
    executable.export_library(str(path), fcompile=_linked_by(linker, []))
    check_inside(path, kind.gpu.architectures, len(sources))
    return sources


def to_library(program: ExportedProgram, kind: Target, path: Path) -> None:
    """Compile a program and link it with the native kernels.

    Args:
        program: of `graph.export`, quantised or not.
        kind: a target with ``llvm`` and ``simd`` entries, with what the program's precision needs (`resolve`).
        path: of the shared library.

    Raises:
        MissingDependencyError, UsageError, BuildError: as `lower`.
    """
    tvm = _import_tvm()
    from tvm import relax

    from vmp_edge.compile import tuning
    from vmp_edge.compile.cpu import to_relax
    from vmp_edge.compile.gemm_int8 import DOTS

    compiler = cross_compiler(kind.machine)
    archives = build_operators(cmake_toolchain(kind.machine))
    assert kind.llvm is not None and kind.simd is not None
    machine = tvm.target.Target({"kind": "llvm", **kind.llvm})
    module = to_relax(program, tuning.load(kind), DOTS[kind.simd])
    pipeline = relax.backend.cpu_generic.get_default_pipeline(machine)
    executable = tvm.compile(module, target=machine, relax_pipeline=pipeline)
    executable.export_library(str(path), fcompile=_linked_by(compiler, archives))


def _import_tvm() -> ModuleType:
    try:
        import tvm
    except ImportError as error:
        raise MissingDependencyError(f"lowering to TVM needs {error.name}; {INSTALL_HINT}") from error
    module: ModuleType = tvm
    return module


def _linked_by(compiler: str, archives: list[Path]) -> Callable[..., None]:
    """What TVM calls to link."""

    def link(output: str, objects: list[str], **_: object) -> None:
        link_library(compiler, output, objects, archives)

    return link


def link_library(compiler: str, output: str, objects: list[str], archives: list[Path]) -> None:
    """Objects and archives to a shared library that exports what TVM looks up by name and nothing of the kernels."""
    command = [compiler, "-shared", "-fPIC", "-o", output, *objects]
    if archives:
        operators, *others = map(str, archives)
        command += ["-Wl,--whole-archive", operators, "-Wl,--no-whole-archive", *others]
    command += ["-lpthread", "-s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"linking {Path(output).name} failed: {(done.stderr.splitlines() or ['no message'])[-1]}")
