"""Targets: one YAML file in ``targets/`` for each device kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from vmp_edge import engines
from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.machine import ANY_MACHINE, host_machine, missing_cpu_features

FOLDER = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class GpuDevice:
    """A GPU that a target's bundles run on.

    Attributes:
        architecture: Compute capability, 10 * major + minor.
        processors: Number of streaming multiprocessors, for which kernels are tuned.
        memory_gb: Memory in gigabytes.
    """

    architecture: int
    processors: int
    memory_gb: int


@dataclass(frozen=True)
class GpuTarget:
    """The NVIDIA GPUs of a target.

    Attributes:
        architectures: Compute capabilities for which a bundle has machine code.
        devices: The target's GPUs by name. A bundle runs on all of them and is tuned for one.
        jetpacks: Major versions of JetPack, NVIDIA's system for Jetson, that the user can choose from; none elsewhere.
        device: The GPU that a bundle is tuned for, a key of `devices`.
        jetpack: The JetPack that the user chose; None accepts any CUDA compiler.
    """

    architectures: tuple[int, ...]
    devices: dict[str, GpuDevice]
    jetpacks: tuple[str, ...]
    device: str
    jetpack: str | None = None


@dataclass(frozen=True)
class Soc:
    """A Qualcomm system on a chip.

    Attributes:
        model: The chip's number in QNN, Qualcomm's compiler.
        htp: The version of the chip's Hexagon tensor processor (HTP).
    """

    model: int
    htp: int


@dataclass(frozen=True)
class Needs:
    """CPU features that a precision needs beyond those that all CPUs of a target have.

    Attributes:
        cpu_features: The features' names in Linux's /proc/cpuinfo.
        mattr: The features' names in LLVM, each with a plus sign.
    """

    cpu_features: tuple[str, ...]
    mattr: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A device kind.

    Attributes:
        name: The name of the YAML file.
        description: One line for people.
        machine: The processor architecture that a bundle needs, as `vmp_edge.machine.host_machine` names it. ``host``
            stands for the building machine's, ``any`` for all, and a device's own name for one that runs no Linux.
        engine: The engine that executes the bundles unless the user chooses another.
        engines: All engines that can execute them.
        precisions: The precisions that the device is for and that one of the engines does, the default first.
        verified: What was verified, by the machine on which it was verified.
        cpu_features: CPU features beyond the architecture that every CPU of the target has, as in /proc/cpuinfo.
        needs: Further CPU features that bundles of some precisions need, by precision.
        llvm: TVM's LLVM target without its kind, ``{"mtriple": ..., "mcpu": ...}``; None where `native` chooses.
        simd: The registers that TVM's matrix products are tiled for, a key of `lowerings.tvm.gemm.TILES`.
        gpu: The target's NVIDIA GPUs; None where the CPU does the work.
        scan: How scans are written for backends without a kernel for them: the fields of `vmp_edge.ops.chunked.Form`.
        delegate: The delegate of ExecuTorch or ONNX Runtime that takes the whole model, a name in
            `lowerings.delegates.MODULES`; None where our operators or standard operators run.
        options: Options for the delegate.
        socs: The chips that a bundle can be compiled for, by name; none where a bundle runs on all.
        soc: The chip that a bundle is for, a key of `socs`.
        tuning: A tuning log instead of the target's own in ``targets/tuning`` (`lowerings.tvm.tuning`).
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
    """List all targets' names, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Target:
    """Read a target.

    Raises:
        UsageError: There is no such target.
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
        precisions=tuple(name for name in entry["precisions"] if _engines_that_do(name, entry["engines"])),
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


def _engines_that_do(precision: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if precision in engines.record(name).precisions]


def _gpu(entry: dict[str, Any]) -> GpuTarget:
    devices = {name: GpuDevice(**values) for name, values in entry["devices"].items()}
    jetpacks = tuple(str(version) for version in entry.get("jetpacks", ()))
    return GpuTarget(tuple(entry["architectures"]), devices, jetpacks, device=next(iter(devices)))


def choose(target: Target, device: str | None, jetpack: str | None, soc: str | None = None) -> Target:
    """Return a target with the user's choice of device, JetPack or chip.

    Args:
        target: The target.
        device: The GPU that a bundle is tuned for; None keeps the target's.
        jetpack: The JetPack on the device; None leaves it open.
        soc: The Qualcomm chip that a bundle is compiled for; None keeps the target's.

    Raises:
        UsageError: The target has no such device, JetPack or chip; the text lists what it has.
    """
    choices = {"--device": device, "--jetpack": jetpack, "--soc": soc}
    known = {"--device": tuple(target.gpu.devices), "--jetpack": target.gpu.jetpacks} if target.gpu else {}
    known["--soc"] = tuple(target.socs)
    for option, value in choices.items():
        if value is not None and value not in known.get(option, ()):
            listed = ", ".join(known.get(option, ())) or "none"
            raise UsageError(f"{option} is {value!r}; target {target.name} has {listed}")
    if soc is not None:
        return replace(target, soc=soc)
    if target.gpu is None:
        return target
    return replace(target, gpu=replace(target.gpu, device=device or target.gpu.device, jetpack=jetpack))


def for_precision(target: Target, precision: str) -> Target:
    """Return a target whose CPU features include those that a precision needs."""
    if precision not in target.needs:
        return target
    needs, llvm = target.needs[precision], target.llvm or {}
    features = (*target.cpu_features, *needs.cpu_features)
    return replace(target, cpu_features=features, llvm={**llvm, "mattr": list(needs.mattr)}, needs={})


def native(precision: str = "fp32") -> Target:
    """Return the most demanding target with an ``llvm`` entry that this machine satisfies, ready `for_precision`.

    Raises:
        UsageError: There is none.
    """
    known = [target for target in map(load, names()) if target.gpu is None and target.llvm]
    known = [target for target in known if precision in target.precisions]
    fitting = [target for target in (for_precision(target, precision) for target in known) if runs_here(target)]
    if not fitting:
        listed = ", ".join(target.name for target in known)
        raise UsageError(f"TVM has no target for this CPU (it has {listed}); choose another --engine")
    return max(fitting, key=lambda target: len(target.cpu_features))


def runs_here(target: Target) -> bool:
    """Return whether this machine can run a target's bundles."""
    fits = target.machine in ("host", ANY_MACHINE, host_machine()) and not missing_cpu_features(target.cpu_features)
    return fits and (target.gpu is None or _has_gpu(target.gpu))


def _has_gpu(gpu: GpuTarget) -> bool:
    from vmp_edge.runtimes.tvm.cuda import find_gpu

    try:
        return find_gpu().runs(gpu.architectures)
    except MissingDependencyError:
        return False


def check_choice(target: Target, engine: str, precision: str) -> None:
    """Check that a target has an engine and a precision, and that the engine does the precision.

    Raises:
        UsageError: It does not; the text lists what it has.
    """
    if engine not in target.engines:
        raise UsageError(f"target {target.name} has no engine {engine!r}; it has {', '.join(target.engines)}")
    if precision not in target.precisions:
        raise UsageError(f"target {target.name} has no precision {precision!r}; it has {', '.join(target.precisions)}")
    if precision not in engines.record(engine).precisions:
        others = ", ".join(_engines_that_do(precision, target.engines))
        raise UsageError(f"the engine {engine} does not do {precision} for {target.name}; choose --engine {others}")
