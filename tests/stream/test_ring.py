"""Windows are the frames they should be, and threads never see a torn or repeated one."""

import contextlib
import sys
import threading
import time

import numpy as np
import pytest
from bundles import grey

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.stream.ring import FrameRing
from vmp_edge.stream.window import Window, spread

SIZE = 8
PIXELS = Preprocessing(SIZE, mean=(0, 0, 0), std=(1 / 255,) * 3)  # a value is its pixel


def numbered(sequence):
    """A frame that says which one it is: its number in the three channels, all over."""
    frame = np.empty((SIZE, SIZE, 3), np.uint8)
    frame[...] = (sequence & 255, sequence >> 8 & 255, sequence >> 16 & 255)
    return frame


def numbers(out):
    """The numbers of a gathered window's frames, (3, T, S, S); fails if any of them is torn."""
    whole = np.rint(out).astype(np.int64)
    assert (whole == whole[:, :, :1, :1]).all(), "a frame was written over while it was gathered"
    red, green, blue = whole[:, :, 0, 0]
    return (red + (green << 8) + (blue << 16)).tolist()


def make_ring(frames, **window):
    if "fps" in window:
        window.setdefault("stride", None)
    return FrameRing(PIXELS, Window(frames, **window)), np.full((3, frames, SIZE, SIZE), np.nan, np.float32)


# Which frames make up a window


def test_stride_takes_every_so_many_th_frame():
    window = Window(4, stride=3)
    assert window.capacity == 10
    assert window.select([0.0] * 9) is None
    assert window.select([0.0] * 10) == [0, 3, 6, 9]
    assert window.select([0.0] * 12) == [2, 5, 8, 11]


def nearest(times, wanted):
    return [min(range(len(times)), key=lambda i: (abs(times[i] - time), times[i])) for time in wanted]


@pytest.mark.parametrize("seed", range(20))
def test_fps_takes_the_frames_nearest_in_time(seed):
    rng = np.random.default_rng(seed)
    fps, camera = rng.uniform(2, 40), rng.uniform(2, 120)
    times = np.cumsum(rng.uniform(0.5, 1.5, 300) / camera).tolist()
    window = Window(8, stride=None, fps=fps)
    chosen = window.select(times)
    wanted = [times[-1] - index / fps for index in range(7, -1, -1)]
    if times[0] > wanted[0] + 0.05 / fps:
        assert chosen is None
    else:
        found = np.array(times)[chosen]
        best = np.array(times)[nearest(times, wanted)]
        np.testing.assert_allclose(np.abs(found - wanted), np.abs(best - wanted), atol=1e-9)
        assert chosen[-1] == len(times) - 1


def test_fps_waits_until_the_frames_reach_back_far_enough():
    window = Window(4, stride=None, fps=10.0)
    times = [index / 30 for index in range(20)]
    ready = [window.select(times[: n + 1]) is not None for n in range(20)]
    assert ready.index(True) == 9  # 0.3 s lie between the first and the tenth
    assert all(ready[9:])
    assert window.select([]) is None
    assert Window(1, stride=None, fps=10.0).select([5.0]) == [0]


def test_a_slow_camera_repeats_frames():
    assert Window(6, stride=None, fps=25.0).select([0.0, 0.1, 0.2]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"frames": 0},
        {"frames": 4, "stride": 0},
        {"frames": 4, "hop": 0},
        {"frames": 4, "fps": 10.0},
        {"frames": 4, "stride": None},
        {"frames": 4, "stride": None, "fps": 0.0},
        {"frames": 4, "stride": None, "fps": float("nan")},
        {"frames": 4, "sampling": "newest"},
    ],
)
def test_impossible_windows_are_refused(options):
    with pytest.raises(UsageError):
        Window(**options)


# Sampling


@pytest.mark.parametrize("frames, stride", [(1, 3), (2, 4), (4, 1), (8, 2), (8, 5), (16, 3)])
def test_recent_takes_the_same_span_and_frames_closer_towards_the_present(frames, stride):
    window = Window(frames, stride=stride, sampling="recent")
    assert window.capacity == Window(frames, stride=stride).capacity
    chosen = window.select([0.0] * window.capacity)
    assert chosen[0] == 0 and chosen[-1] == window.capacity - 1
    steps = np.diff(chosen)
    assert (steps >= 1).all() and (np.diff(steps) <= 1).all()
    if stride > 2:
        assert frames <= 2 or steps[0] > stride > steps[-1]


def test_recent_by_fps_does_so_in_time():
    window = Window(8, stride=None, fps=10.0, sampling="recent")
    times = [index / 100 for index in range(100)]
    back = 0.99 - np.array(times)[window.select(times)]
    np.testing.assert_allclose(back, 0.7 * (np.arange(7, -1, -1) / 7) ** 1.5, atol=0.0051)
    assert window.min_spacing < np.diff(-back).min()


def test_motion_takes_frames_where_something_changes():
    changes = [0.0] * 40 + [10.0] * 10 + [0.0] * 50
    chosen = Window(8, stride=14, sampling="motion").select(list(np.arange(100) / 30), changes)
    assert chosen[0] == 1 and chosen[-1] == 99
    assert sum(38 <= index <= 50 for index in chosen) >= 5
    assert max(np.diff(chosen)) <= 4 * 14 + 1


def test_motion_without_any_is_equally_spaced():
    times = list(np.arange(50) / 30)
    uniform = Window(8, stride=7).select(times)
    window = Window(8, stride=7, sampling="motion")
    assert window.select(times, [0.0] * 50) == window.select(times, [5.0] * 50) == uniform == window.select(times)


def test_motion_of_a_camera_too_slow_for_the_window_repeats_frames_as_ever():
    window = Window(6, stride=None, fps=25.0, sampling="motion")
    assert window.select([0.0, 0.1, 0.2], [0.0, 9.0, 1.0]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("seed", range(50))
def test_no_frame_is_chosen_twice_whatever_changes(seed):
    random = np.random.default_rng(seed)
    frames, available = int(random.integers(2, 17)), int(random.integers(17, 60))
    times = np.cumsum(random.choice([0.0, 0.03, 0.5], available))
    changes = random.choice([0.0, 1.0, 1e6], available)
    chosen = spread(list(times), list(changes), frames)
    assert len(chosen) == frames and (np.diff(chosen) >= 1).all()
    assert chosen[0] == 0 and chosen[-1] == available - 1


def test_the_ring_samples_by_what_was_pushed_with_the_frames():
    ring, out = make_ring(4, stride=10, hop=1, sampling="motion")
    for sequence in range(31):
        ring.push(numbered(sequence), sequence / 30, change=20.0 if sequence in (14, 15, 16) else 0.0)
    window = ring.read(out)
    assert numbers(out) == list(window.sequences)
    assert window.sequences[0] == 0 and window.sequences[3] == 30
    assert all(12 <= sequence <= 17 for sequence in window.sequences[1:3])


# The ring


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
    with pytest.raises(UsageError, match="backwards"):
        ring.push(numbered(2), float("nan"))
    assert ring.pushed == 2


def test_a_frame_that_is_none_costs_no_slot():
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
    told = []

    def still(motion, timestamp):
        told.append((motion, timestamp))
        return motion < 5

    assert ring.skip(still) is None and told == []
    for sequence in range(5):
        ring.push(numbered(sequence), sequence, change=float(sequence))
    assert ring.skip(still).sequences == (3, 4) and told == [(4.0, 4)]
    assert not ring.due() and np.isnan(out).all()
    for sequence in range(5, 8):
        ring.push(numbered(sequence), sequence, change=float(sequence))
    assert ring.due() and ring.skip(still) is None and ring.due(), "something moves: it is still to be read"
    ring.read(out)
    assert ring.dropped == 3, "0 to 2 went before anything was due to be read"


def test_what_moves_in_frames_that_are_passed_over_counts():
    ring, _ = make_ring(2, fps=10.0, hop=1)
    seen = []
    for sequence in range(60):
        ring.push(numbered(sequence), sequence / 120, change=9.0 if sequence == 31 else 0.0)
        ring.skip(lambda motion, timestamp: seen.append(motion) or True)
    assert seen.count(9.0) >= 10 and seen[-1] == 0.0


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
    for other in (Window(4), Window(3, stride=5)):
        with pytest.raises(UsageError, match="does not fit"):
            ring.change(other)


def test_the_rings_successor_counts_on():
    ring, out = make_ring(2, hop=1)
    for sequence in range(10):
        ring.push(numbered(sequence), sequence)
    after = ring.successor(FrameRing(PIXELS, Window(2, hop=1)))
    assert (after.pushed, after.dropped) == (10, 8) and not after.due()
    with pytest.raises(UsageError, match="backwards"):
        after.push(numbered(10), 8.0)
    after.push(numbered(10), 10.0)
    after.push(numbered(11), 11.0)
    assert after.read(out).sequences == (10, 11) and numbers(out) == [10, 11]


# Threads


@contextlib.contextmanager
def hammering(*works):
    """Repeats each of `works` in a thread of its own, then raises what any of them failed with."""
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
    """Waits for a condition, or for something to fail."""
    deadline = time.monotonic() + 60
    while not condition() and not failures:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


@pytest.fixture
def eager_switching():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("window", [{"stride": 1}, {"stride": 3}, {"fps": 100.0}])
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
            read = ring.read(out)
            found = numbers(out)
            assert found == list(read.sequences), "the pixels are those of the frames it says"
            assert found == sorted(found) and found[-1] > last, "windows go forward"
            if "stride" in window:
                assert set(np.diff(found)) == {window["stride"]}
            last, windows = found[-1], windows + 1
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
    """Gathering into it begins with an event and waits for another."""

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
