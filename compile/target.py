"""Targets: a device kind each, one YAML file in ``targets/`` each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.machine import ANY_MACHINE, host_machine, missing_cpu_features

from .lowering import PRECISIONS

FOLDER = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class GpuDevice:
    """A GPU that a target's bundles run on.

    Attributes:
        architecture: compute capability, 10 * major + minor.
        processors: streaming multiprocessors, which kernels are tuned for.
        memory_gb: gigabytes of memory.
    """

    architecture: int
    processors: int
    memory_gb: int


@dataclass(frozen=True)
class GpuTarget:
    """The NVIDIA GPUs of a target.

    Attributes:
        architectures: compute capabilities that a bundle has machine code for.
        devices: by name; a bundle runs on all of them and is tuned for one.
        jetpacks: NVIDIA's systems for Jetson that can be asked for, by their major version; none elsewhere.
        device: the one that a bundle is tuned for, a key of `devices`.
        jetpack: what was asked for; None takes whatever the compiler's code needs.
    """

    architectures: tuple[int, ...]
    devices: dict[str, GpuDevice]
    jetpacks: tuple[str, ...]
    device: str
    jetpack: str | None = None


@dataclass(frozen=True)
class Soc:
    """A system on a chip of Qualcomm's.

    Attributes:
        model: its number in QNN, Qualcomm's compiler.
        htp: the version of its Hexagon tensor processor (HTP).
    """

    model: int
    htp: int


@dataclass(frozen=True)
class Needs:
    """What a precision needs of a target's CPUs beyond what all of them have.

    Attributes:
        cpu_features: as Linux names them in /proc/cpuinfo.
        mattr: as LLVM does, with a plus each.
    """

    cpu_features: tuple[str, ...]
    mattr: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A device kind.

    Attributes:
        name: the YAML file's name.
        description: one line for people.
        machine: the processor architecture that a bundle needs, as `vmp_edge.bundle.manifest.host_machine` names it,
            ``host`` for that of the building machine, ``any``, or a device's own name where no Linux machine can run
            it.
        engine: what executes its bundles unless the user says otherwise.
        engines: all that can.
        precisions: those that the device is for and one of the engines does, the default first.
        cpu_features: what its CPUs have beyond the architecture, as Linux names it in /proc/cpuinfo.
        needs: what else bundles of some precisions need of a CPU, by the precision.
        llvm: TVM's LLVM target but its kind, ``{"mtriple": ..., "mcpu": ...}``; None where `native` chooses.
        simd: the registers that TVM's matrix products are tiled for, a key of `lowerings.tvm.gemm.TILES`.
        verified: what was verified, by the machine that it was verified on.
        gpu: its NVIDIA GPUs; None where the CPU does the work.
        scan: how scans are written for backends without a kernel for them, the fields of `vmp_edge.ops.chunked.Form`.
        delegate: of ExecuTorch or ONNX Runtime, a module of ``delegates/``, that takes the whole model; None where our
            operators run, or standard ones.
        options: of the delegate.
        socs: those that a bundle can be compiled for, by name; none where it runs on all.
        soc: the one that a bundle is for, a key of `socs`.
        tuning: a tuning log instead of the target's own in ``targets/tuning`` (`lowerings.tvm.tuning`).
    """

    name: str
    description: str
    machine: str
    engine: str
    engines: tuple[str, ...]
    precisions: tuple[str, ...]
    verified: dict[str, str]
    cpu_features: tuple[str, ...] = ()
    needs: dict[str, Needs] = field(default_factory=dict)
    llvm: dict[str, Any] | None = None
    simd: str | None = None
    gpu: GpuTarget | None = None
    scan: dict[str, Any] = field(default_factory=dict)
    delegate: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    socs: dict[str, Soc] = field(default_factory=dict)
    soc: str | None = None
    tuning: Path | None = None


def names() -> list[str]:
    """All targets, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Target:
    """Read a target.

    Raises:
        UsageError: there is no such target.
    """
    if name not in names():
        raise UsageError(f"unknown target {name!r}; known are {', '.join(names())}")
    entry: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return Target(
        name=name,
        description=entry["description"],
        machine=entry["machine"],
        engine=entry["engine"],
        engines=tuple(entry["engines"]),
        precisions=tuple(name for name in entry["precisions"] if _engines_with(name, entry["engines"])),
        verified=entry["verified"],
        cpu_features=tuple(entry.get("cpu_features", ())),
        needs={
            precision: Needs(tuple(needs["cpu_features"]), tuple(needs["mattr"]))
            for precision, needs in entry.get("needs", {}).items()
        },
        llvm=entry.get("llvm"),
        simd=entry.get("simd"),
        gpu=_gpu(entry["gpu"]) if "gpu" in entry else None,
        scan=entry.get("scan", {}),
        delegate=entry.get("delegate"),
        options=entry.get("options", {}),
        socs={name: Soc(**values) for name, values in entry.get("socs", {}).items()},
        soc=next(iter(entry.get("socs", {})), None),
    )


def _engines_with(precision: str, engines: Sequence[str]) -> list[str]:
    return [engine for engine in engines if precision in PRECISIONS[engine]]


def _gpu(entry: dict[str, Any]) -> GpuTarget:
    devices = {name: GpuDevice(**values) for name, values in entry["devices"].items()}
    jetpacks = tuple(str(version) for version in entry.get("jetpacks", ()))
    return GpuTarget(tuple(entry["architectures"]), devices, jetpacks, device=next(iter(devices)))


def choose(target: Target, device: str | None, jetpack: str | None, soc: str | None = None) -> Target:
    """A target with the device that a bundle is tuned for, and its JetPack, or the SoC that it is compiled for.

    Raises:
        UsageError: the target has no such device, JetPack or SoC; the text says what it has.
    """
    asked = {"--device": device, "--jetpack": jetpack, "--soc": soc}
    has = {"--device": tuple(target.gpu.devices), "--jetpack": target.gpu.jetpacks} if target.gpu else {}
    has["--soc"] = tuple(target.socs)
    for option, value in asked.items():
        if value is not None and value not in has.get(option, ()):
            known = ", ".join(has.get(option, ())) or "none"
            raise UsageError(f"{option} is {value!r}; target {target.name} has {known}")
    if soc is not None:
        return replace(target, soc=soc)
    if target.gpu is None:
        return target
    return replace(target, gpu=replace(target.gpu, device=device or target.gpu.device, jetpack=jetpack))


def for_precision(target: Target, precision: str) -> Target:
    """A target with what a precision needs besides among its features."""
    if precision not in target.needs:
        return target
    needs, llvm = target.needs[precision], target.llvm or {}
    features = (*target.cpu_features, *needs.cpu_features)
    return replace(target, cpu_features=features, llvm={**llvm, "mattr": list(needs.mattr)}, needs={})


def native(precision: str = "fp32") -> Target:
    """The most demanding target with an ``llvm`` entry that this machine satisfies, `for_precision`.

    Raises:
        UsageError: there is none.
    """
    kinds = [kind for kind in map(load, names()) if kind.gpu is None and kind.llvm and precision in kind.precisions]
    fitting = [kind for kind in (for_precision(kind, precision) for kind in kinds) if runs_here(kind)]
    if not fitting:
        known = ", ".join(kind.name for kind in kinds)
        raise UsageError(f"TVM has no target for this CPU (it has {known}); choose another --engine")
    return max(fitting, key=lambda kind: len(kind.cpu_features))


def runs_here(target: Target) -> bool:
    """Whether this machine can run a target's bundles."""
    fits = target.machine in ("host", ANY_MACHINE, host_machine()) and not missing_cpu_features(target.cpu_features)
    return fits and (target.gpu is None or _has_gpu(target.gpu))


def _has_gpu(gpu: GpuTarget) -> bool:
    from vmp_edge.runtimes.tvm.cuda import find_gpu

    try:
        return find_gpu().runs(gpu.architectures)
    except MissingDependencyError:
        return False


def check_choice(target: Target, engine: str, precision: str) -> None:
    """Whether a target has an engine and a precision, and the engine does the precision.

    Raises:
        UsageError: it does not; the text says what it has.
    """
    if engine not in target.engines:
        raise UsageError(f"target {target.name} has no engine {engine!r}; it has {', '.join(target.engines)}")
    if precision not in target.precisions:
        raise UsageError(f"target {target.name} has no precision {precision!r}; it has {', '.join(target.precisions)}")
    if precision not in PRECISIONS[engine]:
        others = ", ".join(_engines_with(precision, target.engines))
        raise UsageError(f"the engine {engine} does not do {precision} for {target.name}; choose --engine {others}")
