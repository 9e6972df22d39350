"""Unlabelled videos as pieces of some seconds, decoded once to files, and the views of them that are learnt from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmp_edge.errors import UsageError
from vmp_edge.files import whole
from vmp_edge.preprocessing import Preprocessing

from ..clipset import ClipSet, ClipSetError, Entry
from ..decoding import Clip, Progress, Skipped, UnusableError, describe_skipped, read_clips
from ..train import parallel
from ..train.pixels import PixelFiles

FINER = 2  # stored frames, relative to the model's
LARGER = 1.5  # side of the stored pictures, relative to the model's: a teacher sees more than its student
MOST_PIECES = 100  # of a video, spread over it
_LONGER = 1.5  # videos up to this length, relative to a piece, are one piece
_SMALLEST_VIEW, _SHORTEST_VIEW = 0.6, 0.75  # parts of a picture's side, and of a piece's length


@dataclass(frozen=True)
class Cut:
    """A job for `in_workers`: decode the pieces of a video, and scale them down.

    Attributes:
        frames: Frames to keep of a piece.
        span: Seconds of a piece.
        preprocessing: How frames become squares, with the side of the stored pictures.
    """

    frames: int
    span: float
    preprocessing: Preprocessing

    def __call__(self, entry: Entry) -> Clip:
        """Return the pieces, uint8 (N, frames, S', S', 3) RGB.

        Raises:
            UnusableError: The video cannot be decoded, or is shorter than two frames.
        """
        return np.stack(read_clips(entry.path, self._places, picture=self.preprocessing.picture))

    def _places(self, count: int, fps: float) -> list[list[int]]:
        """Return the numbers of the frames of each piece."""
        if count < 2:
            raise UnusableError(f"too short: {count} frames")
        seconds = count / fps
        number = 1 if seconds <= _LONGER * self.span else max(1, int(seconds / self.span))
        length = count / number
        chosen = range(number)
        if number > MOST_PIECES:
            chosen = range(0, number, -(-number // MOST_PIECES))
        return [
            [min(int(length * (piece + (i + 0.5) / self.frames)), count - 1) for i in range(self.frames)]
            for piece in chosen
        ]


@dataclass(frozen=True)
class Pieces:
    """Decoded pieces in files.

    Attributes:
        pixels: uint8 (F, S', S', 3) RGB of each piece.
        frames: T, the student's frames.
    """

    pixels: Sequence[Clip]
    frames: int

    def __len__(self) -> int:
        return len(self.pixels)

    def view(self, index: int, rng: np.random.Generator) -> Clip:
        """Return a view of a piece: a part of its time and of its pictures, maybe mirrored, uint8 (T, H, H, 3)."""
        piece = self.pixels[index]
        count, side = piece.shape[:2]
        length = rng.uniform(_SHORTEST_VIEW, 1.0) * count
        first = rng.uniform(0, count - length)
        moments = first + (np.arange(self.frames) + rng.uniform(0, 1, self.frames)) * length / self.frames
        height = int(rng.uniform(_SMALLEST_VIEW, 1.0) * side)
        left, top = rng.integers(0, side - height + 1, 2)
        view = piece[np.minimum(moments.astype(int), count - 1), top : top + height, left : left + height]
        return np.ascontiguousarray(view[:, :, ::-1] if rng.random() < 0.5 else view)


def decode(
    videos: ClipSet,
    frames: int,
    span: float,
    preprocessing: Preprocessing,
    folder: Path,
    progress: Progress,
    workers: int | None = None,
) -> Pieces:
    """Decode the pieces of all videos to files in a folder, or open what an earlier call has decoded.

    Each process of this machine decodes a share of the videos.

    Args:
        videos: The videos; their labels do not matter.
        frames: T, the student's frames.
        span: Seconds of a piece.
        preprocessing: The student's.
        folder: Gets the files, whose names begin with ``pieces``.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Raises:
        ClipSetError: No video can be used.
        UsageError: The folder's pieces are of other videos, or the disk is full.
    """
    side, resize = round(LARGER * preprocessing.image_size), preprocessing.resize
    job = Cut(FINER * frames, span, Preprocessing(side, "stretch" if resize == "letterbox" else resize))
    key = {
        "videos": [str(entry.path.resolve()) for entry in videos.entries],
        "shape": [job.frames, side, side, 3],
        "span": span,
    }
    own, name = parallel.on_this_machine(), f"pieces-{parallel.first_on_this_machine()}"
    facts = folder / f"{name}.json"

    def open_or_decode() -> PixelFiles:
        parts = _parts_of(facts, key)
        files = PixelFiles(folder, name, own.count if parts is None else parts)
        if parts is None:
            files.decode(job, videos.entries, "video", progress, workers)
        return files

    files = parallel.together(open_or_decode)
    found = files.read(videos.entries)
    used = [result for result in found if not isinstance(result, Skipped)]
    if not used:
        skipped = [result for result in found if isinstance(result, Skipped)]
        raise ClipSetError(f"{videos.name} has no videos that can be used{describe_skipped(skipped)}")
    if own.index == 0:
        with whole(facts) as place:
            place.write_text(json.dumps({"key": key, "parts": files.parts}) + "\n", encoding="utf-8")
    return Pieces([piece for video in used for piece in video], frames)


def _parts_of(facts: Path, key: dict[str, Any]) -> int | None:
    """Return in how many parts an earlier call has decoded the videos, or None if none has.

    Raises:
        UsageError: It has decoded other videos, or in another way.
    """
    if not facts.exists():
        return None
    before = json.loads(facts.read_text(encoding="utf-8"))
    if before["key"] != key:
        raise UsageError(f"{facts.parent} holds a pre-training on other videos or sizes: choose another --output")
    return int(before["parts"])
