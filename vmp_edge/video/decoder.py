"""What all decoders have in common: their interface, their time limits, and when they give up."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np
import numpy.typing as npt

Picture = tuple[npt.NDArray[np.uint8], float]  # uint8 (H, W, 3) BGR, and seconds since the first frame

OPEN_TIMEOUT = 10.0  # seconds that a server may take to answer
READ_TIMEOUT = 10.0  # seconds without data after which a network stream counts as lost
USUAL_FPS = 30.0  # assumed for a video that does not give its frame rate
threads: int | None = None  # that decode a file; None takes as many as there are cores
_BAD_FRAMES = 300  # so many frames in a row may be undecodable ...
_BAD_SECONDS = 10.0  # ... or all frames for so long, before a decoder gives up


def use_threads(count: int | None) -> None:
    """Set how many threads decode a file from now on. None takes as many as there are cores."""
    global threads
    threads = count


class Decoder(Protocol):
    """Gives the frames of a video, one after another. One thread uses it at a time.

    Attributes:
        live: Whether the video goes on by itself, like a camera.
        fps: Frames per second, or None if the video does not say.
        frame_count: Number of frames that there should be, or None if the video does not say.
        undecodable: Number of frames so far that could not be decoded.
    """

    live: bool
    fps: float | None
    frame_count: int | None
    undecodable: int

    def read(self) -> Picture | None:
        """Return the next frame that can be decoded and its time, or None at the end.

        Raises:
            SourceError: The stream is live, and was lost.
        """
        ...

    def damage(self) -> str | None:
        """Return what was wrong with the part that was read, as a phrase for messages. None if nothing was."""
        ...

    def close(self) -> None:
        """Close the video."""
        ...


class Patience:
    """Decides when to give up on a video of which frame after frame cannot be decoded.

    Args:
        live: Whether the video is live. A live stream is given up after 10 s, a file after 10 s and 300 frames.
    """

    def __init__(self, live: bool) -> None:
        self._live = live
        self._bad = 0
        self._since = 0.0

    def good(self) -> None:
        """Note a frame that was decoded."""
        self._bad = 0

    def bad(self) -> bool:
        """Note a frame that cannot be decoded. Return whether it is time to give up."""
        now = time.monotonic()
        if self._bad == 0:
            self._since = now
        self._bad += 1
        return now - self._since > _BAD_SECONDS and (self._live or self._bad > _BAD_FRAMES)


def describe_damage(frames: int, undecodable: int, total: int, expected: int | None) -> str | None:
    """Return what was wrong with a file, as a phrase for messages. None if nothing was.

    Args:
        frames: Number of frames that were decoded.
        undecodable: Number of frames that the file has, but that cannot be decoded.
        total: Number of frames that the file has, or has had so far.
        expected: Number of frames that the file says it has, if it ended before that. Otherwise None.
    """
    parts = []
    if undecodable:
        parts.append(f"{undecodable} of {max(total, undecodable)} frames could not be decoded")
    if expected is not None:
        parts.append(f"the file ended after {frames} of {expected} frames")
    return " and ".join(parts) or None
