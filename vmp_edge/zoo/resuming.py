"""Going on with a download that an earlier run left unfinished.

Clients of the hub before version 2 keep what has arrived. Newer ones download to a file of a name of their own, and
delete it when the download fails or is stopped, so that a slow line would have to do in one go. `resuming` keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT)
# The file of one download: the hash of the content, a random part, and an ending.
_TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{8}\.incomplete")


@contextlib.contextmanager
def resuming() -> Iterator[None]:
    """Let downloads by the hub's client go on where an earlier one of the same content stopped."""
    from huggingface_hub import file_download

    original = getattr(file_download, "http_get", None)
    if original is None:
        yield
        return
    file_download.http_get = _resuming(original)
    try:
        yield
    finally:
        file_download.http_get = original


def _resuming(download: Callable[..., None]) -> Callable[..., None]:
    """Return the client's function with what is kept of an earlier call as its beginning."""

    def get(url: str, temp_file: BinaryIO, **options: Any) -> None:
        path = Path(str(getattr(temp_file, "name", "")))
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or options.get("resume_size"):
            return download(url, temp_file, **options)
        kept = path.with_name(f"{match[1]}.partial")
        begin = _take(kept, temp_file, options.get("expected_size"))
        try:
            return download(url, temp_file, **{**options, "resume_size": begin})
        except BaseException as error:
            if not (isinstance(error, OSError) and error.errno in _FULL):  # the client deletes its file, and makes room
                _keep(path, temp_file, kept)
            raise

    return get


def _keep(path: Path, file: BinaryIO, kept: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        file.flush()
        if path.stat().st_size:
            path.replace(kept)


def _take(kept: Path, file: BinaryIO, size: int | None) -> int:
    """Write what is kept into the file of a new download.

    Args:
        kept: What an earlier download left; it need not be there.
        file: The file of the new download, which is empty.
        size: The size of the whole content in bytes, if it is known.

    Returns:
        The number of bytes written.
    """
    own = Path(f"{file.name}.taken")
    try:
        kept.replace(own)  # so that no other process takes it, too
    except OSError:
        return 0
    try:
        if size is None or own.stat().st_size > size:
            return 0
        with own.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
        return file.tell()
    finally:
        own.unlink(missing_ok=True)
