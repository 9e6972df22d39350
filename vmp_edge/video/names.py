"""File names that OpenCV can take. It crashes on names that are not UTF-8, and takes `a:` for a protocol."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import SourceError


def is_utf8(path: Path) -> bool:
    """Return whether a path can be written in UTF-8. Bytes of other encodings are surrogates in Python."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def borrowed_name(path: Path) -> Iterator[str]:
    """Yield a name by which OpenCV can open a file inside the block, whatever the file's name is.

    A folder whose name is not UTF-8, or a file that exists and has such a name, is reached through a descriptor.

    Raises:
        SourceError: The file's name is not UTF-8, and the file cannot be opened.
    """
    path = path.absolute()
    if is_utf8(path):
        yield str(path)
        return
    target = path.parent if is_utf8(Path(path.name)) else path
    try:
        descriptor = os.open(target, os.O_RDONLY)
    except OSError as error:
        raise SourceError(f"{path.name!a} cannot be opened: {error.strerror}") from error
    try:
        yield f"/proc/self/fd/{descriptor}" + (f"/{path.name}" if target != path else "")
    finally:
        os.close(descriptor)
