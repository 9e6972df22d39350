"""Start a program of another processor's Linux under qemu."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from vmp_edge.errors import MissingDependencyError

from ..cross import TOOLCHAINS


def require_emulator(machine: str) -> None:
    """Check that qemu for another machine is installed.

    Raises:
        MissingDependencyError: It is not installed, or the machine is not one that we can build for.
    """
    if machine not in TOOLCHAINS or shutil.which(f"qemu-{machine}") is None:
        raise MissingDependencyError(f"running it needs qemu-{machine} (Debian: apt install qemu-user)")


def launcher(
    machine: str | None, compiler: str, search: list[Path], environment: Mapping[str, str], cpu: str | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return how to start a program that may be for another machine.

    Args:
        machine: The machine to emulate; None starts the program on this one.
        compiler: The C++ compiler for that machine; its C library is beside it.
        search: The folders of the program's shared libraries.
        environment: Variables that the program sees beside those of this process.
        cpu: The CPU to emulate; None takes one with all features that the emulator has.

    Returns:
        The command to put before the program, and the environment to start it in.
    """
    if machine is None:
        return [], {**os.environ, **environment, "LD_LIBRARY_PATH": ":".join(map(str, search))}
    loader = subprocess.run([compiler, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=True)
    root = Path(loader.stdout.strip()).resolve().parent.parent
    environment = {**environment, "LD_LIBRARY_PATH": ":".join(map(str, [*search, root / "lib"]))}
    settings = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
    model = [] if cpu is None else ["-cpu", cpu]
    return [f"qemu-{machine}", "-L", str(root), *model, *settings], dict(os.environ)
