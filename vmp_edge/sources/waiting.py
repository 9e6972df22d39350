"""Waiting for a source that may never answer, so that signals, and closing from another thread, still end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import SourceError
from .base import Message, Source

_SLICE = 0.05  # seconds within which a signal, or closing, is noticed
_SILENCE = 10.0  # seconds after which the user is told that the source does not answer

T = TypeVar("T")


def wait(ready: Callable[[float], bool], name: str, tell: Message, cancelled: threading.Event) -> None:
    """Wait until a source is ready.

    Args:
        ready: Waits for at most this many seconds, and returns whether the source is ready.
        name: The source's name for messages.
        tell: Called with a message if the source has not answered for a while.
        cancelled: Ends the waiting when it is set.

    Raises:
        SourceError: The waiting was ended.
    """
    told_at: float | None = time.monotonic() + _SILENCE
    while not ready(_SLICE):
        if cancelled.is_set():
            raise SourceError(f"{name} was closed while it was being opened")
        if told_at is not None and time.monotonic() > told_at:
            told_at = None
            tell(f"{name} has not answered for {_SILENCE:g} s; still waiting")


def in_background(
    call: Callable[[], T],
    name: str,
    tell: Message,
    cancelled: threading.Event,
    discard: Callable[[T], None] = lambda result: None,
) -> T:
    """Call a function that may hang in a thread of its own, and wait for its result.

    A thread that hangs is left behind. It does not keep the process from ending.

    Args:
        call: The function.
        name: The source's name for messages.
        tell: Called with a message if the source has not answered for a while.
        cancelled: Ends the waiting when it is set.
        discard: Called with a result that comes after the waiting has ended.

    Raises:
        SourceError: The waiting was ended.
        Exception: What the function has raised.
    """
    running = _Running(call, discard)
    try:
        wait(running.done.wait, name, tell, cancelled)
        return running.result()
    except BaseException:  # also an interrupt
        running.abandon()
        raise


def close_in_background(source: Source) -> threading.Thread:
    """Close a source in a thread of its own, because the source may hang. Return the thread."""
    thread = threading.Thread(target=source.close, name="vmp-edge closing", daemon=True)
    thread.start()
    return thread


class _Running(Generic[T]):
    """A function that runs in a thread of its own."""

    def __init__(self, call: Callable[[], T], discard: Callable[[T], None]) -> None:
        self.done = threading.Event()
        self._call, self._discard = call, discard
        self._lock = threading.Lock()
        self._abandoned = False
        self._results: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="vmp-edge opening", daemon=True).start()

    def _run(self) -> None:
        try:
            result = self._call()
        except BaseException as error:  # `result` raises it
            self._error = error
        else:
            with self._lock:
                self._results.append(result)
                late = self._abandoned
            if late:
                self._discard(result)
        self.done.set()

    def result(self) -> T:
        """Return what the function has returned, or raise what it has raised."""
        if self._error is not None:
            raise self._error
        with self._lock:
            return self._results.pop()

    def abandon(self) -> None:
        """Discard the result as soon as there is one, unless `result` has returned it."""
        with self._lock:
            self._abandoned = True
            results, self._results = self._results, []
        for result in results:
            self._discard(result)
