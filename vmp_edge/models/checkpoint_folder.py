"""Find the files with the weights where a checkpoint is a folder: DeepSpeed's, and models in several parts."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..errors import CheckpointError
from ..text import printable

DEEPSPEED = "mp_rank_00_model_states.pt"  # the weights in a folder that DeepSpeed's save_checkpoint wrote
_STEP = re.compile(r"global_step(\d{1,18})")
_SHARD = re.compile(r"(?:bf16_)?zero_pp_rank_\d+_mp_rank_\d+_(?:model|optim)_states\.pt")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.")  # how parts are called that an index belongs to
_INDEX = ".index.json"  # the end of the name of a file that says which part has which tensor
_MOST_INDEX = 16 << 20  # bytes
_ZERO = "put the weights together with the program that lies beside the folder: python zero_to_fp32.py . model.pth"


def files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold a checkpoint: those of a folder or of an index, and any other path itself.

    Raises:
        CheckpointError: The weights are divided in a way that only another program can undo, or parts are missing.
    """
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.name.endswith(_INDEX) and path.is_file():
            return _parts(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path}: cannot be read ({printable(str(reason))})") from error
    if _SHARD.fullmatch(path.name):
        raise CheckpointError(
            f"{path}: is a part of what DeepSpeed's ZeRO divided; give {DEEPSPEED}, or if there is none, {_ZERO}"
        )
    if (match := _PART.search(path.name)) and int(match[2]) > 1:
        raise CheckpointError(
            f"{path}: is part {int(match[1])} of {int(match[2])} of a model; give the folder with all parts and their "
            f"index (*{_INDEX})"
        )
    return (path,)


def _in_folder(path: Path) -> tuple[Path, ...]:
    indices = sorted(file for file in path.glob(f"*{_INDEX}") if file.is_file())
    if len(indices) > 1:
        names = ", ".join(printable(index.name) for index in indices)
        raise CheckpointError(f"{path}: has several models in parts; give the index of one: {names}")
    if indices:
        return _parts(indices[0])
    folder = _newest(path)
    ranks = sorted(folder.glob("mp_rank_*_model_states.pt"))
    if len(ranks) > 1:
        raise CheckpointError(
            f"{folder}: DeepSpeed divided the weights among {len(ranks)} files (model parallel); put them together"
        )
    if shards := sorted(folder.glob("zero_pp_rank_*_model_states.pt")):
        raise CheckpointError(f"{folder}: DeepSpeed's ZeRO divided the weights among {len(shards)} files; {_ZERO}")
    return (folder / DEEPSPEED,) if (folder / DEEPSPEED).is_file() else (path,)


def _newest(path: Path) -> Path:
    """Return the folder of the newest checkpoint inside a folder of DeepSpeed's; a folder of another kind as it is."""
    latest = path / "latest"  # holds the name of the newest checkpoint's folder
    steps = {int(match[1]): entry for entry in path.iterdir() if (match := _STEP.fullmatch(entry.name))}
    if not latest.is_file():
        has_weights = (path / DEEPSPEED).is_file()
        return path if has_weights or not steps else steps[max(steps)]
    name = latest.read_text("utf-8").strip()
    folder = path / name
    if name in ("", "..") or folder.parent != path or not folder.is_dir():
        there = ", ".join(steps[number].name for number in sorted(steps))
        raise CheckpointError(
            f"{latest}: names {printable(name)[:100]!r}, and there is no such folder beside it"
            + (f"; give one of {there}" if there else "; give the checkpoint's folder")
        )
    return folder


def _parts(index: Path) -> tuple[Path, ...]:
    """Return the files that an index names, each once."""
    if index.stat().st_size > _MOST_INDEX:
        raise CheckpointError(f"{index}: is too large for an index of a model's parts")
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        plain = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: is no index of a model's parts, or is damaged") from error
    if not plain or not names:
        raise CheckpointError(f"{index}: names files that do not lie beside it")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(
            f"{index}: names {printable(missing[0])[:100]}, which is missing ({len(missing)} of {len(names)} parts "
            "are); download all parts"
        )
    return tuple(index.parent / name for name in names)
