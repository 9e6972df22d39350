"""Windows over a span of seconds: the C library takes the same frames as Python, and keeps as few."""

from __future__ import annotations

import numpy as np
import pytest
from bundles import FRAMES, grey
from embedded import write_fake
from odd_clocks import cases, in_c

from vmp_edge.bundle.reading import Bundle
from vmp_edge.recognizer import Recognizer
from vmp_edge.stream.stream import Stream


class FakeEngine:
    """fake_engine.c in numpy."""

    def run(self, video):
        mean = video.astype(np.float64).mean((1, 2, 3, 4))
        return np.stack([-mean, 1 - mean * mean, mean], 1).astype(np.float32)

    def close(self):
        pass


def uneven(rate, count, seed):
    """Timestamps at an uneven rate, with two gaps, one of them longer than most windows."""
    rng = np.random.default_rng(seed)
    steps = rng.uniform(0.6, 1.4, count) / rate
    steps[count // 3] = 1.7
    steps[count // 2] = 30.0
    return np.cumsum(steps).tolist()


@pytest.mark.parametrize("rate, span", [(30, 10.0), (30, 2.0), (12, 1.0), (2, 1.0), (120, 3.3)])
@pytest.mark.parametrize("hop", [1, 5, 40])
def test_the_same_frames_as_in_python(edge, engine_folder, tmp_path, rate, span, hop):
    path = write_fake(tmp_path / "b", engine_folder, span=span)
    recognizer = edge.recognizer(path, engine_folder)
    ours = edge.stream(recognizer, hop=hop, smoothing_windows=0, smoothing_margin=0, smoothing_hold=1)
    theirs = Stream(Recognizer(Bundle.open(path), FakeEngine()), hop=hop, smoothing=None)
    rng, results = np.random.default_rng(hop), 0
    for moment in uneven(rate, 1200, seed=rate):
        frame = grey(int(rng.integers(256)))
        edge.push(ours, frame, moment)
        expected = theirs.push(frame, moment)
        result = edge.get_result(ours)
        assert (result is None) == (expected is None)
        if result is not None and expected is not None:
            results += 1
            assert (result["frame"], result["timestamp"], result["dropped"]) == (expected.frame, moment, 0)
            np.testing.assert_allclose(result["scores"], expected.scores, atol=1e-6)
    assert results > 10 and theirs.statistics().dropped == 0
    edge.c.vmp_edge_stream_destroy(ours)
    edge.c.vmp_edge_recognizer_destroy(recognizer)


def test_windows_reach_over_the_span(edge, engine_folder, tmp_path):
    recognizer = edge.recognizer(write_fake(tmp_path / "b", engine_folder, span=10.0), engine_folder)
    assert edge.info(recognizer).frame_rate == FRAMES / 10
    stream, first = edge.stream(recognizer, hop=1), []
    for index in range(600):
        edge.push(stream, grey(index % 256), index / 30)
        if (result := edge.get_result(stream)) is not None:
            first.append(result["timestamp"] - result["first_timestamp"])
    assert 600 - 30 * 7.5 <= len(first) <= 600 - 30 * 7.3, "the first one after 2.95 of its 4 periods of 2.5 s"
    assert min(first) >= 6.2 and max(first) <= 8.8, "three periods, and at most half a period more or less"
    for options in ({"fps": 10.0}, {"stride": 2}):
        other = edge.stream(recognizer, hop=1, **options)
        for index in range(60):
            edge.push(other, grey(0), index / 30)
        found = edge.get_result(other)
        assert found["timestamp"] - found["first_timestamp"] == pytest.approx(0.2 if "stride" in options else 0.3)
        edge.c.vmp_edge_stream_destroy(other)
    edge.c.vmp_edge_stream_destroy(stream)
    edge.c.vmp_edge_recognizer_destroy(recognizer)


def test_odd_cameras_and_slow_recognisers_get_the_same_windows_in_c(built):
    """One frame a second and 240, jitter, bursts, stalls, time that goes back, resets, and windows read late."""
    made = cases(150, seed=17)
    read = refused = repeated = 0
    for case, found in zip(made, in_c(built / "windows", made), strict=True):
        expected = case.in_python()
        assert found == expected, case.window
        for line in expected[:-1]:
            refused += line == "!"
            if line not in "!-":
                read += 1
                sequences = [int(word) for word in line.split()]
                assert sequences == sorted(sequences) and len(sequences) == case.window.frames
                repeated += len(set(sequences)) < len(sequences)
    assert read > 5000 and refused > 500 and repeated > 100, "all of it occurs"
