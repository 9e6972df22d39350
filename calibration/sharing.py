"""Share a set of videos between processes, on one machine or several, and put together what each of them found.

Nothing is sent: every process writes its part into a folder that all of them see, and the one that writes the last part
puts them together. A part that is there already, of a run that was cut off, is not computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError, VmpError
from vmp_edge.formatting import quantity
from vmp_edge.machine import usable_cpu_count

from .clipset import ClipSetError, Entry

# What launchers tell each of their processes: its number, and how many there are. The first pair that is there counts.
# SLURM_NTASKS is what the job was promised; a step (srun) may have fewer processes.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), ("SLURM_PROCID", "SLURM_NTASKS"))
Arrays = dict[str, NDArray[Any]]
Item = TypeVar("Item")


class PartError(VmpError):
    """A part cannot be written or read."""


class SharePendingError(VmpError):
    """This process has done its share, and others have not."""


@dataclass(frozen=True)
class Share:
    """Which of the processes this one is.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        neighbours: How many of them are on this machine and may use the same CPUs.
    """

    rank: int = 0
    count: int = 1
    neighbours: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """Return what torchrun or SLURM tells this process; the whole set if it was started by neither.

        A batch script of SLURM is told numbers, too, but it runs once: only ``srun`` starts it in several processes.

        Raises:
            UsageError: A number is none, or does not fit the other one.
        """
        for names in LAUNCHERS:
            texts = [environment.get(name) for name in names]
            is_batch_script = "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
            if None in texts or (names[0] == "SLURM_PROCID" and is_batch_script):
                continue
            numbers = [int(text) if text is not None and text.isascii() and text.isdigit() else -1 for text in texts]
            if not 0 <= numbers[0] < numbers[1]:
                told = " and ".join(f"{name}={text!r:.20}" for name, text in zip(names, texts, strict=True))
                raise UsageError(f"{told} do not say which part of the work this process has")
            beside = environment.get("LOCAL_WORLD_SIZE", "")  # SLURM gives each process CPUs of its own
            return cls(numbers[0], numbers[1], int(beside) if beside.isascii() and beside.isdigit() else 1)
        return cls()

    @property
    def is_whole(self) -> bool:
        """Whether there is one process alone."""
        return self.count == 1

    def places(self, count: int) -> range:
        """Return the places of its items among `count`: every so many, so that all shares are alike."""
        return range(self.rank, count, self.count)

    def of(self, items: Sequence[Item]) -> list[Item]:
        """Return its items."""
        return [items[place] for place in self.places(len(items))]

    def workers(self, chosen: int | None) -> int | None:
        """Return how many worker processes it may have, so that its neighbours have as many.

        Args:
            chosen: The user's choice, which counts.

        Returns:
            The number, as `in_workers` takes it; None if there are no neighbours.
        """
        if chosen is not None or self.neighbours < 2:
            return chosen
        return max(usable_cpu_count() // self.neighbours, 1)

    def __str__(self) -> str:
        return f"share {self.rank + 1} of {self.count}"


def identity(*facts: Any, videos: Sequence[Entry] = ()) -> str:
    """Return a short text that differs where facts differ, which are plain data, or the videos or their sizes."""
    facts = (*facts, [[str(entry.path), entry.label, _size(entry.path)] for entry in videos])
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


class Parts:
    """The folder of the parts of one piece of work.

    Args:
        beside: The folder in which the parts' own folder is made.
        key: The `identity` of the work: parts of other work have another folder.
        share: The process.
    """

    def __init__(self, beside: Path, key: str, share: Share) -> None:
        self.folder = beside / f".vmp-edge-{key}-of-{share.count}"
        self.share = share

    def own(self) -> Arrays | None:
        """Return this process's part, if it was written before."""
        return self._read(self.share.rank)

    def write(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write this process's part.

        Raises:
            PartError: It cannot be written.
        """
        temporary = self.folder / f".{self.share.rank}.partial.npz"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path(self.share.rank))
        except OSError as error:
            raise PartError(
                f"{self.folder}: the results of {self.share} cannot be written ({error.strerror})"
            ) from error

    def every(self) -> list[Arrays] | None:
        """Return the parts of all processes by their rank, or None if one of them is not there yet."""
        parts = [self._read(rank) for rank in range(self.share.count)]
        return [part for part in parts if part is not None] if None not in parts else None

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[list[Arrays]]:
        """Take the parts of all processes, by their rank, for this process alone. They are removed at the end.

        Two processes may end at the same time and both see all parts: the one that renames the folder has them. If the
        work with them fails, they are put back, so that the next run has them; but not if no video could be used.
        A process that starts only after its part of an earlier run was used computes the part again, and leaves it.

        Args:
            what: What the process does that has them, for the message to the others.

        Raises:
            SharePendingError: Parts are missing, or another process has them.
        """
        every, taken = self.every(), self.folder.with_name(f"{self.folder.name}-{self.share.rank}")
        if every is None and self._path(self.share.rank).exists():
            missing = sum(not self._path(rank).exists() for rank in range(self.share.count))
            where = f"{quantity(max(missing, 1), 'part')} of {self.share.count} not yet in {self.folder}"
            raise SharePendingError(f"{self.share} is done; the last one {what} ({where})")
        try:
            if every is None:
                raise FileNotFoundError
            self.folder.rename(taken)
        except OSError as error:
            raise SharePendingError(f"{self.share} is done; another one {what}") from error
        try:
            yield every
        except ClipSetError:  # of the next run's videos some may be usable
            shutil.rmtree(taken, ignore_errors=True)
            raise
        except BaseException:
            taken.rename(self.folder)
            raise
        shutil.rmtree(taken, ignore_errors=True)

    def _path(self, rank: int) -> Path:
        return self.folder / f"{rank}.npz"

    def _read(self, rank: int) -> Arrays | None:
        try:
            with np.load(self._path(rank), allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
