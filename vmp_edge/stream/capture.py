"""`CaptureRun`: the capture thread of one of several cameras, from a start to the next stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..sources import Source
from ..sources.waiting import close_in_background


class CaptureRun:
    """A capture thread and the source that it reads.

    Args:
        name: Name of the thread.
        capture: Called with this object in the thread. It opens the source, calls `hold`, and reads until `stopped`.

    Attributes:
        cancelled: Set by `stop`, to end the opening of a source that does not answer.
    """

    def __init__(self, name: str, capture: Callable[[CaptureRun], None]) -> None:
        self.thread = threading.Thread(target=capture, args=(self,), name=name, daemon=True)
        self.stopped = False
        self.cancelled = threading.Event()
        self._source: Source | None = None
        self._lock = threading.Lock()

    def hold(self, source: Source) -> None:
        """Remember the source, so that `stop` can close it. Close it at once if `stop` was called already."""
        with self._lock:
            self._source = source
            late = self.stopped
        if late:
            source.close()

    def stop(self) -> None:
        """Tell the thread to end, and close the source. Returns without waiting for the thread or the source."""
        with self._lock:
            self.stopped = True
            source = self._source
        self.cancelled.set()
        if source is not None:
            close_in_background(source)  # a camera that hangs is slow to close, too
