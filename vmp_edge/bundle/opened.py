"""Files of a bundle that are opened once: what is hashed through a descriptor is what is used."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ..errors import BundleError
from .manifest import FileEntry

_BLOCK = 1 << 20
_MFD_EXEC = 0x10  # Linux since 6.3; older versions make every file in memory executable
_numbers = itertools.count(1)


class OpenedFile:
    """A checked file that is open, until it is closed or goes out of use.

    Attributes:
        path: A path of exactly this file, whatever its name in the folder stands for by now. It is valid as long as the
            file is open. It is a text, because `pathlib` would change it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.path = _unique_path(descriptor)

    def read(self) -> bytes:
        """Return the file's content."""
        with open(self.path, "rb") as file:  # noqa: PTH123 - the path is a text
            return file.read()

    def close(self) -> None:
        """Close the file. What the system's loader has loaded from it stays loaded."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> OpenedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def open_checked(path: Path, entry: FileEntry, copy: bool = False) -> OpenedFile:
    """Open a file, and check its size and its SHA-256 through the descriptor.

    Args:
        path: The file, or a link to one.
        entry: What the manifest says of it.
        copy: Whether to return a sealed copy in memory of what was hashed, in place of the file. Nobody can change the
            copy after the check. Where the system has no such files, the file itself is returned.

    Returns:
        The open file. The caller closes it.

    Raises:
        BundleError: The file is missing, is not a plain file, is damaged or cannot be read or copied.
    """
    with contextlib.ExitStack() as cleanup, _as_bundle_error(path):
        # Opening a FIFO would wait for a writer without O_NONBLOCK.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        cleanup.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a plain file: copy the bundle again")
        if status.st_size != entry.size:
            raise BundleError(f"{path} has {status.st_size} bytes, expected {entry.size}: copy the bundle again")
        private = _file_in_memory(path.name) if copy else None
        if private is not None:
            cleanup.callback(os.close, private)
        digest = hashlib.sha256()
        for block in _blocks(descriptor):
            digest.update(block)
            if private is not None:
                _write(private, block)
        if digest.hexdigest() != entry.sha256:
            raise BundleError(f"{path} is damaged (its SHA-256 is not the manifest's): copy the bundle again")
        if private is not None:
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(private, fcntl.F_ADD_SEALS, seals)
        return OpenedFile(fcntl.fcntl(descriptor if private is None else private, fcntl.F_DUPFD_CLOEXEC, 0))


def _blocks(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while block := os.pread(descriptor, _BLOCK, offset):
        offset += len(block)
        yield block


def _write(descriptor: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(descriptor, view) :]


def _file_in_memory(name: str) -> int | None:
    if not hasattr(os, "memfd_create"):
        return None
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    for more in (_MFD_EXEC, 0):
        with contextlib.suppress(OSError):
            return os.memfd_create(name[:200], flags | more)
    return None


def _unique_path(descriptor: int) -> str:
    """Return /proc/self/fd/DESCRIPTOR with numbers of its own between the folders, as `/` for 0 and `./` for 1.

    glibc recognises a library that it has loaded by the text of its path, and would mistake one library for another
    whose descriptor had the same number before. The counter's address tells apart the programs that write such paths in
    one process: the C library (`runtimes/embedded/src/file.cpp`) is another one.
    """
    bits = f"{next(_numbers):064b}{id(_numbers):064b}"
    return f"/proc/self/{''.join('./' if bit == '1' else '/' for bit in bits)}fd/{descriptor}"


@contextlib.contextmanager
def _as_bundle_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise BundleError(f"{path} is missing: copy the bundle again") from error
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
