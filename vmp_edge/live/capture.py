"""`Capture`: the thread that feeds a live source's frames to the stream."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..sources import Frame
from ..stream.stream import Stream


class Capture(threading.Thread):
    """Takes frames from the source as they come, feeds them to the stream, and keeps the newest frame for the view.

    Args:
        next_frame: Returns the next frame, or None at the end.
        stream: A stream that was started.

    Attributes:
        ended: True if there are no more frames.
        news: Set when there is a new frame, and at the end.
    """

    def __init__(self, next_frame: Callable[[], Frame | None], stream: Stream) -> None:
        super().__init__(name="vmp-edge capture", daemon=True)
        self._next_frame = next_frame
        self._stream = stream
        self._lock = threading.Lock()
        self._newest: Frame | None = None
        self._failure: BaseException | None = None
        self.ended = False
        self.news = threading.Event()

    def run(self) -> None:
        """Capture until the source ends or fails. `start` calls this in the new thread."""
        try:
            while (frame := self._next_frame()) is not None:
                self._stream.feed(frame.image, frame.timestamp)
                with self._lock:
                    self._newest = frame
                self.news.set()
        except BaseException as error:  # `check` raises it in the main thread
            self._failure = error
        finally:
            self.ended = True
            self.news.set()

    def take(self) -> Frame | None:
        """Return the newest frame, or None if it was taken already."""
        with self._lock:
            frame, self._newest = self._newest, None
        return frame

    def check(self) -> None:
        """Raise the error that capturing failed with, if it failed."""
        if self._failure is not None:
            raise self._failure
