"""Read a checkpoint file as tensors and plain data, whatever it was written by, without running anything from it."""

from __future__ import annotations

import json
import pickle
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from . import plain_pickle

DEEPSPEED = "mp_rank_00_model_states.pt"  # the weights in a folder that DeepSpeed's save_checkpoint wrote
MOST_HEADER = 100 << 20  # bytes of a safetensors header; the format's own limit
SAFETENSORS_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
# What a file begins with that is no checkpoint, and what to do about it.
OTHERS = (
    (b"version https://git-lfs", "is a Git LFS pointer and not the file itself; get the file with: git lfs pull"),
    (b"\x1f\x8b", "is packed by gzip; unpack it first"),
    (b"\xfd7zXZ\x00", "is packed by xz; unpack it first"),
    (b"BZh", "is packed by bzip2; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is packed by 7-Zip; unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes it; a PyTorch checkpoint is needed"),
)
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")
DAMAGED = (
    RuntimeError, EOFError, ValueError, OSError, LookupError, AttributeError, TypeError, ArithmeticError, MemoryError,
    RecursionError, AssertionError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip


def read(path: Path) -> Any:
    """Return the content of a checkpoint: dicts, lists, tensors, numbers, texts, and `plain_pickle.Foreign` objects.

    Raises:
        CheckpointError: There is no such file, it is no checkpoint, or it would need code from elsewhere.
    """
    path = located(path)
    check(path)
    if _is_safetensors(path):
        return _read_safetensors(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about files that are old
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            return _read_foreign(path)
        except DAMAGED as error:
            raise CheckpointError(f"{path}: is not a PyTorch checkpoint, or is damaged") from error


def _read_foreign(path: Path) -> Any:
    """Read a checkpoint in which other objects lie beside the weights."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=plain_pickle)
    except plain_pickle.CallRefusedError as error:
        raise CheckpointError(
            f"{path}: needs pickled code to load ({error}), which could do anything; "
            "save its state dict alone: torch.save({'model': model.state_dict()}, ...)"
        ) from error
    except DAMAGED as error:
        raise CheckpointError(f"{path}: is not a PyTorch checkpoint, or is damaged") from error


def located(path: Path) -> Path:
    """Return the file with the weights in a folder that DeepSpeed wrote; any other path as it is.

    Raises:
        CheckpointError: The weights are divided among several files.
    """
    try:
        if not path.is_dir():
            return path
        newest = path / "latest"  # holds the name of the newest checkpoint's folder
        folder = path / newest.read_text("utf-8").strip() if newest.is_file() else path
        if folder.parent not in (path, path.parent) or not (folder / DEEPSPEED).is_file():
            folder = path
        files = sorted(folder.glob("mp_rank_*_model_states.pt"))
    except (OSError, ValueError):
        return path
    if len(files) > 1:
        raise CheckpointError(
            f"{folder}: DeepSpeed divided the weights among {len(files)} files (model parallel); put them together"
        )
    return folder / DEEPSPEED if (folder / DEEPSPEED).is_file() else path


def check(path: Path) -> None:
    """Check that a path leads to a file that may be a checkpoint, without reading it whole.

    Raises:
        CheckpointError: It does not; the text says what it is instead.
    """
    try:
        _require_checkpoint(located(path))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error


def _require_checkpoint(path: Path) -> None:
    """Check that a path leads to a file that may be a checkpoint; the text of the error says what it is instead."""
    if path.is_dir():
        inside = sorted(
            entry.name for entry in path.iterdir() if entry.suffix in (".pth", ".pt", ".bin", ".safetensors")
        )
        hint = f"; it has {', '.join(inside[:4])}" if inside else ""
        raise CheckpointError(f"{path}: is a folder; give the checkpoint's file{hint}")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    size = path.stat().st_size
    if not size:
        raise CheckpointError(f"{path}: is empty; download or save it again")
    with path.open("rb") as file:
        beginning = file.read(1024)
    for start, reason in OTHERS:
        if beginning.startswith(start):
            raise CheckpointError(f"{path}: {reason}")
    if beginning.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PAGES):
        raise CheckpointError(
            f"{path}: is a web page and not a checkpoint: the address that it was downloaded from shows the file on a "
            "page, or asks for a login; download the file itself"
        )
    if beginning.startswith(b"PK"):
        _require_zip(path, size)
    elif tarfile.is_tarfile(path):
        raise CheckpointError(f"{path}: is a tar archive; unpack it, and give the checkpoint inside")


def _require_zip(path: Path, size: int) -> None:
    """Check that a zip archive is whole, and that it is one that `torch.save` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path}: is not a PyTorch checkpoint, or is damaged: it ends early ({size} bytes); download it again"
        ) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            f"{path}: is a TorchScript program and not a checkpoint; "
            "save its state dict: torch.save({'model': module.state_dict()}, ...)"
        )
    if "data.pkl" not in names:
        raise CheckpointError(f"{path}: is not a PyTorch checkpoint, but another kind of zip archive")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        beginning = file.read(9)
    return len(beginning) == 9 and beginning[8:] == b"{" and int.from_bytes(beginning[:8], "little") <= MOST_HEADER


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file of the format safetensors: the length of a header, the header as JSON, the tensors' bytes."""
    data = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(bytes(data[8:start]))
        return {name: _safetensor(data[start:], entry) for name, entry in header.items() if name != "__metadata__"}
    except DAMAGED as error:
        raise CheckpointError(f"{path}: is not a safetensors file, or is damaged; download it again") from error


def _safetensor(data: memoryview, entry: dict[str, Any]) -> Tensor:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(data):
        raise ValueError("the tensor lies outside the file")
    kind, shape = SAFETENSORS_TYPES[entry["dtype"]], entry["shape"]
    if first == last:
        return torch.zeros(shape, dtype=kind)
    return torch.frombuffer(bytearray(data[first:last]), dtype=kind).reshape(shape)
