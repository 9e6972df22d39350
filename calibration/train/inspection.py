"""Look at every clip once: its size and length, whether it can be decoded, and which clips look alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..clipset import ClipSet, ClipSetError, Entry
from ..decoding import Progress, Skipped, UnusableError, describe_skipped, in_workers, open_video
from .geometry import Geometry

_SIDE = 16  # a hash has this many rows and columns of bits
_BITS = _SIDE * _SIDE
_MOST_FRAMES = 8  # of a clip that are hashed
_FLAT = 4.0  # standard deviation of grey levels below which a frame shows nothing to recognise it by
_ALIKE = 32  # most bits in which the hashes of two frames of one scene differ, an eighth


@dataclass(frozen=True)
class Look:
    """What was seen of a clip.

    Attributes:
        geometry: Its size and length.
        hashes: Perceptual hashes of frames spread over it, bool (n, 256): each bit says whether a place is brighter
            than its right neighbour. Frames that show nothing have none.
        damage: What is wrong with the file, although it can be used. None if nothing is.
    """

    geometry: Geometry
    hashes: NDArray[np.bool_]
    damage: str | None = None


def look(entry: Entry) -> Look:
    """Decode a clip to its end; a job for `in_workers`.

    Raises:
        UnusableError: The clip cannot be decoded, has no frames, or does not tell its frame rate.
    """
    shape, count, stride = (0, 0), 0, 1
    kept: list[NDArray[np.bool_] | None] = []
    with closing(open_video(entry.path)) as source:
        rate = source.fps or 0.0
        while (frame := source.read()) is not None:
            shape = frame.image.shape[:2]
            if count % stride == 0:
                kept.append(frame_hash(frame.image))
                if len(kept) == 2 * _MOST_FRAMES:
                    kept, stride = kept[::2], 2 * stride
            count += 1
        damage = getattr(source, "damage", None)
    if rate <= 0:
        raise UnusableError("does not say its frame rate")
    if not count:
        raise UnusableError(f"no frame can be decoded{f' ({damage})' if damage else ''}")
    chosen = [kept[len(kept) * i // _MOST_FRAMES] for i in range(_MOST_FRAMES)] if len(kept) > _MOST_FRAMES else kept
    hashes = [bits for bits in chosen if bits is not None]
    return Look(Geometry(shape[1], shape[0], count, rate), np.array(hashes, bool).reshape(len(hashes), _BITS), damage)


def frame_hash(image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return the perceptual hash of a frame, bool (256,), or None if the frame shows nothing.

    Args:
        image: uint8 (H, W, 3).
    """
    grey = cv2.cvtColor(cv2.resize(image, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    if grey.std() < _FLAT:
        return None
    return np.asarray(grey[:, 1:] < grey[:, :-1]).ravel()


def look_at_all(
    clips: ClipSet, progress: Progress, workers: int | None = None
) -> tuple[ClipSet, list[Look], list[Skipped]]:
    """Look at every clip of a set.

    Returns:
        The clips that can be decoded, what was seen of them, and the clips that cannot be decoded.

    Raises:
        ClipSetError: No clip can be decoded.
    """
    usable: list[Entry] = []
    looks: list[Look] = []
    skipped: list[Skipped] = []
    with closing(in_workers(look, clips.entries, workers)) as results:
        for entry, result in progress(results, total=len(clips), desc="looking at the clips", unit="clip"):
            if isinstance(result, Skipped):
                skipped.append(result)
                continue
            usable.append(entry)
            looks.append(result)
    if not usable:
        raise ClipSetError(f"{clips.name} has no videos that can be used{describe_skipped(skipped)}")
    return dataclasses.replace(clips, entries=tuple(usable)), looks, skipped


def alike(looks: Sequence[Look]) -> NDArray[np.bool_]:
    """Return which clips have frames that look almost the same, bool (N, N); no clip counts as like itself."""
    owners = np.concatenate([np.full(len(one.hashes), i) for i, one in enumerate(looks)]).astype(int)
    result = np.zeros((len(looks), len(looks)), bool)
    if not len(owners):
        return result
    signs = np.concatenate([one.hashes for one in looks]).astype(np.float32) * 2 - 1
    for start in range(0, len(signs), 1024):
        rows, columns = np.nonzero(signs[start : start + 1024] @ signs.T >= _BITS - 2 * _ALIKE)
        result[owners[start + rows], owners[columns]] = True
    np.fill_diagonal(result, False)
    return result


def scenes(pairs: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of each clip's scene, (N,): clips that look alike are of one scene, and so are their likes.

    Args:
        pairs: Which clips look alike, see `alike`.
    """
    scene = np.full(len(pairs), -1, np.int64)
    for first in range(len(pairs)):
        if scene[first] >= 0:
            continue
        reached = np.zeros(len(pairs), bool)
        reached[first] = True
        while (more := pairs[reached].any(0) & ~reached).any():
            reached |= more
        scene[reached] = first
    return np.unique(scene, return_inverse=True)[1].astype(np.int64)
