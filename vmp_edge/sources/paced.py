"""Files played as a camera would give them."""

from __future__ import annotations

import threading
import time

from .base import Frame, Source


class Paced:
    """A file played at its own pace, as a camera would: what is not taken in time is lost."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.live = True
        self.name = source.name
        self.fps = source.fps
        self.frame_count = source.frame_count
        self._closed = threading.Event()
        self._start: float | None = None

    def read(self) -> Frame | None:
        """Waits until the next frame's time has come; None at the end."""
        frame = self._source.read()
        if frame is None:
            return None
        if self._start is None:
            self._start = time.monotonic() - frame.timestamp
        due = self._start + frame.timestamp
        return None if self._closed.wait(max(due - time.monotonic(), 0.0)) else frame

    def close(self) -> None:
        """Ends it; a waiting `read` returns."""
        self._closed.set()
        self._source.close()
