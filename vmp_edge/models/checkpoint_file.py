"""Read a checkpoint file as tensors and plain data, whatever it was written by, without running anything from it."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..progress import note
from ..text import printable
from . import checkpoint_folder, checkpoint_kinds, plain_pickle
from .checkpoint_kinds import NO_CHECKPOINT

MOST_HEADER = 100 << 20  # bytes of a safetensors header; the format's own limit
SAFETENSORS_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
DAMAGED = (
    RuntimeError, EOFError, ValueError, OSError, LookupError, AttributeError, TypeError, ArithmeticError, MemoryError,
    RecursionError, AssertionError, struct.error, zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip


def read(path: Path) -> Any:
    """Return the content of a checkpoint: dicts, lists, tensors, numbers, texts, and `plain_pickle.Foreign` objects.

    Args:
        path: A file, a folder that DeepSpeed wrote, or the folder or the index of a model in several parts, whose
            tensors come together.

    Raises:
        CheckpointError: There is no such file, it is no checkpoint, or it would need code from elsewhere.
    """
    files = checkpoint_folder.files(path)
    if len(files) == 1:
        if files[0] != path:
            note(f"vmp-edge: {path}: took the weights of {files[0]}")
        return _read_file(files[0])
    tensors: dict[Any, Any] = {}
    for file in files:
        part = _read_file(file)
        if not isinstance(part, dict) or tensors.keys() & part.keys():
            raise CheckpointError(f"{file}: is not a part of the model that the index beside it describes")
        tensors |= part
    return tensors


def check(path: Path) -> None:
    """Check that a path leads to a checkpoint, without reading it whole.

    Raises:
        CheckpointError: It does not; the text says what it is instead.
    """
    for file in checkpoint_folder.files(path):
        _check_file(file)


def _check_file(path: Path) -> None:
    try:
        checkpoint_kinds.require_checkpoint(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read ({printable(str(reason))})") from error


def _read_file(path: Path) -> Any:
    _check_file(path)
    if _is_safetensors(path):
        return _read_safetensors(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about files that are old
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content = _read_foreign(path)
        except DAMAGED as error:
            raise CheckpointError(f"{path}: {NO_CHECKPOINT}; download or save it again") from error
    if zipfile.is_zipfile(path) and (entry := checkpoint_kinds.damaged_entry(path)):
        raise CheckpointError(
            f"{path}: is damaged: the bytes of {entry} are not those that were saved; download or copy it again"
        )
    return content


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
        raise CheckpointError(f"{path}: {NO_CHECKPOINT}; download or save it again") from error


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
        return torch.empty(0, dtype=kind).reshape(shape)
    return torch.frombuffer(bytearray(data[first:last]), dtype=kind).reshape(shape)
