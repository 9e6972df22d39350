"""Say what a file is that was given as a checkpoint and is none, from its beginning and its table of contents."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

from ..errors import CheckpointError
from ..text import printable

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar")  # which files of a folder an error names
SAVE = "save its state dict: torch.save({'model': model.state_dict()}, ...)"
NO_CHECKPOINT = "is not a PyTorch checkpoint, or is damaged"
_BEGINNING = 1024  # bytes that are looked at
_SHOWN = 40  # characters of a text that a message shows
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<script", b"<!--")
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch's files began before they were zip archives
# What files begin with, or have at a place, that are no checkpoints, and what to do about it.
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer and not the file itself; get the file with: git lfs pull"),
    (0, b"\x1f\x8b", "is packed by gzip; unpack it first"),
    (0, b"\xfd7zXZ\x00", "is packed by xz; unpack it first"),
    (0, b"BZh", "is packed by bzip2; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "is packed by 7-Zip; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "is packed by Zstandard; unpack it first"),
    (0, b"Rar!", "is packed by RAR; unpack it first"),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes it; a PyTorch checkpoint is needed"),
    (0, b"GGUF", "is a GGUF file, for language models; a PyTorch checkpoint is needed"),
    (0, b"\x93NUMPY", "is an array of NumPy; a PyTorch checkpoint is needed"),
    (0, b"\x7fELF", "is a program or a library; a PyTorch checkpoint is needed"),
    (0, b"\x89PNG", "is a picture; a PyTorch checkpoint is needed"),
    (0, b"\xff\xd8\xff", "is a picture; a PyTorch checkpoint is needed"),
    (0, b"%PDF", "is a PDF; a PyTorch checkpoint is needed"),
    (4, b"ftyp", "is a video; a PyTorch checkpoint is needed"),
    (4, b"ET1", "is a program of ExecuTorch, which is built already; the checkpoint that it was built from is needed"),
    (4, b"TFL3", "is a model of TensorFlow Lite; a PyTorch checkpoint is needed"),
)
# An ONNX file begins with its version, after which comes the producer's name, the graph, or another field.
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42\x72]")


def require_checkpoint(path: Path) -> None:
    """Check that a path leads to a file that may be a checkpoint, without reading it whole.

    Raises:
        CheckpointError: It does not; the text says what it is instead, and what to do.
        OSError: The file cannot be read.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: {_folder(path)}")
    if not path.is_file():
        raise CheckpointError(f"{path}: {_no_file(path)}")
    size = path.stat().st_size
    if not size:
        raise CheckpointError(f"{path}: is empty; download or save it again")
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    reason = _reason(beginning)
    if reason is None and beginning.startswith(b"PK"):
        reason = _other_zip(path, size)
    elif reason is None and tarfile.is_tarfile(path):
        reason = "is a tar archive; unpack it, and give the checkpoint inside"
    if reason is not None:
        raise CheckpointError(f"{path}: {reason}")


def damaged_entry(path: Path) -> str | None:
    """Return the name of an entry of a zip archive whose bytes are not those that were written; None if all are.

    PyTorch does not compare them itself. A checksum of zero is one that the writer left out.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.CRC:
                continue
            try:
                with archive.open(entry) as file:
                    while file.read(1 << 20):
                        pass
            except zipfile.BadZipFile:
                return printable(entry.filename)
    return None


def _folder(path: Path) -> str:
    """Return why a folder is no checkpoint, and which of its files may be one."""
    names = sorted(entry.name for entry in path.iterdir())
    if "manifest.yaml" in names:
        return "is the folder of a bundle, which is built already: give it to vmp-edge run"
    inside = [printable(name) for name in names if Path(name).suffix in SUFFIXES]
    more = f" and {len(inside) - 4} more" if len(inside) > 4 else ""
    return f"is a folder; give the checkpoint's file{'; it has ' if inside else ''}{', '.join(inside[:4])}{more}"


def _no_file(path: Path) -> str:
    if path.is_symlink():
        return f"is a link to {printable(str(path.readlink()))}, and there is no such file"
    if path.exists():
        return "is a device or a pipe and no file; copy its content into a file first"
    return "there is no such file"


def _reason(beginning: bytes) -> str | None:
    """Return what a file is by its beginning, and what to do; None if it may be a checkpoint."""
    for place, mark, reason in _KINDS:
        if beginning[place:].startswith(mark):
            return reason
    if not any(beginning):
        return "begins with zeros alone, as a download does that was not finished; download it again"
    if _ONNX.match(beginning):
        return "is an ONNX model; the PyTorch checkpoint that it was exported from is needed"
    if beginning.startswith(b"\x80") and not beginning.startswith(_LEGACY[: len(beginning)]):
        return "is a pickle that torch.save did not write; save the model's state dict with torch.save"
    text = _text(beginning)
    if text is None:
        return None
    if text.lower().startswith(tuple(page.decode() for page in _PAGES)):
        return (
            "is a web page and not a checkpoint: the address that it was downloaded from shows the file on a "
            "page, or asks for a login; download the file itself"
        )
    shown = printable(text.partition("\n")[0][:_SHOWN].strip())
    return f"is a text and not a checkpoint: it begins with {shown!r}; download or copy the file itself"


def _text(beginning: bytes) -> str | None:
    """Return the beginning of a text in UTF-8 or UTF-16 without blanks before it; None if it is no text."""
    wide = beginning.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = beginning.decode("utf-16") if wide else beginning.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if wide or error.start < len(beginning) - 3:  # the last character may be cut
            return None
        text = beginning[: error.start].decode("utf-8-sig")
    text = text.strip()
    plain = all(character.isprintable() or character in "\r\n\t" for character in text)
    return text if text and plain else None


def _other_zip(path: Path, size: int) -> str | None:
    """Return what a zip archive is that `torch.save` did not write or that is not whole; None if it may be loaded."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return f"{NO_CHECKPOINT}: it ends early ({size} bytes); download it again"
    last = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in last:
        return f"is a TorchScript program and not a checkpoint; {SAVE}"
    if "data.pkl" in last:
        return None
    if "archive_format" in last or "serialized_exported_program.json" in last:
        return f"is a program of torch.export and not a checkpoint; {SAVE}"
    if inside := next((name for name in names if Path(name).suffix in SUFFIXES), None):
        return f"is a zip archive with {printable(inside)[:100]}; unpack it, and give that file"
    if last and all(name.endswith(".npy") for name in last):
        return "holds arrays of NumPy; a PyTorch checkpoint is needed"
    return "is not a PyTorch checkpoint, but another kind of zip archive"
