"""What `Recognizer.predict` takes beside arrays: the paths of videos, patterns of paths, and lists."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import SourceError, UsageError
from .masking import masked
from .prediction import Clip, sample_evenly
from .preprocessing import describe_array
from .progress import note
from .sources.clips import UnusableError, read_clips

if TYPE_CHECKING:
    from typing import TypeGuard

Item = Clip | str | os.PathLike[str]


def is_path(value: Item | Sequence[Item]) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether a value is one path, and no pattern of paths. What exists is a path, whatever its name."""
    if isinstance(value, str):
        return not glob.has_magic(value) or os.path.lexists(value)
    return isinstance(value, os.PathLike)


def several(items: Item | Sequence[Item]) -> Sequence[Item]:
    """Return the sorted paths that are like a pattern, or check a list of clips and paths.

    Raises:
        UsageError: No path is like the pattern, or it is neither a pattern nor a list, or the list holds other things.
    """
    if isinstance(items, str):
        paths = sorted(glob.glob(items, recursive=True))  # noqa: PTH207 - `Path.glob` takes no absolute pattern
        if not paths:
            raise UsageError(f"no file is like {items!r}")
        return paths
    wrong: object = items
    if isinstance(items, Sequence):
        others = [item for item in items if not isinstance(item, np.ndarray | str | os.PathLike)]
        if not others:
            return items
        wrong = others[0]
    raise UsageError(
        "a clip is a uint8 array (frames, height, width, 3), the path of a video, or a list of these, "
        f"not {describe_array(wrong)}"
    )


def read(path: str | os.PathLike[str], frames: int) -> Clip:
    """Return frames that are spread over a whole video, as `sample_evenly` chooses them.

    Args:
        path: A video file, or a folder of pictures.
        frames: T, the number of frames.

    Returns:
        uint8 (T, H, W, 3), RGB. A video of fewer frames gives some of them several times.

    Raises:
        SourceError: The file does not exist, or cannot be decoded.
    """
    text = os.fspath(path)
    if "://" in text:
        raise SourceError(f"{masked(text)} is no file: give its address to Recognizer.stream")

    def choose(count: int, fps: float) -> list[list[int]]:
        if not count:
            raise UnusableError("has no frames that can be decoded")
        return [sample_evenly(count, frames)]

    try:
        clips = read_clips(Path(text), choose)
    except UnusableError as error:
        raise SourceError(f"{masked(text)}: {error}") from error
    if clips.damage is not None:
        note(f"vmp-edge: {masked(text)}: {clips.damage}")
    return clips[0]
