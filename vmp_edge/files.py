"""Writing files so that a reader sees a complete file or none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def partial_path(path: Path) -> Path:
    """Return a hidden path beside a file, to write it to until it is complete.

    It differs between processes, and it has the file's suffix, because some writers choose a format by the suffix.
    """
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file completely or not at all.

    The block writes to the temporary path that it is given. When the block ends, the temporary file is renamed to
    `path`. If the block fails, the temporary file is removed, and a file that was at `path` stays as it was.

    Args:
        path: The file's final path. The temporary path is `partial_path` of it.
    """
    temporary = partial_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # already renamed, or cannot be removed
            temporary.unlink()
