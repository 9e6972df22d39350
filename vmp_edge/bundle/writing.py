"""Write a bundle, all or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from ..errors import BuildError, BundleError
from .manifest import (
    MANIFEST_NAME,
    VARIANTS_FOLDER,
    Manifest,
    is_plain_name,
)
from .reading import Bundle, describe_file, read_manifest


class Staging:
    """A bundle being written, in a temporary folder beside its destination; `staged_bundle` makes one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sealed = False
        self._names: list[str] = []

    def add(self, name: str, content: bytes | Path | None = None) -> Path:
        """Adds a file to the bundle.

        Args:
            name: Its plain name in the bundle.
            content: Its bytes, or a file to copy; None takes the file that was already written to `path / name`.

        Returns:
            Where the file is.

        Raises:
            BuildError: The name is not a plain one, or there is no such file.
        """
        if not is_plain_name(name) or name == MANIFEST_NAME:
            raise BuildError(f"{name!r} cannot be a file of a bundle: plain names only, other than {MANIFEST_NAME}")
        place = self.path / name
        if isinstance(content, bytes):
            place.write_bytes(content)
        elif content is not None and not (place.exists() and place.samefile(content)):
            shutil.copyfile(content, place)
        if not place.is_file():
            raise BuildError(f"{place} was not written")
        if name not in self._names:
            self._names.append(name)
        return place

    def seal(self, manifest: Manifest) -> Bundle:
        """Writes the manifest with each added file's size and hash, and opens the result with every check.

        May be called again, with more in the manifest: to record what was measured on the bundle itself.

        Args:
            manifest: Without `files`, which is filled in.

        Returns:
            The bundle in its temporary folder, ready to run.

        Raises:
            BuildError: The folder holds a file that was not added, or the manifest cannot be written.
            BundleError: The manifest is not valid.
        """
        strangers = _unknown(self.path, {*self._names, MANIFEST_NAME}, manifest.variants)
        if strangers:
            raise BuildError(f"the bundle would hold files that were not added: {', '.join(sorted(strangers))}")
        files = {name: describe_file(self.path / name) for name in self._names}
        try:
            text = replace(manifest, files=files).to_yaml()
        except yaml.YAMLError as error:
            raise BuildError(f"the manifest holds a value that YAML cannot: {' '.join(str(error).split())}") from error
        (self.path / MANIFEST_NAME).write_text(text, encoding="utf-8")
        bundle = Bundle.open(self.path, any_machine=True)
        self.sealed = True
        return bundle


@contextlib.contextmanager
def staged_bundle(destination: str | os.PathLike[str]) -> Iterator[Staging]:
    """Writes a bundle, all or nothing.

    Within the block, files are added to a temporary folder beside the destination, and the sealed result can be run
    there. Leaving the block syncs it to disk and renames it into place; leaving it by any exception, Ctrl-C included,
    removes every trace.

    Args:
        destination: The bundle's folder; a bundle that is there is replaced.

    Raises:
        BuildError: The destination holds something other than a bundle, cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(destination))
    made: list[Path] = []
    temporary: Path | None = None
    try:
        with _as_build_error(target):
            _check_replaceable(target)
            made = _make_folders(target.parent)
            temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.building-", dir=target.parent))
            temporary.chmod(0o777 & ~_umask())
        staging = Staging(temporary)
        with _disk_full_as_build_error(target):
            yield staging
        if not staging.sealed:
            raise BuildError(f"{target} was not finished: no manifest was written")
        with _as_build_error(target):
            _sync(temporary)
            _check_replaceable(target)
            _move_into_place(temporary, target)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        raise


def check_destination(destination: str | os.PathLike[str]) -> None:
    """Check that a bundle can be written to a folder: to know it before the work of building one.

    Args:
        destination: The bundle's folder.

    Raises:
        BuildError: The destination holds something other than a bundle, or cannot be written.
    """
    target = Path(os.path.realpath(destination))
    with _as_build_error(target):
        _check_replaceable(target)
        parent = next(path for path in target.parents if path.exists())
        if not parent.is_dir():
            raise BuildError(f"{target} cannot be written: {parent} is not a folder")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise BuildError(f"{target} cannot be written: {parent} is write-protected")


def _check_replaceable(target: Path) -> None:
    """Refuses to replace anything but a bundle or an empty folder: a wrong --output must not cost anyone's files."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BuildError(f"{target} is not a folder: choose another output, or remove it first")
    found = {entry.name for entry in target.iterdir()}
    if not found:
        return
    try:
        manifest = read_manifest(target)
    except BundleError as error:
        raise BuildError(f"{target} is not a bundle of this version: choose another output, or remove it") from error
    if unknown := _unknown(target, {*manifest.files, MANIFEST_NAME}, manifest.variants):
        strangers = ", ".join(sorted(unknown)[:3])
        raise BuildError(f"{target} holds files that are not the bundle's ({strangers}): move them away first")
    for name in manifest.variants:
        _check_replaceable(target / VARIANTS_FOLDER / name)


def _unknown(folder: Path, known: Collection[str], variants: Collection[str]) -> set[str]:
    """What is in a bundle's folder besides what should be; of the variants, only whether they should be."""
    found = {entry.name for entry in folder.iterdir()} - set(known)
    place = folder / VARIANTS_FOLDER
    if variants and place.is_dir():
        found -= {VARIANTS_FOLDER}
        found |= {f"{VARIANTS_FOLDER}/{entry.name}" for entry in place.iterdir() if entry.name not in variants}
    return found


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder and its parents; returns those that it made, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _umask() -> int:
    mask = os.umask(0o022)  # there is no way to ask without setting
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    """Makes sure that all of it is on the disk before it is renamed: else a power cut leaves a torn bundle."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_into_place(source: Path, target: Path) -> None:
    """Renames, by way of moving an old bundle aside: POSIX has no exchange of folders.

    Whatever interrupts it, either the old or the new bundle is at `target` afterwards; a power cut between the two
    renames leaves the old one beside it.
    """
    if not target.exists():
        source.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    try:
        target.rename(aside / target.name)
        source.rename(target)
    finally:
        if not target.exists() and (aside / target.name).exists():
            (aside / target.name).rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def _disk_full_as_build_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if _is_disk_full(error):
            raise BuildError(f"disk full while writing {target}: free some space and build again") from error
        raise


@contextlib.contextmanager
def _as_build_error(target: Path) -> Iterator[None]:
    try:
        with _disk_full_as_build_error(target):
            yield
    except OSError as error:
        raise BuildError(f"{target} cannot be written: {error.strerror or error}") from error
