"""Worker processes, and the helper of theirs that Python starts, leave signals to the parent process."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext


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
    """Ignore Ctrl-C and SIGHUP in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
