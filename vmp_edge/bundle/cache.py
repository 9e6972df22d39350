"""Bundles that were built to be loaded by a name: kept between processes, and built by one of them at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import BundleError, UsageError
from ..progress import Step
from .reading import Bundle

_LOCK = ".lock"


class Shelf:
    """The place of one bundle in the cache: a folder that holds the bundle in a folder named for its version.

    Args:
        folder: The place. It need not exist.
        what: What the bundle is of, for messages.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self.folder = folder
        self._what = what

    @contextlib.contextmanager
    def bundle(
        self, version: str | None, find_version: Callable[[], str], build: Callable[[Path], None]
    ) -> Iterator[Bundle]:
        """Give the bundle, which is built first if it is not there or is damaged. No process removes it in the block.

        Of several processes and threads that ask for the same bundle, one builds it, and the others wait. A build that
        was interrupted leaves nothing that counts as a bundle, and the next one removes what it has left.

        Args:
            version: The version that is wanted. None takes the newest that is there.
            find_version: Called before a build, and returns the version that will be built.
            build: Called with a folder, and writes the bundle to it, completely or not at all.

        Raises:
            UsageError: The bundle is not there, and the folder cannot be written.
            VmpError: What `find_version` or `build` has raised.
        """
        with contextlib.ExitStack() as stack:
            with self._locked(fcntl.LOCK_SH) as _:
                found = self._find(version)
                if found is not None:
                    yield found
                    return
            self._make_folder()
            is_locked = stack.enter_context(self._locked(fcntl.LOCK_EX))
            found = self._find(version)  # another process may have built it in the meantime
            if found is None:
                if is_locked:
                    self._remove_rests()
                version = find_version()
                found = self._find(version)
            if found is None:
                assert version is not None
                place = self.folder / version
                if place.is_dir():  # it is damaged
                    shutil.rmtree(place)
                build(place)
                found = Bundle.open(place)
                self._remove_others(version)
            yield found

    def _find(self, version: str | None) -> Bundle | None:
        """Return the bundle of a version, or the newest one, if it is whole."""
        places = [self.folder / version] if version is not None else self._places()
        for place in places:
            with contextlib.suppress(BundleError):
                return Bundle.open(place)
        return None

    def _places(self) -> list[Path]:
        """Return the folders of all versions, the newest first."""
        try:
            places = [path for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
            return sorted(places, key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError:
            return []

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_writable(error.strerror) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise self._not_writable("it is write-protected")

    def _not_writable(self, reason: str | None) -> UsageError:
        return UsageError(
            f"the bundle of {self._what} cannot be kept in {self.folder} ({reason}): "
            "name another cache folder in VMP_EDGE_CACHE"
        )

    def _remove_rests(self) -> None:
        """Remove the hidden folders of builds that were killed. The caller has the lock, so that none is at work."""
        for path in self.folder.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def _remove_others(self, version: str) -> None:
        """Remove the bundles of other versions, and the reports beside them."""
        for path in self.folder.iterdir():
            if path.name == _LOCK or path.name.startswith(version):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[bool]:
        """Hold the place's lock, and wait for it if another process has it. Yields whether there is a lock.

        There is none in a folder that cannot be written, and on file systems without locks.
        """
        descriptor = self._open_lock()
        if descriptor is None:
            yield False
            return
        try:
            yield self._acquire(descriptor, kind)
        finally:
            os.close(descriptor)  # which releases the lock

    def _open_lock(self) -> int | None:
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            with contextlib.suppress(OSError):
                return os.open(self.folder / _LOCK, flags | os.O_CLOEXEC, 0o666)
        return None

    def _acquire(self, descriptor: int, kind: int) -> bool:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            with Step(f"vmp-edge: wait for another process that builds or loads {self._what}"):
                fcntl.flock(descriptor, kind)
        except OSError:
            return False
        return True
