"""The optional parts of this package: which engines, extras and tools are installed here, and whether they work."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from . import engines, installation
from .installation import install_command
from .machine import host_machine
from .trial import Attempt, Outcome


@dataclass(frozen=True)
class EnginePart:
    """An engine, and what a trial of it gave.

    Attributes:
        name: The engine's name.
        installed: Whether its distribution is installed. An engine of the user's own counts as installed.
        version: The installed version; None if it is not installed, or has no distribution of its own.
        works: Whether the trial succeeded.
        text: What works, or what does not and the command that installs it.
    """

    name: str
    installed: bool
    version: str | None
    works: bool
    text: str


@dataclass(frozen=True)
class ExtraPart:
    """An extra of this package.

    Attributes:
        name: The extra's name.
        installed: Whether all of its requirements are installed.
        missing: The requirements that are not.
        command: The command that installs them; None if none is missing.
    """

    name: str
    installed: bool
    missing: tuple[str, ...]
    command: str | None


@dataclass(frozen=True)
class Tool:
    """Something beside Python packages.

    Attributes:
        name: What it is.
        found: Whether it is there and works.
        text: Where or which one it is, or what is for it.
    """

    name: str
    found: bool
    text: str


def version(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed, or damaged."""
    try:
        return importlib.metadata.version(distribution) or None
    except (importlib.metadata.PackageNotFoundError, OSError, KeyError, ValueError):
        return None


def examine_engines(names: Sequence[str] | None = None) -> list[EnginePart]:
    """Try engines, each in a process of its own and all at the same time.

    Args:
        names: The engines; None takes all that this version knows, and those that were registered.
    """
    records = [engines.record(name) for name in (engines.available() if names is None else names)]
    attempts = {record.name: Attempt(*_trial(record)) for record in records if _is_there(record)}
    return [_engine(record, attempts.get(record.name)) for record in records]


def _is_there(record: engines.EngineRecord) -> bool:
    return record.distribution is None or version(record.distribution) is not None


def _trial(record: engines.EngineRecord) -> tuple[str, ...]:
    if record.trial is not None:
        return (record.trial,)
    return "importlib:import_module", record.factory.partition(":")[0]


def _engine(record: engines.EngineRecord, attempt: Attempt | None) -> EnginePart:
    command = install_command(record.extra)
    if attempt is None:
        return EnginePart(record.name, False, None, False, f"not installed; run: {command}")
    found = version(record.distribution) if record.distribution is not None else None
    outcome = attempt.outcome()
    if record.trial is None and outcome.works:
        outcome = Outcome(True, "can be imported")
    named = f"{found}, " if found is not None else ""
    if not outcome.works:
        hint = "" if " install " in outcome.text else f"; to install it again, run: {command}"
        return EnginePart(record.name, True, found, False, f"{named}does not work: {outcome.text}{hint}")
    return EnginePart(record.name, True, found, True, f"{named}{outcome.text}")


def examine_extras() -> list[ExtraPart]:
    """Look for the requirements of all extras."""
    parts = []
    for name in installation.extras():
        missing = tuple(line for line in installation.requirements(name) if not _is_met(line))
        parts.append(ExtraPart(name, not missing, missing, install_command(name) if missing else None))
    return parts


def _is_met(requirement: str) -> bool:
    """Return whether a requirement such as ``onnx>=1.18,<2`` is installed; other conditions than these count as met."""
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(.*)", requirement)
    if match is None or (found := version(match.group(1))) is None:
        return False
    comparisons = re.findall(r"(>=|==|<)\s*([0-9.]+)", match.group(2))
    ours = _release(found)
    for sign, text in comparisons:
        wanted = _release(text)
        size = max(len(ours), len(wanted))
        left, right = (numbers + (0,) * (size - len(numbers)) for numbers in (ours, wanted))
        if not {">=": left >= right, "==": left == right, "<": left < right}[sign]:
            return False
    return True


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers at the begin of a version, without those of pre-releases and the like."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match.group().split("."))) if match else ()


def examine_tools() -> list[Tool]:
    """Look for the native library, the compilers and emulators that builds use, and what reads and writes videos."""
    native, encoder = Attempt("vmp_edge.runtimes.trials:native"), Attempt("vmp_edge.runtimes.trials:encoder")
    return [
        _tried("native library", native, f"it is built when it is needed, or run: {install_command()}"),
        _program("C++ compiler", "g++", "builds need it (Debian: apt install g++)"),
        *_cross_compilers(),
        _nvcc(),
        _program("FFmpeg", "ffmpeg", "PyAV, of the extra `video`, brings its own (Debian: apt install ffmpeg)"),
        _tried("H.264 encoder", encoder, f"clips and recordings for browsers need it; run: {install_command('video')}"),
    ]


def _tried(name: str, attempt: Attempt, need: str) -> Tool:
    outcome = attempt.outcome()
    return Tool(name, outcome.works, outcome.text if outcome.works else f"{outcome.text}: {need}")


def _program(name: str, program: str, need: str) -> Tool:
    path = shutil.which(program)
    return Tool(name, path is not None, path or f"{program} is not installed: {need}")


def _cross_compilers() -> list[Tool]:
    """Look for the compilers and emulators of the other machines that bundles are built for."""
    tools = []
    for machine in ("x86_64", "aarch64"):
        if machine == host_machine():
            continue
        package = f"g++-{machine.replace('_', '-')}-linux-gnu"
        need = f"builds for {machine} need it (Debian: apt install {package})"
        tools.append(_program(f"C++ compiler for {machine}", f"{machine}-linux-gnu-g++", need))
        need = f"builds for {machine} are run under it (Debian: apt install qemu-user)"
        tools.append(_program(f"emulator of {machine}", f"qemu-{machine}", need))
    return tools


def _nvcc() -> Tool:
    path = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if path is None:
        need = "builds for NVIDIA GPUs need NVIDIA's CUDA toolkit, and Jetson with JetPack 6 also the extra `jetpack6`"
        return Tool("nvcc", False, f"not installed: {need}")
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Tool("nvcc", False, f"{path} does not run ({' '.join(str(error).split())})")
    release = re.search(r"release (\d+\.\d+)", text)
    return Tool("nvcc", True, f"{path}, CUDA {release.group(1)}" if release else path)
