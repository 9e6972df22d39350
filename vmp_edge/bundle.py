"""The bundle: one folder that holds all that a device needs, checked before anything in it is executed.

`Bundle.open` reads and checks one; `staged_bundle` writes one, all or nothing. See docs/bundle.md.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from vmp_edge.errors import BuildError, BundleError
from vmp_edge.manifest import (
    ANY_MACHINE,
    FORMAT_VERSION,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    VARIANTS_FOLDER,
    FileEntry,
    Manifest,
    host_machine,
    is_plain_name,
)

__all__ = [
    "ANY_MACHINE",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "Bundle",
    "FileEntry",
    "Manifest",
    "Staging",
    "check_clip",
    "host_machine",
    "staged_bundle",
]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest and files were found whole when it was opened."""

    path: Path
    manifest: Manifest

    @property
    def program(self) -> Path:
        """The file that the engine executes."""
        return self.path / self.manifest.program

    @property
    def variants(self) -> dict[str, Path]:
        """The cheaper variants' bundles by name, from the dearest to the cheapest; not checked yet."""
        return {name: self.path / VARIANTS_FOLDER / name for name in self.manifest.variants}

    @property
    def embedding(self) -> Path | None:
        """The file that the engine makes tokens of a frame with, if the program takes tokens."""
        return None if self.manifest.embedding is None else self.path / self.manifest.embedding

    @classmethod
    def open(cls, path: str | os.PathLike[str], any_machine: bool = False) -> Bundle:
        """Reads and checks a bundle: format, keys and types, machine, each file's size and SHA-256.

        Args:
            path: The bundle's folder.
            any_machine: Accept a bundle for another processor too: it can be read here, not run.

        Raises:
            BundleError: The folder is not a bundle, is damaged, has another format version or is for another machine.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        needed = manifest.machine
        if not any_machine and needed not in (ANY_MACHINE, host_machine()):
            raise BundleError(
                f"{folder} is for {needed}, this machine is {host_machine()}: build a bundle for this machine's target"
            )
        for name, entry in manifest.files.items():
            _check_file(folder / name, entry)
        return cls(folder, manifest)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks a bundle's manifest, not yet its files.

    Raises:
        BundleError: There is none, or it is not valid.
    """
    path = folder / MANIFEST_NAME
    try:
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise BundleError(f"{folder} {problem}: give a bundle's folder, as `vmp-edge build` writes it")
        if not path.is_file():
            raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB: it is not a manifest")
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return Manifest.from_yaml(content)
    except BundleError as error:
        raise BundleError(f"{path} {error}") from error


def _check_file(path: Path, entry: FileEntry) -> None:
    try:
        status = path.stat()  # follows links: what counts is the content, and that is hashed
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a plain file: copy the bundle again")
        if status.st_size != entry.size:
            raise BundleError(f"{path} has {status.st_size} bytes, expected {entry.size}: copy the bundle again")
        if _describe_file(path).sha256 != entry.sha256:
            raise BundleError(f"{path} is damaged (its SHA-256 is not the manifest's): copy the bundle again")
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing: copy the bundle again") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _describe_file(path: Path) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())


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
        files = {name: _describe_file(self.path / name) for name in self._names}
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


def check_clip(seed: int, frames: int, image_size: int) -> npt.NDArray[np.uint8]:
    """A clip that is the same, byte for byte, on every machine: what `verify` compares a bundle's output on.

    A coarse coloured pattern drifts over a finer one, with a little noise. Integers and `RandomState.randint` (whose
    stream numpy keeps frozen) only, so that no rounding can differ, and at the model's size, so that nothing resizes.

    Args:
        seed: Of the pattern, its drift and its noise; 0 to 2**32 - 1.
        frames: T.
        image_size: S.

    Returns:
        uint8 (T, S, S, 3).
    """
    random = np.random.RandomState(seed)
    coarse, fine = (
        np.repeat(np.repeat(random.randint(0, 256, (cells, cells, 3)), block, 0), block, 1)[:image_size, :image_size]
        for cells, block in ((4, -(-image_size // 4)), (16, -(-image_size // 16)))
    )
    drift = random.randint(-3, 4, 2)
    clip = np.empty((frames, image_size, image_size, 3), np.uint8)
    for index in range(frames):
        noise = random.randint(0, 32, clip.shape[1:])
        moved = np.roll(coarse, tuple(int(step) * index for step in drift), (0, 1))
        clip[index] = (4 * moved + 3 * fine + noise) // 8
    return clip
