"""The ring gives the frames that a window should have, and counts those that it dropped."""

import threading

import numpy as np
import pytest
from bundles import grey
from numbered_frames import PIXELS, SIZE, make_ring, numbered, numbers

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.stream.ring import FrameRing
from vmp_edge.stream.window import Window


def test_windows_slide_by_the_hop():
    ring, out = make_ring(4, stride=2, hop=3)
    ends = []
    for sequence in range(30):
        ring.push(numbered(sequence), sequence / 30)
        if ring.due():
            window = ring.read(out)
            assert numbers(out) == list(window.sequences) == [sequence - 6, sequence - 4, sequence - 2, sequence]
            assert window.timestamps[-1] == sequence / 30
            ends.append(sequence)
    assert ends == list(range(6, 30, 3))
    assert ring.pushed == 30 and ring.dropped == 0


def test_frames_that_no_window_reached_over_count_as_dropped():
    ring, out = make_ring(4, hop=1)
    for sequence in range(20):
        ring.push(numbered(sequence), sequence)
    assert ring.dropped == 16, "0 to 15 are gone unseen"
    assert ring.read(out).sequences == (16, 17, 18, 19)
    for sequence in range(20, 24):
        ring.push(numbered(sequence), sequence)
    assert ring.dropped == 16, "16 to 19 were seen"


@pytest.mark.parametrize("window", [{"stride": 1}, {"stride": 3}, {"fps": 1.0}, {"fps": 2.0}])
def test_what_a_long_hop_leaves_out_was_not_dropped(window):
    ring, out = make_ring(2, hop=10, **window)
    for sequence in range(50):
        ring.push(numbered(sequence), sequence)
        if ring.due():
            ring.read(out)
    assert ring.dropped == 0


def test_reading_too_early_gives_nothing_and_writes_nothing():
    ring, out = make_ring(4)
    ring.push(numbered(1), 0.0)
    assert ring.read(out) is None and not ring.due()
    assert np.isnan(out).all()


def test_fps_passes_over_frames_that_come_too_close():
    """120 frames per second for a window of 10 per second: a few slots must do, and nothing is dropped by that."""
    ring, out = make_ring(8, fps=10.0, hop=4)
    read = 0
    for sequence in range(600):
        ring.push(numbered(sequence), sequence / 120)
        if ring.due():
            window = ring.read(out)
            assert numbers(out) == list(window.sequences)
            steps = np.diff(window.timestamps)
            assert np.abs(steps - 0.1).max() <= 0.26 * 0.1
            read += 1
    assert ring.pushed == 600 and ring.dropped == 0
    assert 120 <= read <= 150  # a hop of 4 frames, once the first 0.7 s are there
    assert len(ring._slots) < 50


def test_clear_leaves_no_window_over_the_gap():
    ring, out = make_ring(4, hop=1)
    for sequence in range(6):
        ring.push(numbered(sequence), 100 + sequence)
    ring.read(out)
    ring.clear()
    assert not ring.due() and ring.read(out) is None
    for sequence in range(4):
        assert not ring.due()
        ring.push(numbered(sequence), sequence)  # time may start again
    assert ring.due() and ring.read(out) is not None
    assert numbers(out) == [0, 1, 2, 3]
    assert ring.pushed == 10


def test_time_must_not_run_backwards():
    ring, _ = make_ring(4)
    ring.push(numbered(0), 5.0)
    ring.push(numbered(1), 5.0)
    with pytest.raises(UsageError, match="backwards"):
        ring.push(numbered(2), 4.9)
    assert ring.pushed == 2


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), float("-inf"), 1e308, 1.7e12])
def test_timestamps_are_seconds(timestamp):
    """The last one is milliseconds since 1970."""
    ring, _ = make_ring(4)
    ring.push(numbered(0), 5.0)
    with pytest.raises(UsageError, match="finite number of seconds"):
        ring.push(numbered(1), timestamp)
    ring.push(numbered(1), 6.0)
    assert ring.pushed == 2


def test_a_frame_of_another_dtype_costs_no_slot():
    ring, out = make_ring(2)
    for _ in range(100):
        with pytest.raises(UsageError):
            ring.push(grey(1).astype(np.float32), 0.0)
    ring.push(numbered(0), 1.0)
    ring.push(numbered(1), 2.0)
    assert ring.read(out) is not None


def test_a_frame_that_fails_while_it_is_prepared_costs_no_slot(monkeypatch):
    ring, out = make_ring(2)

    def fail(*arguments):
        raise MemoryError

    for _ in range(100):
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(Preprocessing, "frame", fail)
            ring.push(numbered(0), 0.0)
    ring.push(numbered(0), 1.0)
    ring.push(numbered(1), 2.0)
    assert numbers((ring.read(out), out)[1]) == [0, 1]


def test_wait_wakes_for_a_window_and_for_the_end():
    ring, _ = make_ring(2)
    assert ring.wait(timeout=0.01) is False
    woken = []
    waiter = threading.Thread(target=lambda: woken.append(ring.wait()))
    waiter.start()
    ring.push(numbered(0), 0.0)
    ring.push(numbered(1), 1.0)
    waiter.join(timeout=10)
    assert woken == [True]
    ring.clear()
    waiter = threading.Thread(target=lambda: woken.append(ring.wait()))
    waiter.start()
    ring.close()
    waiter.join(timeout=10)
    assert woken == [True, False]


def test_a_window_that_was_skipped_counts_as_read():
    ring, out = make_ring(2, hop=3)
    calls = []

    def still(motion, timestamp):
        calls.append((motion, timestamp))
        return motion < 5

    assert ring.skip(still) is None and calls == []
    for sequence in range(5):
        ring.push(numbered(sequence), sequence, change=float(sequence))
    assert ring.skip(still).sequences == (3, 4) and calls == [(4.0, 4)]
    assert not ring.due() and np.isnan(out).all()
    for sequence in range(5, 8):
        ring.push(numbered(sequence), sequence, change=float(sequence))
    assert ring.due() and ring.skip(still) is None and ring.due(), "something moves: it is still to be read"
    ring.read(out)
    assert ring.dropped == 3, "0 to 2 went before anything was due to be read"


def test_what_moves_in_frames_that_are_passed_over_counts():
    ring, _ = make_ring(2, fps=10.0, hop=1)
    motions = []
    for sequence in range(60):
        ring.push(numbered(sequence), sequence / 120, change=9.0 if sequence == 31 else 0.0)
        ring.skip(lambda motion, timestamp: motions.append(motion) or True)
    assert motions.count(9.0) >= 10 and motions[-1] == 0.0


def test_a_ring_reads_other_windows_of_the_frames_it_has():
    narrow, wide = Window(3, stride=1, hop=1), Window(3, stride=4, hop=2)
    ring, out = FrameRing(PIXELS, narrow, wide.capacity), np.empty((3, 3, SIZE, SIZE), np.float32)
    for sequence in range(20):
        ring.push(numbered(sequence), sequence)
    assert ring.read(out).sequences == (17, 18, 19)
    ring.change(wide)
    assert ring.read(out).sequences == (11, 15, 19)
    ring.change(narrow)
    assert ring.read(out).sequences == (17, 18, 19)
    for window in (Window(4), Window(3, stride=5)):
        with pytest.raises(UsageError, match="does not fit"):
            ring.change(window)


def test_the_rings_successor_counts_on():
    ring, out = make_ring(2, hop=1)
    for sequence in range(10):
        ring.push(numbered(sequence), sequence)
    successor = ring.successor(FrameRing(PIXELS, Window(2, hop=1)))
    assert (successor.pushed, successor.dropped) == (10, 8) and not successor.due()
    with pytest.raises(UsageError, match="backwards"):
        successor.push(numbered(10), 8.0)
    successor.push(numbered(10), 10.0)
    successor.push(numbered(11), 11.0)
    assert successor.read(out).sequences == (10, 11) and numbers(out) == [10, 11]


def test_the_ring_samples_by_what_was_pushed_with_the_frames():
    ring, out = make_ring(4, stride=10, hop=1, sampling="motion")
    for sequence in range(31):
        ring.push(numbered(sequence), sequence / 30, change=20.0 if sequence in (14, 15, 16) else 0.0)
    window = ring.read(out)
    assert numbers(out) == list(window.sequences)
    assert window.sequences[0] == 0 and window.sequences[3] == 30
    assert all(12 <= sequence <= 17 for sequence in window.sequences[1:3])
