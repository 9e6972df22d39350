"""What every source is: frames, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Message = Callable[[str], None]

USUAL_FPS = 30.0  # for files that don't say


@dataclass(frozen=True)
class Frame:
    """A frame: uint8 (H, W, 3) BGR; its time in seconds; whether it is the first one after a gap.

    The time is the machine's monotonic clock for a live source, and counts from 0 by the frame rate for a file.
    """

    image: npt.NDArray[np.uint8]
    timestamp: float
    restarted: bool = False


class Source(Protocol):
    """Frames, one after another.

    Attributes:
        name: For messages.
        live: It goes on by itself: frames that are not taken in time are lost.
        fps: Frames per second, if it says.
        frame_count: How many frames there will be, if it says.
    """

    name: str
    live: bool
    fps: float | None
    frame_count: int | None

    def read(self) -> Frame | None:
        """Waits for the next frame; None at the end, and after `close`."""
        ...

    def close(self) -> None:
        """Ends it; may be called from another thread while `read` waits."""
        ...
