"""`FairLock`: a lock that threads get in the order in which they asked for it."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class FairLock:
    """A lock for `with`. The thread that has it may take it again.

    With `threading.Lock`, the thread that gives the lock up is often the next that gets it, and others wait for long.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()  # guards the attributes below; it is never held for long
        self._owner: int | None = None
        self._depth = 0
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    def __enter__(self) -> FairLock:
        thread = threading.get_ident()
        with self._guard:
            if self._owner is None or self._owner == thread:  # nobody waits for a lock that is free
                self._owner = thread
                self._depth += 1
                return self
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append((thread, turn))
        try:
            turn.acquire()  # until `_pass_on` makes this thread the owner
        except BaseException:  # Ctrl-C
            self._give_up(thread, turn)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._depth -= 1
            if self._depth == 0:
                self._pass_on()

    def _pass_on(self) -> None:
        self._owner = None
        if self._waiting:
            self._owner, turn = self._waiting.popleft()
            self._depth = 1
            turn.release()

    def _give_up(self, thread: int, turn: threading.Lock) -> None:
        with self._guard:
            if (thread, turn) in self._waiting:
                self._waiting.remove((thread, turn))
            else:  # it had become the owner already
                self._depth = 0
                self._pass_on()
