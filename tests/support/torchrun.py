"""Several processes that train together, with the environment that `torchrun` gives them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path


def environments(count: int, machines: int) -> list[dict[str, str]]:
    """Return what `torchrun` tells each of a number of processes, which are divided evenly among machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": count}
    beside = count // machines
    own = ({"LOCAL_WORLD_SIZE": beside, "RANK": rank, "LOCAL_RANK": rank % beside} for rank in range(count))
    return [{name: str(value) for name, value in {**address, **numbers}.items()} for numbers in own]


def run_together(command: Sequence[str], count: int, folders: Sequence[Path] = ()) -> list[tuple[int, str]]:
    """Run a command in processes that train together.

    Args:
        command: The command.
        count: Number of processes.
        folders: The current folder of each machine; without any there is one machine, and its folder is this one.

    Returns:
        The exit code of each process, and what it wrote to the standard error output.
    """
    machines = folders or [Path.cwd()]
    running = []
    for environment in environments(count, len(machines)):
        place = machines[int(environment["RANK"]) // int(environment["LOCAL_WORLD_SIZE"])]
        known = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        running.append(subprocess.Popen(command, cwd=place, env=known, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=240)[1] for process in running]
    return [(process.returncode, error) for process, error in zip(running, errors, strict=True)]
