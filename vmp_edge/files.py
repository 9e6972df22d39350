"""Writing files so that a reader sees a complete file or none."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from .errors import UsageError


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


def check_writable(path: Path, what: str) -> None:
    """Check, before the work on what it will hold, that a file can be written.

    Args:
        path: The file. An existing one would be replaced.
        what: What the file will hold, for the error message: `the report`.

    Raises:
        UsageError: The path is a folder, or its folder does not exist or is write-protected.
    """
    folder = Path(os.path.realpath(path)).parent
    if path.is_dir():
        raise UsageError(f"{what} cannot be written to {path}, which is a folder: give a file")
    if not folder.is_dir():
        raise UsageError(f"{what} cannot be written to {path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{what} cannot be written to {path}: the folder {folder} is write-protected")


def make_output_folder(path: Path) -> None:
    """Make the folder of a long run's results, and check that files can be written into it.

    Raises:
        UsageError: It cannot be made, or is write-protected.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be the output folder ({error.strerror}): choose another --output") from error
    check_writable(path / "results", "the results")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()
