"""Things that many tests take as given (builds and bundles), made once a run for all of its workers."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vmp_edge.cli import main


class Once:
    """A folder that all workers of a run share, and whose entries the first worker that needs one makes.

    Entries are for reading: a test that changes one copies it first. What a test is about is not made here, only what
    it starts from.
    """

    def __init__(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        base = tmp_path_factory.getbasetemp()
        self.folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
        self.folder.mkdir(exist_ok=True)

    def make(self, name: str, fill: Callable[[Path], object]) -> Path:
        """Return the folder of an entry.

        Args:
            name: The entry's name, one for each thing that can be made.
            fill: Called with an empty folder, in at most one worker at a time, until it has ended without an error
                once. The other workers wait meanwhile.
        """
        path, done = self.folder / name, self.folder / f"{name}.done"
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                fill(path)
                done.touch()
        return path

    def bundle(self, *options: object, checkpoint: Path | None = None) -> Path:
        """Return the folder of a bundle that `vmp-edge build` makes.

        Args:
            options: The command's, but for ``--checkpoint`` and ``--output``.
            checkpoint: The checkpoint to build; its name and content are a part of what is asked for.
        """
        words = ["build", *map(str, options)]
        digest = hashlib.sha256("\0".join(words).encode())
        if checkpoint is not None:
            words += ["--checkpoint", str(checkpoint)]
            digest.update(checkpoint.name.encode() + checkpoint.read_bytes())

        def build(folder: Path) -> None:
            code = main([*words, "--output", str(folder / "bundle")])
            assert code == 0, f"vmp-edge {' '.join(words)} ended with {code}"

        return self.make(f"bundle-{digest.hexdigest()[:16]}", build) / "bundle"
