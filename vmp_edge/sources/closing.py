"""Lets another thread end the opening of a source, which has no `close` yet."""

from __future__ import annotations

import threading
from contextvars import ContextVar

_event: ContextVar[threading.Event | None] = ContextVar("closing", default=None)


def end_opening_by(event: threading.Event) -> None:
    """Have every source that this thread opens from now on give up as soon as an event is set."""
    _event.set(event)


def ends_opening() -> threading.Event:
    """Return the event that ends the opening of sources in this thread."""
    return _event.get() or threading.Event()
