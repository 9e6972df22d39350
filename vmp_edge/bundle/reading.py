"""Open a bundle, after checking its manifest and each of its files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from ..machine import ANY_MACHINE, host_machine
from .manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    VARIANTS_FOLDER,
    FileEntry,
    Manifest,
)
from .opened import OpenedFile, open_checked

# The libraries that bundles bring with them. Engines load them from the bundle alone.
EXECUTORCH_LIBRARY, CUDA_RUNTIME = "libvmp_executorch.so", "libcudart.so.13"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. Its manifest and files were intact when it was opened."""

    path: Path
    manifest: Manifest

    @property
    def program(self) -> Path:
        """The file that the engine executes."""
        return self.path / self.manifest.program

    @property
    def variants(self) -> dict[str, Path]:
        """The folders of the cheaper variants by name, from the dearest to the cheapest. They are not checked yet."""
        return {name: self.path / VARIANTS_FOLDER / name for name in self.manifest.variants}

    @property
    def embedding(self) -> Path | None:
        """The program that embeds a frame, if the main program takes tokens, else None."""
        return None if self.manifest.embedding is None else self.path / self.manifest.embedding

    def take(self, name: str, copy: bool = False) -> OpenedFile:
        """Open a file of the bundle for its use, and check it again through the descriptor that is then used.

        Whoever executes or loads a file of a bundle must use what this method returns, not the path in the folder: by
        then, the path may stand for another file.

        Args:
            name: The file's name.
            copy: Whether to return a sealed copy in memory. Shared libraries need it: their code is executed straight
                from the file, which somebody could still change.

        Returns:
            The open file. The caller closes it after it was loaded.

        Raises:
            BundleError: The manifest does not list the file, or the file is not the listed one.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise _unlisted(self.path, name)
        return open_checked(self.path / name, entry, copy)

    @classmethod
    def open(cls, path: str | os.PathLike[str], any_machine: bool = False) -> Bundle:
        """Read and check a bundle: its format, keys and types, machine, and each file's size and SHA-256.

        Args:
            path: The bundle's folder.
            any_machine: Whether to accept a bundle for another processor, which can be read but not run here.

        Raises:
            BundleError: The folder is not a bundle, is damaged, has another format version or is for another machine,
                or holds a library that engines would look for there, and that the manifest does not list.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        machine = manifest.machine
        if not any_machine and machine not in (ANY_MACHINE, host_machine()):
            raise BundleError(
                f"{folder} is for {machine}, this machine is {host_machine()}: build a bundle for this machine's target"
            )
        for name in (EXECUTORCH_LIBRARY, CUDA_RUNTIME):
            if name not in manifest.files and (folder / name).exists():
                raise _unlisted(folder, name)
        for name, entry in manifest.files.items():
            open_checked(folder / name, entry).close()
        return cls(folder, manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest, but not its other files.

    Raises:
        BundleError: There is no manifest, or it is not valid.
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


def _unlisted(folder: Path, name: str) -> BundleError:
    return BundleError(
        f"{folder}: {name} is not among the bundle's files, so that nothing says what it should be: build the bundle "
        "again"
    )


def describe_file(path: Path) -> FileEntry:
    """Return the size and the SHA-256 of a file, as the manifest records them."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())
