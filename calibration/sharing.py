"""Share a set of videos between processes, on one machine or several, and put together what each of them found.

Nothing is sent: every process writes its part into a folder that all of them see, and the one that writes the last part
puts them together. A part that is there already, of a run that was cut off, is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError, VmpError

from .clipset import Entry

# What launchers tell each of their processes: its number, and how many there are. The first pair that is there counts.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
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
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """Return what torchrun or SLURM tells this process; the whole set if it was started by neither.

        Raises:
            UsageError: A number is none, or does not fit the other one.
        """
        for names in LAUNCHERS:
            texts = [environment.get(name) for name in names]
            if None in texts:
                continue
            numbers = [int(text) if text is not None and text.isascii() and text.isdigit() else -1 for text in texts]
            if not 0 <= numbers[0] < numbers[1]:
                told = " and ".join(f"{name}={text!r:.20}" for name, text in zip(names, texts, strict=True))
                raise UsageError(f"{told} do not say which part of the work this process has")
            return cls(*numbers)
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

    def missing(self) -> int:
        """Return how many parts are not there yet."""
        return sum(not self._path(rank).exists() for rank in range(self.share.count))

    def remove(self) -> None:
        """Remove the folder. Another process may have done it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, rank: int) -> Path:
        return self.folder / f"{rank}.npz"

    def _read(self, rank: int) -> Arrays | None:
        try:
            with np.load(self._path(rank), allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
