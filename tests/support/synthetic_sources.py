"""Cameras made of numbers, for tests that need to say when a frame comes."""

from __future__ import annotations

import threading
import time

from bundles import grey

from vmp_edge.errors import SourceError
from vmp_edge.sources import Frame


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


class SyntheticCamera:
    """Gives frames of the values, then ends, fails if `error` is given, or with `hold` waits until it is closed.

    Args:
        values: Grey levels, or frames.
        rate: Frames per second; None for as many as are taken.
        before: Called with the number of each frame before it is given: to make it wait for something.
        restarts: Numbers of frames that come after a gap.
    """

    fps = None
    frame_count = None
    live = True

    def __init__(self, values, rate=None, before=lambda number: None, restarts=(), error=None, hold=False):
        self.name = "synthetic"
        self.closed = threading.Event()
        self._values, self._number = iter(values), 0
        self._rate, self._before, self._restarts = rate, before, restarts
        self._error, self._hold = error, hold

    def read(self):
        number, self._number = self._number, self._number + 1
        self._before(number)
        if self._rate is not None:
            self.closed.wait(1 / self._rate)
        value = next(self._values, None)
        if self.closed.is_set():
            return None
        if value is None:
            if self._error is not None:
                raise SourceError(self._error)
            if self._hold:
                self.closed.wait()
            return None
        return Frame(grey(value) if isinstance(value, int) else value, number / 30, number in self._restarts)

    def close(self):
        self.closed.set()
