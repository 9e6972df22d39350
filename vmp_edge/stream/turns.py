"""`Turns`: who is next, of several cameras that wait for the engine."""

from __future__ import annotations

import threading


class Turns:
    """Gives turns in a circle, passing over those that did not ask. Its methods may be called from any thread.

    Args:
        count: Number of participants. They are numbered from 0.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._asking: set[int] = set()
        self._first = 0  # the participant that has precedence for the next turn
        self._closed = False
        self._changed = threading.Condition()

    def ask(self, index: int) -> None:
        """Ask for a turn. Asking again before the turn has come changes nothing."""
        with self._changed:
            self._asking.add(index)
            self._changed.notify()

    def next(self) -> int | None:
        """Wait until somebody asks, and return whose turn it is, or None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._asking)
            if self._closed:
                return None
            index = min(self._asking, key=lambda index: (index - self._first) % self._count)
            self._asking.remove(index)
            self._first = index + 1
            return index

    def close(self) -> None:
        """End the waiting in `next`, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
