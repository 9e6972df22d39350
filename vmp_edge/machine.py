"""Facts about the machine that this process runs on: its processor, and what the processor can do."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

ANY_MACHINE = "any"  # the manifest's word for a bundle that runs on every processor

_MACHINE_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_CPUINFO = Path("/proc/cpuinfo")
_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_FOLDERS = Path("/sys/fs/cgroup")
_TOPOLOGY = Path("/sys/devices/system/cpu")


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


def default_threads() -> int:
    """Return how many threads an engine takes unless its user chooses: as many as can run at the same time.

    The number is that of the CPUs that the process may use (`taskset`), at most the time that its control group gives
    it (``docker run --cpus``), rounded up, and at most `OMP_NUM_THREADS`.
    """
    limits = [usable_cpu_count()]
    quota = _cpu_quota()
    if quota is not None:
        limits.append(math.ceil(quota))
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list has a number for each nesting
    if wanted.isdecimal():
        limits.append(int(wanted))
    return max(min(limits), 1)


def usable_core_count() -> int:
    """Return the number of cores whose CPUs this process may use: two CPUs can be the halves of one core."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:
        return cpu_count()
    names = [_first_line(_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus]
    return len(set(names))


def _cpu_quota() -> float | None:
    """Return the CPUs' time that this process's control group may use, in CPUs; None where nothing limits it."""
    quotas = [quota for folder in _cgroup_folders() if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders() -> Iterator[Path]:
    """Yield the folders of this process's control group and of the groups around it, of both versions of cgroups."""
    try:
        lines = _CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            yield _CGROUP_FOLDERS / controllers / folder


def _quota(folder: Path) -> float | None:
    """Return the limit of one control group in CPUs; None if it has none."""
    words = _first_line(folder / "cpu.max").split()  # "max 100000" or "150000 100000"
    words = words or [_first_line(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = map(int, words)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


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
