"""Unlabelled videos as pieces of some seconds, decoded once to a file, and the views of them that are learnt from."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.files import whole
from vmp_edge.preprocessing import Preprocessing

from ..clipset import ClipSet, ClipSetError, Entry
from ..decoding import Clip, Progress, Skipped, UnusableError, describe_skipped, in_workers, read_clips

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
    """Decoded pieces in a file.

    Attributes:
        pixels: uint8 (N, F, S', S', 3) RGB.
        frames: T, the student's frames.
    """

    pixels: NDArray[np.uint8]
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
    """Decode the pieces of all videos to a file in a folder, or open what an earlier call has decoded.

    Args:
        videos: The videos; their labels do not matter.
        frames: T, the student's frames.
        span: Seconds of a piece.
        preprocessing: The student's.
        folder: Gets ``pieces.bin`` and ``pieces.json``.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Raises:
        ClipSetError: No video can be used.
        UsageError: The folder's pieces are of other videos, or the disk is full.
    """
    side, resize = round(LARGER * preprocessing.image_size), preprocessing.resize
    job = Cut(FINER * frames, span, Preprocessing(side, "stretch" if resize == "letterbox" else resize))
    shape = (job.frames, side, side, 3)
    data, facts = folder / "pieces.bin", folder / "pieces.json"
    key = {"videos": [str(entry.path.resolve()) for entry in videos.entries], "shape": list(shape), "span": span}
    if facts.exists():
        if json.loads(facts.read_text(encoding="utf-8")) != key:
            raise UsageError(f"{folder} holds a pre-training on other videos or sizes: choose another --output")
    else:
        _decode(videos, job, data, folder, progress, workers)
        with whole(facts) as place:
            place.write_text(json.dumps(key) + "\n", encoding="utf-8")
    pixels = np.memmap(data, np.uint8, "r")
    return Pieces(pixels.reshape(-1, *shape), frames)


def _decode(videos: ClipSet, job: Cut, path: Path, folder: Path, progress: Progress, workers: int | None) -> None:
    skipped: list[Skipped] = []
    used = 0
    try:
        with whole(path) as place, place.open("wb") as file:
            with closing(in_workers(job, videos.entries, workers)) as results:
                for _, result in progress(results, total=len(videos), desc="decoding the videos", unit="video"):
                    if isinstance(result, Skipped):
                        skipped.append(result)
                    else:
                        used += 1
                        file.write(result.data)
            if not used:
                raise ClipSetError(f"{videos.name} has no videos that can be used{describe_skipped(skipped)}")
    except OSError as error:
        raise UsageError(f"{folder}: the decoded videos do not fit ({error.strerror})") from error
