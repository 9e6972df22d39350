"""Worker processes and signals: a worker finishes what it is about to hand over, and the parent decides on the rest."""

import os
import signal
from concurrent.futures import ProcessPoolExecutor

from vmp_edge.calibration import workers

SIZE = 8_000_000  # more than a pipe takes at once


def result_after(number):
    """Get a signal while a result is made, and return the result."""
    workers._LAST_RESULT = 60.0  # in the worker process
    os.kill(os.getpid(), number)
    return bytes(SIZE)


def test_a_worker_that_a_signal_reaches_hands_its_result_over():
    """One that died in the middle of it would leave the parent waiting for the rest."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        with ProcessPoolExecutor(1, workers.spawning(), initializer=workers.leave_signals_to_parent) as pool:
            assert len(pool.submit(result_after, number).result(timeout=60)) == SIZE


def endless():
    """Wait in C for a signal."""
    import ctypes

    ctypes.CDLL(None).pause()


def test_a_worker_that_is_told_to_end_ends():
    context = workers.spawning()
    process = context.Process(target=_run_endless)
    process.start()
    process.terminate()
    process.join(60)
    assert process.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM)


def _run_endless():
    workers.leave_signals_to_parent()
    while True:
        endless()
