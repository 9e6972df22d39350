"""`CaptureRun`: the capture thread of one of several cameras, from a start to the next stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..sources import Source
from ..sources.closing import end_opening_by


class CaptureRun:
    """A capture thread and the source that it reads.

    Args:
        name: Name of the thread.
        capture: Called with this object in the thread. It opens the source, calls `hold`, and reads until `stopped`.
    """

    def __init__(self, name: str, capture: Callable[[CaptureRun], None]) -> None:
        self._closing = threading.Event()
        self._capture = capture
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.stopped = False
        self._source: Source | None = None
        self._lock = threading.Lock()

    def _run(self) -> None:
        end_opening_by(self._closing)
        self._capture(self)

    def hold(self, source: Source) -> None:
        """Remember the source, so that `stop` can close it. Close it at once if `stop` was called already."""
        with self._lock:
            self._source = source
            late = self.stopped
        if late:
            source.close()

    def stop(self) -> None:
        """Tell the thread to end, and close the source. Returns without waiting for the thread."""
        self._closing.set()
        with self._lock:
            self.stopped = True
            source = self._source
        if source is not None:
            source.close()
