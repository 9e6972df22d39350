"""Signals that ask a program to end (Ctrl-C, SIGTERM, a session that ends): each stops it as Ctrl-C stops Python."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .streams import Output

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds within which a second signal belongs to the first: a terminal that is closed, the shell in it and a service
# manager each send one.
_SAME = 1.0


class Stopped(KeyboardInterrupt):
    """A signal asked the program to end.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a program that an interrupt has stopped: 128 plus the signal's number, as in a shell."""
    code: int = getattr(stop, "exit_code", 128 + signal.SIGINT)
    return code


def heeded() -> list[signal.Signals]:
    """List the signals that end the program: those that it was not told to ignore when it started, as by `nohup`."""
    return [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@dataclass
class Stopping:
    """The state of `stoppable`.

    Attributes:
        over: True if signals no longer stop anything, because the work is over.
        first: When the first signal came, by the monotonic clock. None before that.
    """

    over: bool = False
    first: float | None = None

    def stop(self, number: int, frame: Any) -> None:
        """Handle a signal.

        Raises:
            Stopped: The work goes on, and this is not one more signal of the same cause.
        """
        now = time.monotonic()
        if self.over or (self.first is not None and now - self.first < _SAME):
            return
        self.first = now
        if isinstance(sys.stdout, Output):
            sys.stdout.needed = False  # a terminal that was closed takes no summary, and that is no failure any more
        raise Stopped(number)


@contextlib.contextmanager
def stoppable() -> Iterator[Stopping]:
    """Raise `Stopped` in the main thread when a signal asks the program to end, for as long as the context lasts."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stopping.stop) for number in heeded()}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
