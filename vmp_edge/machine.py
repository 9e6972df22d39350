"""Facts about the machine that this process runs on: its processor, and what the processor can do."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

ANY_MACHINE = "any"  # the manifest's word for a bundle that runs on every processor

_MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_CPUINFO = Path("/proc/cpuinfo")


def host_machine() -> str:
    """Return this machine's processor architecture as manifests name it: `x86_64`, `aarch64`, ..."""
    name = platform.machine().lower()
    return _MACHINE_ALIASES.get(name, name)


def cpu_model() -> str:
    """Return the CPU's model name as Linux gives it, or the architecture where Linux gives none."""
    return _cpuinfo("model name") or platform.machine()


def cpu_count() -> int:
    """Return the number of CPUs of this machine, at least 1."""
    return os.cpu_count() or 1


def usable_cpu_count() -> int:
    """Return the number of CPUs that this process may use, which can be fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return cpu_count()


def cpu_features() -> frozenset[str]:
    """Return the CPU's features beyond its architecture, as Linux names them; empty where they cannot be read."""
    return frozenset(_cpuinfo("flags", "Features").split())  # x86 and Arm name the line differently


def missing_cpu_features(needed: Sequence[str]) -> list[str]:
    """Return the needed features that this CPU lacks, in the same order."""
    available = cpu_features()
    return [name for name in needed if name not in available]


def _cpuinfo(*keys: str) -> str:
    """Return the value of the first line of /proc/cpuinfo that starts with one of the keys, or an empty text."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return ""
    line = next((line for line in lines if line.startswith(keys)), "")
    return line.partition(":")[2].strip()
