"""The lowering to TVM: one shared library, with native code for CPUs or with machine code for NVIDIA GPUs.

`cpu` and `cuda` convert and compile the program; this module links the library and adds it to the bundle.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import Staging
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.installation import install_command
from vmp_edge.machine import host_machine
from vmp_edge.progress import part
from vmp_edge.runtimes.tvm.library import (
    CUDART,
    build_cudart,
    build_operators,
    operators_are_built,
    runtime_library,
)

from ...cross import cmake_toolchain, cross_compiler
from ...lowering import EmulatedEngine, Exported, Lowered, Lowering
from ...needs import has_package, require_all, require_package_tools
from ...target import Target, for_precision, native

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from .cuda.toolchain import Compiler

PROGRAM, EMBEDDING = "model.so", "embedding.so"
RUNTIME_LIBRARIES = ("libtvm_ffi.so", "libtvm_runtime.so")


def lower(exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
    """Write ``model.so`` into a bundle, and for GPUs the CUDA runtime.

    Args:
        exported: The model.
        staging: The bundle that is being made.
        target: The target; ``host`` becomes the most demanding target that this CPU satisfies.
        precision: One of the target's precisions.

    Raises:
        MissingDependencyError: TVM, the target's C++ compiler, or nvcc is not installed.
        UsageError: No target fits this CPU, the tuning log is damaged, or the program is not of the precision.
        BuildError: The library cannot be built for the target.
    """
    runtime_library()
    from ...graph import pt2e  # here, as it needs PyTorch

    target = resolve(target, precision)
    pt2e.check(exported.unprepared, precision)
    tools = {name: importlib.metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")}
    path = staging.path / PROGRAM
    if target.gpu:
        return _lower_for_gpu(exported.unprepared, staging, target, precision, tools)
    to_library(exported.unprepared, target, path)
    staging.add(PROGRAM)
    if exported.embedding is not None:
        to_library(exported.embedding, target, staging.path / EMBEDDING)
        staging.add(EMBEDDING)
    return Lowered(
        PROGRAM,
        tools,
        target.cpu_features,
        libraries=RUNTIME_LIBRARIES,
        emulate=None if target.machine == host_machine() else _emulator(),
        embedding=EMBEDDING if exported.embedding is not None else None,
    )


def resolve(target: Target, precision: str = "fp32") -> Target:
    """Return the target with the CPU features that the precision needs.

    ``host`` becomes the most demanding target that this CPU satisfies.

    Raises:
        UsageError: TVM has no target for this CPU.
    """
    if target.machine == "host":
        return dataclasses.replace(native(precision), tuning=target.tuning)
    return for_precision(target, precision)


def tune(program: ExportedProgram, target: Target) -> None:
    """Time register tiles for a program's products on this machine, and keep the best in the target's log.

    Args:
        program: A program of `graph.export`.
        target: The target, or ``host``.

    Raises:
        MissingDependencyError: TVM is not installed.
        UsageError: This machine cannot run the target's code, or the existing log is damaged.
        BuildError: The log cannot be written.
    """
    runtime_library()
    from . import tuning
    from .cpu import products
    from .gemm import TILES, Tiles
    from .gemm_int8 import DOTS

    target = resolve(target)
    tuning.check(target)
    assert target.simd is not None
    tuning.tune(target, products(program, Tiles(TILES[target.simd]), DOTS[target.simd]))


def _lower_for_gpu(
    program: ExportedProgram, staging: Staging, target: Target, precision: str, tools: dict[str, str]
) -> Lowered:
    """Write ``model.so`` and the CUDA runtime into a bundle for GPUs."""
    from .cuda import toolchain

    assert target.gpu is not None
    jetpack = target.gpu.jetpack
    compiler = toolchain.find(toolchain.JETPACKS[jetpack] if jetpack else None)
    kernels = to_gpu_library(program, target, precision, compiler, staging.path / PROGRAM)
    staging.add(PROGRAM)
    staging.add(CUDART, build_cudart(cmake_toolchain(target.machine)))
    version = toolchain.version_text(compiler.version)
    return Lowered(
        PROGRAM,
        {**tools, "cuda": version},
        target.cpu_features,
        libraries=(*RUNTIME_LIBRARIES, "libtvm_runtime_cuda.so", "libcuda.so.1"),
        gpu={"architectures": list(target.gpu.architectures), "cuda": version, "device": target.gpu.device},
        emulate=_emulator(kernels),
    )


def _emulator(kernels: Sequence[str] = ()) -> Callable[[Bundle], EmulatedEngine]:
    """Return the function that opens the bundle in an emulator; `kernels` is the source of its GPU code."""

    def open_emulated(bundle: Bundle) -> EmulatedEngine:
        from ...emulation.runners import EmulatedTvm  # here, as it imports from this package

        return EmulatedTvm(bundle, kernels)

    return open_emulated


def to_gpu_library(
    program: ExportedProgram, target: Target, precision: str, compiler: Compiler, path: Path
) -> list[str]:
    """Compile a program for a target's GPUs.

    Args:
        program: A program of `graph.export`.
        target: A target with a ``gpu`` entry.
        precision: One of the target's precisions.
        compiler: The compiler of the GPU's machine code.
        path: Where the shared library is written.

    Returns:
        The CUDA C++ sources of the library's kernels.

    Raises:
        MissingDependencyError: The target's C++ compiler, or TVM's CUDA runtime, is not there.
        BuildError: The library cannot be built, or has no machine code for one of the architectures.
    """
    _import_tvm()
    from vmp_edge.calibration import quantisation

    from .cuda.compiling import Device, compile_module
    from .cuda.kernels import Gpu
    from .cuda.toolchain import check_inside

    assert target.gpu is not None and target.llvm is not None
    linker = cross_compiler(target.machine)
    gpu = target.gpu.devices[target.gpu.device]
    device = Device(target.gpu.architectures, Gpu(gpu.architecture, gpu.processors), target.llvm)
    recipe = None if precision == "fp32" else quantisation.load(precision)
    executable, sources = compile_module(program, device, recipe, compiler)
    executable.export_library(str(path), fcompile=_linker(linker, []))
    check_inside(path, target.gpu.architectures, len(sources))
    return sources


def to_library(program: ExportedProgram, target: Target, path: Path) -> None:
    """Compile a program and link it with the native kernels.

    Args:
        program: A program of `graph.export`, quantised or not.
        target: A target with ``llvm`` and ``simd`` entries, as `resolve` gives it for the program's precision.
        path: Where the shared library is written.

    Raises:
        MissingDependencyError: TVM or the target's C++ compiler is not installed.
        UsageError: The tuning log is damaged.
        BuildError: The library cannot be built.
    """
    tvm = _import_tvm()
    from tvm import relax

    from . import tuning
    from .cpu import to_relax
    from .gemm_int8 import DOTS

    compiler = cross_compiler(target.machine)
    with part("compile our operators, once for all builds"):
        archives = build_operators(cmake_toolchain(target.machine))
    assert target.llvm is not None and target.simd is not None
    machine = tvm.target.Target({"kind": "llvm", **target.llvm})
    module = to_relax(program, tuning.load(target), DOTS[target.simd])
    pipeline = relax.backend.cpu_generic.get_default_pipeline(machine)
    with part("compile"):
        executable = tvm.compile(module, target=machine, relax_pipeline=pipeline)
    with part("link"):
        executable.export_library(str(path), fcompile=_linker(compiler, archives))


def _import_tvm() -> ModuleType:
    """Import TVM's compiler, or raise a `MissingDependencyError` that says what to install."""
    try:
        import tvm
    except ImportError as error:
        raise MissingDependencyError(f"lowering to TVM needs {error.name}; run: {install_command('tvm')}") from error
    module: ModuleType = tvm
    return module


def _linker(compiler: str, archives: list[Path]) -> Callable[..., None]:
    """Return the function that TVM calls to link a library."""

    def link(output: str, objects: list[str], **_: object) -> None:
        link_library(compiler, output, objects, archives)

    return link


def link_library(compiler: str, output: str, objects: list[str], archives: list[Path]) -> None:
    """Link objects and archives to a shared library.

    The library exports the operators of the first archive, which TVM looks up by name, and no kernel of the others.
    """
    command = [compiler, "-shared", "-fPIC", "-o", output, *objects]
    if archives:
        operators, *kernels = map(str, archives)
        command += ["-Wl,--whole-archive", operators, "-Wl,--no-whole-archive", *kernels]
    command += ["-lpthread", "-s"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise BuildError(f"linking {Path(output).name} failed: {(process.stderr.splitlines() or ['no message'])[-1]}")


def check(target: Target, precision: str) -> None:
    """Check that TVM and the compilers are installed that `lower` needs for a target, and that a CPU target fits.

    Raises:
        MissingDependencyError: One of them is missing.
        UsageError: No target fits this CPU.
    """
    resolved = resolve(target, precision)
    require_all(
        runtime_library,
        _import_tvm,
        partial(_check_tools, resolved),
        partial(_check_cuda, resolved),
    )


def _check_tools(target: Target) -> None:
    """Check that the compiler for a target's machine is there, and what builds our operators unless that was done."""
    cross_compiler(target.machine)
    has_tvm = has_package("tvm") and has_package("tvm_ffi")  # without it, that is said already
    if target.gpu is None and has_tvm and not operators_are_built(cmake_toolchain(target.machine)):
        require_package_tools()


def _check_cuda(target: Target) -> None:
    if target.gpu is not None:
        from .cuda import toolchain

        jetpack = target.gpu.jetpack
        toolchain.find(toolchain.JETPACKS[jetpack] if jetpack else None)


def check_tuning(target: Target, tune: bool) -> None:
    """Check that a tuning log can be read, and that this machine can tune for the target if it is to.

    Raises:
        UsageError: The log is damaged, or this machine cannot run the target's code.
        BuildError: The log cannot be written.
    """
    from . import tuning

    resolved = resolve(target)
    if tune:
        tuning.check(resolved)
    if resolved.simd is not None and (tuning.log_path(resolved).exists() or not tune):
        tuning.load(resolved)


LOWERING = Lowering(lower, check, tune, check_tuning)
