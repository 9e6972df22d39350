"""Facts about the machine that this runs on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

ANY_MACHINE = "any"  # the manifest's word for a bundle that runs on every processor

_MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def host_machine() -> str:
    """The machine that this is, in the manifest's words: `x86_64`, `aarch64`, ..."""
    name = platform.machine().lower()
    return _MACHINE_ALIASES.get(name, name)


def cpu_count() -> int:
    """Return the number of CPUs of this machine, at least 1."""
    return os.cpu_count() or 1


def usable_cpu_count() -> int:
    """Return the number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_features() -> frozenset[str]:
    """What this CPU can do beyond its architecture, as Linux names it; nothing where that cannot be read."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(found.partition(":")[2].split())


def missing_cpu_features(needed: Sequence[str]) -> list[str]:
    """Those that this CPU lacks."""
    return [name for name in needed if name not in cpu_features()]
