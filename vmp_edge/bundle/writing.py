"""Write a bundle completely or not at all."""

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
from .manifest import MANIFEST_NAME, VARIANTS_FOLDER, Manifest, is_plain_name
from .reading import Bundle, describe_file, read_manifest


class Staging:
    """A bundle that is being written, in a temporary folder beside its destination. `staged_bundle` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sealed = False
        self._names: list[str] = []

    def add(self, name: str, content: bytes | Path | None = None) -> Path:
        """Add a file to the bundle.

        Args:
            name: The file's name in the bundle, without folders.
            content: The file's bytes, or a file to copy. None takes the file that already is at `path / name`.

        Returns:
            The file's path.

        Raises:
            BuildError: The name is not allowed, or there is no such file.
        """
        if not is_plain_name(name) or name == MANIFEST_NAME:
            raise BuildError(f"{name!r} cannot be a file of a bundle: plain names only, other than {MANIFEST_NAME}")
        path = self.path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None and not (path.exists() and path.samefile(content)):
            shutil.copyfile(content, path)
        if not path.is_file():
            raise BuildError(f"{path} was not written")
        if name not in self._names:
            self._names.append(name)
        return path

    def seal(self, manifest: Manifest) -> Bundle:
        """Write the manifest with each added file's size and hash, then open the bundle with every check.

        It may be called again with a longer manifest, to record what was measured on the bundle itself.

        Args:
            manifest: The manifest. Its `files` are filled in here.

        Returns:
            The bundle in its temporary folder, ready to run.

        Raises:
            BuildError: The folder holds a file that was not added, or the manifest cannot be written.
            BundleError: The manifest is not valid.
        """
        unknown = _unknown_names(self.path, {*self._names, MANIFEST_NAME}, manifest.variants)
        if unknown:
            raise BuildError(f"the bundle would hold files that were not added: {', '.join(sorted(unknown))}")
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
    """Write a bundle completely or not at all.

    Within the block, files are added to a temporary folder beside the destination, and the sealed bundle can be run
    there. When the block ends, the folder is synced to disk and renamed to the destination. If the block raises
    anything, including Ctrl-C, every trace of the folder is removed.

    Args:
        destination: The bundle's folder. An existing bundle is replaced.

    Raises:
        BuildError: The destination holds something other than a bundle, cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(destination))
    new_folders: list[Path] = []
    temporary: Path | None = None
    try:
        with _as_build_error(target):
            _check_replaceable(target)
            new_folders = _make_folders(target.parent)
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
        for folder in reversed(new_folders):
            with contextlib.suppress(OSError):  # another program put something into it
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
    """Raise BuildError unless the target is missing, empty or a bundle: a wrong --output must not delete files."""
    if not target.exists():
        return
    if not target.is_dir():
        raise BuildError(f"{target} is not a folder: choose another output, or remove it first")
    if not any(target.iterdir()):
        return
    try:
        manifest = read_manifest(target)
    except BundleError as error:
        raise BuildError(f"{target} is not a bundle of this version: choose another output, or remove it") from error
    if unknown := _unknown_names(target, {*manifest.files, MANIFEST_NAME}, manifest.variants):
        examples = ", ".join(sorted(unknown)[:3])
        raise BuildError(f"{target} holds files that are not the bundle's ({examples}): move them away first")
    for name in manifest.variants:
        _check_replaceable(target / VARIANTS_FOLDER / name)


def _unknown_names(folder: Path, known: Collection[str], variants: Collection[str]) -> set[str]:
    """Return the names in a bundle's folder that are neither known files nor folders of the variants.

    The content of the variants' folders is not looked at.
    """
    unknown = {entry.name for entry in folder.iterdir()} - set(known)
    variants_folder = folder / VARIANTS_FOLDER
    if variants and variants_folder.is_dir():
        names = {entry.name for entry in variants_folder.iterdir()} - set(variants)
        unknown = unknown - {VARIANTS_FOLDER} | {f"{VARIANTS_FOLDER}/{name}" for name in names}
    return unknown


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents. Return the folders that did not exist before, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _umask() -> int:
    mask = os.umask(0o022)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    """Flush a folder's files to the disk: a power cut after the rename would else leave a torn bundle."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_into_place(source: Path, target: Path) -> None:
    """Rename a folder to the target. An old bundle is moved aside first, because POSIX cannot exchange two folders.

    If an exception interrupts the move, `target` is afterwards either the old or the new bundle. A power cut between
    the two renames leaves the old bundle beside it.
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
