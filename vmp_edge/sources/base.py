"""The interface of every source, and the frames that a source gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import SourceError

Message = Callable[[str], None]  # takes a line of text for the user

LARGEST_SIDE = 16384  # pixels; a larger width or height is taken for a mistake
USUAL_FPS = 30.0  # assumed for a source that does not give its frame rate


class AddressError(SourceError):
    """The address of a source is wrong, so that it is of no use to try again."""


@dataclass(frozen=True)
class Frame:
    """A frame of a source.

    Args:
        image: Picture, uint8 (H, W, 3) BGR.
        timestamp: Time in seconds: of the machine's monotonic clock for a live source, counted from 0 for a
            file, by the file's own times or its frame rate.
        restarted: Whether this is the first frame after a gap.
    """

    image: npt.NDArray[np.uint8]
    timestamp: float
    restarted: bool = False


class Source(Protocol):
    """Gives frames, one after another.

    Attributes:
        name: The source's name for messages, without a password.
        live: Whether the source goes on by itself, so that frames that are not read in time are lost.
        fps: Frames per second, or None if the source does not say.
        frame_count: Number of frames that there will be, or None if the source does not say.
    """

    name: str
    live: bool
    fps: float | None
    frame_count: int | None

    def read(self) -> Frame | None:
        """Wait for the next frame. Return None at the end, and after `close`.

        Raises:
            SourceError: The next frame cannot be read.
        """
        ...

    def close(self) -> None:
        """Close the source. Another thread may call this while `read` waits."""
        ...
