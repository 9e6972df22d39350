"""Worker processes, and the helper of theirs that Python starts, leave signals to the parent process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext

_LAST_RESULT = 0.3  # seconds in which a worker may hand its result over after SIGTERM


def spawning() -> SpawnContext:
    """Return the context that worker processes start in; the helper of all of them ignores SIGHUP, as it does Ctrl-C.

    A terminal that is closed sends SIGHUP to each of its processes.
    """
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which the helper inherits
        try:
            resource_tracker.ensure_running()
        finally:
            signal.signal(signal.SIGHUP, before)
    return multiprocessing.get_context("spawn")


def leave_signals_to_parent() -> None:
    """Ignore Ctrl-C and SIGHUP in a worker process, and die a moment after SIGTERM.

    A process manager sends SIGTERM to all processes at once. A worker that died in the middle of a result would leave
    the parent waiting for the rest of it, for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)  # also while the decoder does not return
    threading.Thread(target=_die_late, args=(reader,), name="vmp-edge SIGTERM", daemon=True).start()


def _die_late(signals: int) -> None:
    while os.read(signals, 1) != bytes([signal.SIGTERM]):
        pass
    time.sleep(_LAST_RESULT)
    os._exit(128 + signal.SIGTERM)
