"""Live sources that may vanish and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import SourceError, UsageError
from .base import Frame, Message, Source


@dataclass(frozen=True)
class Pauses:
    """The pauses before a source that vanished is tried again. Each is twice as long as the one before.

    Args:
        first: The first pause, in seconds.
        longest: The longest pause, in seconds.

    Raises:
        UsageError: A value is out of range.
    """

    first: float = 0.5
    longest: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.longest:
            raise UsageError(f"pauses must be positive and grow, not {self.first} to {self.longest} seconds")


DEFAULT_PAUSES = Pauses()


class Retrying:
    """A live source that is opened again, after growing pauses, when it vanishes.

    The first opening is not tried again, so that a wrong name is reported at once.

    Args:
        name: The source's name for messages.
        opener: Opens the source.
        tell: Called with a message when the source vanishes, is tried again, and is back.
        pauses: The pauses before the source is tried again.
        cancel: Called when this source is closed, so that the opener returns at once if it is waiting.

    Attributes:
        undecodable: Number of pictures so far that could not be decoded.

    Raises:
        SourceError: The source cannot be opened for the first time.
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[], Source],
        tell: Message,
        pauses: Pauses,
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.live = True
        self.frame_count: int | None = None
        self._opener = opener
        self._tell = tell
        self._cancel = cancel
        self._closed = threading.Event()
        self._swapping = threading.Lock()
        self._pauses = pauses
        self._wait = pauses.first
        self._undecodable = 0  # of the sources that were closed
        self._opened_at = time.monotonic()
        self._source: Source | None = opener()
        self.fps: float | None = self._source.fps

    @property
    def undecodable(self) -> int:
        """Number of pictures so far that could not be decoded."""
        return self._undecodable + getattr(self._source, "undecodable", 0)

    def read(self) -> Frame | None:
        """Wait for the next frame, also while the source is gone. Return None at its end, and after `close`."""
        restarted = False
        while not self._closed.is_set():
            source = self._source
            if source is None:
                restarted = True
                if not self._reopen():
                    break
                continue
            try:
                frame = source.read()
            except SourceError as error:
                self._drop(source, error)
                continue
            if frame is None:
                break
            return Frame(frame.image, frame.timestamp, restarted)
        return None

    def close(self) -> None:
        """Close the source. A `read` that waits returns."""
        self._closed.set()
        self._cancel()
        with self._swapping:
            if self._source is not None:
                self._source.close()

    def _drop(self, source: Source, error: SourceError) -> None:
        """Close a source that vanished, and report it."""
        source.close()
        self._source, self._undecodable = None, self.undecodable
        # A source that gave frames for longer than the last pause starts with the first pause again. One that comes and
        # goes at once waits longer each time.
        if time.monotonic() - self._opened_at > self._wait:
            self._wait = self._pauses.first
        if not self._closed.is_set():
            self._tell(f"{error}; trying again in {self._wait:g} s")

    def _reopen(self) -> bool:
        """Try until the source is back (return True) or this source is closed (return False)."""
        while not self._closed.wait(self._wait):
            self._wait = min(2 * self._wait, self._pauses.longest)
            try:
                source = self._opener()
            except SourceError as error:
                if not self._closed.is_set():
                    self._tell(f"{error}; trying again in {self._wait:g} s")
                continue
            with self._swapping:
                self._source = source
            if self._closed.is_set():  # closed while it was being opened
                source.close()
                return False
            self._opened_at = time.monotonic()
            self._tell(f"{self.name} is back")
            return True
        return False
