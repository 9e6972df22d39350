"""Files that are played in real time, like a camera."""

from __future__ import annotations

import threading
import time

from .base import Frame, Source


class Paced:
    """Plays a file at its own frame rate, like a camera: frames that are not read in time are lost.

    Args:
        source: The file's source, which is closed with this one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.live = True
        self.name = source.name
        self.fps = source.fps
        self.frame_count = source.frame_count
        self._closed = threading.Event()
        self._start: float | None = None

    def read(self) -> Frame | None:
        """Wait until the next frame is due. Return None at the end, and after `close`."""
        frame = self._source.read()
        if frame is None:
            return None
        if self._start is None:
            self._start = time.monotonic() - frame.timestamp
        due = self._start + frame.timestamp
        return None if self._closed.wait(max(due - time.monotonic(), 0.0)) else frame

    def close(self) -> None:
        """Close the source. A `read` that waits returns."""
        self._closed.set()
        self._source.close()
