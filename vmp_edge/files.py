"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write a file to: it takes the file's name when the block ends, and is removed where that fails.

    Args:
        path: of the file; one that is there stays as it is until then. The place keeps the suffix, by which writers
            choose a format.
    """
    place = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield place
        place.replace(path)
    finally:
        with contextlib.suppress(OSError):  # it has its name by now, or cannot be had
            place.unlink()
