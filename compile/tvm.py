"""Lowering to TVM: generated matrix products and the native scan, in one shared library."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from vmp_edge.bundle import Staging
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowering import Lowered
from vmp_edge.compile.target import Target
from vmp_edge.errors import BuildError, MissingDependencyError
from vmp_edge.manifest import host_machine
from vmp_edge.runtimes.tvm.library import INSTALL_HINT, build_operators, runtime_library

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba

PROGRAM = "model.so"
COMPILERS = {"x86_64": "x86_64-linux-gnu-g++", "aarch64": "aarch64-linux-gnu-g++"}
TOOLCHAINS = {"aarch64": "aarch64-linux-gnu.cmake"}


def lower(model: VideoMamba, staging: Staging, kind: Target) -> Lowered:
    """Write ``model.so`` into a bundle.

    Args:
        model: the source model.
        staging: the bundle that is being made.
        kind: the target; ``host`` becomes the most demanding target that this CPU satisfies.

    Raises:
        MissingDependencyError: TVM, or the target's C++ compiler, is not installed.
        UsageError: no target fits this CPU, or the target's tuning log is none.
        BuildError: the library cannot be built for the target.
    """
    runtime_library()
    to_library(model, resolve(kind), staging.path / PROGRAM)
    staging.add(PROGRAM)
    tools = {name: importlib.metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")}
    return Lowered(program=PROGRAM, tools=tools, cpu_features=resolve(kind).cpu_features)


def resolve(kind: Target) -> Target:
    """The target itself; for ``host``, the most demanding target that this CPU satisfies.

    Raises:
        UsageError: there is none.
    """
    return dataclasses.replace(target.native(), tuning=kind.tuning) if kind.machine == "host" else kind


def tune(model: VideoMamba, kind: Target) -> None:
    """Time register tiles for a model's products on this machine, and keep the best in the target's log.

    Args:
        model: the source model.
        kind: the target, or ``host``.

    Raises:
        MissingDependencyError: TVM is not installed.
        UsageError: this machine cannot run the target's code, or the log that is there is none.
        BuildError: the log cannot be written.
    """
    runtime_library()
    from vmp_edge.compile import tuning
    from vmp_edge.compile.converters import products
    from vmp_edge.compile.gemm import TILES, Tiles

    kind = resolve(kind)
    tuning.check(kind)
    assert kind.simd is not None
    tuning.tune(kind, products(graph.export(model), Tiles(TILES[kind.simd])))


def to_library(model: VideoMamba, kind: Target, path: Path) -> None:
    """Compile a model's inference form and link it with the native kernels.

    Args:
        model: the source model.
        kind: a target with an ``llvm`` entry.
        path: of the shared library.

    Raises:
        MissingDependencyError, UsageError, BuildError: as `lower`.
    """
    try:
        import tvm
        from tvm import relax
    except ImportError as error:
        raise MissingDependencyError(f"lowering to TVM needs {error.name}; {INSTALL_HINT}") from error
    from vmp_edge.compile import tuning
    from vmp_edge.compile.converters import to_relax

    compiler = cross_compiler(kind.machine)
    toolchain = None if kind.machine == host_machine() else TOOLCHAINS.get(kind.machine)
    archives = build_operators(toolchain)
    assert kind.llvm is not None
    machine = tvm.target.Target({"kind": "llvm", **kind.llvm})
    module = to_relax(graph.export(model), tuning.load(kind))
    pipeline = relax.backend.cpu_generic.get_default_pipeline(machine)
    executable = tvm.compile(module, target=machine, relax_pipeline=pipeline)

    def link(output: str, objects: list[str], **_: object) -> None:
        link_library(compiler, output, objects, archives)

    executable.export_library(str(path), fcompile=link)


def cross_compiler(machine: str) -> str:
    """The C++ compiler that links for a machine.

    Raises:
        MissingDependencyError: it is not installed.
    """
    name = "g++" if machine == host_machine() else COMPILERS.get(machine, f"{machine}-linux-gnu-g++")
    if shutil.which(name) is None:
        package = "g++" if name == "g++" else f"g++-{machine.replace('_', '-')}-linux-gnu"
        raise MissingDependencyError(f"building for {machine} needs {name} (Debian: apt install {package})")
    return name


def link_library(compiler: str, output: str, objects: list[str], archives: list[Path]) -> None:
    """Objects and archives to a shared library that exports what TVM looks up by name and nothing of the kernels."""
    operators, *others = map(str, archives)
    command = [compiler, "-shared", "-fPIC", "-o", output, *objects]
    command += ["-Wl,--whole-archive", operators, "-Wl,--no-whole-archive", *others, "-lpthread", "-s"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"linking {Path(output).name} failed: {(done.stderr.splitlines() or ['no message'])[-1]}")
