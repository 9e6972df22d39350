"""A stream takes the frames that a model was trained on: T frames over the span of seconds in the manifest."""

import numpy as np
import pytest
from bundles import grey, make_manifest, write_bundle
from numbered_frames import make_ring, numbered, numbers

from vmp_edge import StreamOptions
from vmp_edge.errors import UsageError
from vmp_edge.recognizer import load
from vmp_edge.stream import Stream
from vmp_edge.stream.governor import Budget
from vmp_edge.stream.window import Window


def sparse(frames, span, hop=4):
    return make_ring(frames, fps=frames / span, hop=hop, sparse=True)


@pytest.fixture
def kinetics(tmp_path):
    """A recogniser of 4 frames over 10 seconds."""
    with load(write_bundle(tmp_path / "b", make_manifest(span=10.0))) as recognizer:
        yield recognizer


def test_eight_frames_over_ten_seconds_are_not_eight_neighbours():
    ring, out = sparse(8, 10.0, hop=300)
    for sequence in range(301):  # 10 seconds at 30 frames a second
        ring.push(numbered(sequence), sequence / 30)
        if ring.due():
            window = ring.read(out)
            assert numbers(out) == list(window.sequences) == [0, 38, 75, 113, 150, 188, 225, 261]
    assert ring.pushed == 301 and ring.dropped == 0
    assert len(ring._slots) == 19 and len(ring._kept) <= 10, "of the 300 frames of ten seconds"


@pytest.mark.parametrize("camera, frames, span", [(30, 8, 10), (30, 64, 10), (25, 16, 4), (12.5, 32, 10), (60, 8, 4)])
@pytest.mark.parametrize("hop", [1, 7])
def test_windows_are_within_half_a_period_of_those_of_a_ring_with_all_frames(camera, frames, span, hop):
    ring, out = sparse(frames, float(span), hop)
    random = np.random.default_rng(frames + hop)
    everything = Window(frames, stride=None, fps=frames / span, hop=hop)
    times, read = [], 0
    for sequence in range(int(2.5 * span * camera)):
        times.append(sequence / camera + random.uniform(-0.2, 0.2) / camera)
        ring.push(numbered(sequence), times[-1])
        if ring.due():
            window = ring.read(out)
            assert numbers(out) == list(window.sequences)
            expected = np.array(times)[everything.select(times)]
            assert window.sequences[-1] == sequence, "the newest frame is in every window"
            period = span / frames
            assert np.abs(window.timestamps - expected).max() <= period / 2 + 1.5 / camera
            steps = np.diff(window.timestamps[:-1])
            assert np.abs(steps - period).max() <= 1.5 / camera, "all the others are equally spaced"
            assert len(set(window.sequences)) == frames
            read += 1
    assert read == pytest.approx(1.5 * span * camera / hop, rel=0.15) and ring.dropped == 0


def test_only_frames_that_a_window_can_take_are_prepared(monkeypatch):
    ring, out = sparse(8, 10.0, hop=150)
    written = []
    write = type(ring._slots).write
    monkeypatch.setattr(type(ring._slots), "write", lambda self, *a: (written.append(1), write(self, *a)))
    for sequence in range(3000):
        ring.push(numbered(sequence), sequence / 30)
        if ring.due():
            ring.read(out)
    assert 80 + 18 <= len(written) <= 80 + 20, "one of each 1.25 s, and one for each window"


def test_a_slow_recogniser_gets_the_newest_frame():
    ring, out = sparse(4, 4.0, hop=2)
    for sequence in range(200):
        ring.push(numbered(sequence), sequence / 30)
    assert ring.read(out).sequences == (120, 150, 180, 199)
    assert not ring.due()
    for sequence in range(200, 203):
        ring.push(numbered(sequence), sequence / 30)
    assert ring.due() and ring.read(out).sequences[-1] == 202


def test_a_gap_and_a_slow_camera_cost_no_memory():
    ring, out = sparse(4, 4.0, hop=1)
    times = [*np.arange(0, 5, 0.1), *np.arange(60, 66, 0.1), *np.arange(70, 90, 3.0)]
    for sequence, time in enumerate(times):
        ring.push(numbered(sequence), time)
        if ring.due():
            ring.read(out)
        assert len(ring._kept) <= 6
    assert ring.read(out).timestamps == (85.0, 85.0, 88.0, 88.0)


def test_what_moves_in_frames_that_are_not_kept_counts():
    ring, _ = sparse(2, 2.0, hop=1)
    motions = []
    for sequence in range(120):
        ring.push(numbered(sequence), sequence / 30, change=9.0 if sequence == 50 else 0.0)
        ring.skip(lambda motion, timestamp: motions.append(motion) or True)
    assert motions.count(9.0) >= 25 and motions[-1] == 0.0


def test_the_stream_follows_the_manifest(kinetics):
    stream = Stream(kinetics)
    assert (stream.window.fps, stream.window.sparse, stream.window.hop) == (0.4, True, 4)
    assert Stream(kinetics, stride=2).window == Window(4, stride=2)
    assert Stream(kinetics, fps=5.0).window == Window(4, stride=None, fps=5.0)
    recent = Stream(kinetics, sampling="recent").window
    assert (recent.fps, recent.sparse) == (0.4, False), "it chooses among more frames"
    for frame in range(330):
        stream.push(grey(frame % 256), frame / 30)
    assert stream.latest is not None
    assert stream.memory == 11 * 3 * 16 * 16 * 4


def test_a_span_and_its_frame_rate_are_one_spacing():
    assert StreamOptions().window(8, None, 10.0) == Window(8, stride=None, fps=0.8, sparse=True)
    assert StreamOptions().window(8, 0.8, None) == Window(8, stride=None, fps=0.8)
    assert StreamOptions().window(8, None, None) == Window(8, stride=1)


def test_sparse_windows_are_by_time():
    for options in ({}, {"stride": None, "fps": 1.0, "sampling": "recent"}):
        with pytest.raises(UsageError, match="sparse"):
            Window(4, sparse=True, **options)


def test_a_governor_goes_on_with_windows_of_the_span(kinetics):
    stream = Stream(kinetics, budget=Budget(0.05))
    assert stream.window.sparse and stream.window.fps == 0.4
    time = 0.0
    for level in reversed(stream._governor.levels):
        stream._change(level)
        assert stream.window.sparse and stream.window.fps == 0.4 / level.slower
        latest = stream.latest
        for _ in range(1000):
            stream.add(grey(7), time)
            stream.recognise()
            time += 1 / 30
        assert stream.latest is not latest


@pytest.mark.parametrize("options", [{"fps": 0.4, "sparse": True}, {"fps": 0.4}, {"fps": 0.4, "sampling": "recent"}])
def test_how_much_of_the_first_window_is_there(options):
    ring, out = make_ring(4, hop=1, **options)
    assert ring.filled == 0.0 and ring.window.reach == 7.5
    shares = []
    for sequence in range(240):
        ring.push(numbered(sequence), 100 + sequence / 30)
        shares.append(ring.filled)
        assert (ring.filled == 1.0) == ring.due()
    assert shares[0] == 0.0 and shares == sorted(shares), "it only grows"
    assert np.abs(np.diff(shares[:220])).max() < 0.01, "and it grows evenly"
    ring.read(out)
    assert ring.filled == 1.0, "from the first window on"
    ring.clear()
    assert ring.filled == 0.0


def test_a_window_of_neighbours_fills_frame_by_frame():
    (ring, _), shares = make_ring(4, stride=2), []
    for sequence in range(8):
        ring.push(numbered(sequence), 0.0)
        shares.append(round(ring.filled, 2))
    assert shares == [0.14, 0.29, 0.43, 0.57, 0.71, 0.86, 1.0, 1.0] and ring.window.reach is None
    single, _ = make_ring(1, fps=2.0)
    assert single.filled == 0.0
    single.push(numbered(0), 5.0)
    assert single.filled == 1.0


def test_the_statistics_say_how_full_the_window_is(kinetics):
    stream = Stream(kinetics)
    stream.push(grey(0), 0.0)
    stream.push(grey(0), 3.0)
    assert stream.statistics().filled == stream.filled == pytest.approx(3.0 / 7.375)
