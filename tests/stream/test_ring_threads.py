"""Threads that push to a ring, read it and clear it at once never see a torn or repeated frame."""

import contextlib
import sys
import threading
import time

import numpy as np
import pytest
from numbered_frames import SIZE, make_ring, numbered, numbers


@contextlib.contextmanager
def hammering(*works):
    """Repeat each of `works` in a thread of its own, then raise the error of the first that failed."""
    stop, failures = threading.Event(), []

    def repeat(work):
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads)


def until(condition, failures=()):
    """Wait until a condition is true, or until there is a failure."""
    deadline = time.monotonic() + 60
    while not condition() and not failures:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


@pytest.fixture
def eager_switching():
    """Let threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("window", [{"stride": 1}, {"stride": 3}, {"fps": 100.0}, {"fps": 100.0, "sparse": True}])
@pytest.mark.usefixtures("eager_switching")
def test_a_reader_never_sees_a_torn_frame_while_another_thread_pushes(window):
    ring, out = make_ring(8, hop=1, **window)
    pushed, last, windows = 0, -1, 0

    def push():
        nonlocal pushed
        ring.push(numbered(pushed), pushed / 300)
        pushed += 1

    with hammering(push) as failures:
        while windows < 1500 and not failures:
            assert ring.wait(timeout=30) or failures
            window_read = ring.read(out)
            sequence = numbers(out)
            assert sequence == list(window_read.sequences), "the pixels are those of the frames it says"
            assert sequence == sorted(sequence) and sequence[-1] > last, "windows go forward"
            if "stride" in window:
                assert set(np.diff(sequence)) == {window["stride"]}
            last, windows = sequence[-1], windows + 1
    assert ring.pushed == pushed >= ring.dropped


@pytest.mark.usefixtures("eager_switching")
def test_many_writers_readers_and_clears_at_once():
    ring, _ = make_ring(4, stride=2, hop=1)
    clock = threading.Lock()
    pushed, windows = 0, [0, 0]

    def push():
        nonlocal pushed
        with clock:  # one clock, so that time does not run backwards between the writers
            ring.push(numbered(pushed), time.monotonic())
            pushed += 1

    def reader(index):
        out = np.empty((3, 4, SIZE, SIZE), np.float32)

        def read():
            if ring.read(out) is not None:
                assert set(np.diff(numbers(out))) == {2}
                windows[index] += 1

        return read

    def clear():
        ring.clear()
        time.sleep(0.002)

    with hammering(push, push, reader(0), reader(1), clear) as failures:
        until(lambda: min(windows) >= 300, failures)
    assert ring.pushed == pushed
    kept = [entry.slot for entry in ring._kept]
    assert sorted(kept + ring._free) == list(range(len(ring._slots))), "no slot was lost or is used twice"


@pytest.mark.usefixtures("eager_switching")
def test_more_writers_than_spare_slots_take_turns():
    ring, out = make_ring(2, hop=1)
    windows = 0

    def read():
        nonlocal windows
        windows += ring.read(out) is not None

    with hammering(read, *[lambda: ring.push(numbered(0), 0.0)] * 8) as failures:
        until(lambda: windows >= 300, failures)


class SlowBuffer(np.ndarray):
    """Sets `begun` when a frame is written into it, and waits for `may_go_on` before it takes the frame."""

    begun, may_go_on = threading.Event(), threading.Event()

    def __setitem__(self, key, value):
        self.begun.set()
        assert self.may_go_on.wait(timeout=60)
        super().__setitem__(key, value)


def test_pushing_never_waits_for_a_window_being_gathered():
    ring, out = make_ring(4, hop=1)
    for sequence in range(4):
        ring.push(numbered(sequence), sequence)
    reader = threading.Thread(target=ring.read, args=(out.view(SlowBuffer),), daemon=True)
    reader.start()
    assert SlowBuffer.begun.wait(timeout=60)
    for sequence in range(4, 100):  # round the whole ring, many times
        ring.push(numbered(sequence), sequence)
    SlowBuffer.may_go_on.set()
    reader.join(timeout=60)
    assert numbers(out) == [0, 1, 2, 3], "the window is the one that was picked"
