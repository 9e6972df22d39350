"""A stream gives the recogniser's results on the right windows, and a slow recogniser costs frames, not time."""

import threading
import time

import numpy as np
import pytest
from brightness_engine import BrightnessEngine
from bundles import FRAMES, grey, make_manifest, write_bundle
from synthetic_sources import wait_until

from vmp_edge.errors import BundleError, UsageError
from vmp_edge.recognizer import load
from vmp_edge.stream.smoothing import Smoothing
from vmp_edge.stream.stream import Stream


@pytest.fixture(autouse=True)
def open_gate():
    """No test leaves the engine stopped for the next one."""
    yield
    BrightnessEngine.gate.set()


def test_results_come_every_hop_and_are_those_of_the_window(recognizer):
    frames = [grey(value) for value in np.random.default_rng(0).integers(0, 256, 40)]
    stream = Stream(recognizer, hop=3, stride=2, smoothing=None)
    ends = []
    for index, frame in enumerate(frames):
        prediction = stream.push(frame, index / 30)
        if prediction is not None:
            ends.append(index)
            expected = recognizer.predict(np.stack(frames[index - 6 : index + 1 : 2]))
            assert prediction.label == expected.label and prediction.frame == index
            assert prediction.timestamp == index / 30
            np.testing.assert_array_equal(prediction.scores, expected.scores)
            assert stream.latest is prediction
    assert ends == list(range(6, 40, 3))
    statistics = stream.statistics()
    assert (statistics.frames, statistics.windows, statistics.dropped) == (40, len(ends), 0)
    assert 0 < statistics.latency_p50 <= statistics.latency_p95 and statistics.frames_per_second > 0


def test_frames_are_rgb_unless_said_otherwise(tmp_path):
    red_only = make_manifest()
    path = write_bundle(tmp_path / "b", red_only)
    with load(path) as recognizer:
        clip = np.zeros((FRAMES, 16, 16, 3), np.uint8)
        clip[..., 0] = np.array([10, 60, 110, 160])[:, None, None]
        expected = recognizer.predict(clip).scores
        rgb, bgr = Stream(recognizer, smoothing=None, stride=1), Stream(recognizer, smoothing=None, stride=1, bgr=True)
        for index, frame in enumerate(clip):
            predictions = rgb.push(frame, index), bgr.push(frame[..., ::-1], index), None
        np.testing.assert_array_equal(predictions[0].scores, expected)
        np.testing.assert_array_equal(predictions[1].scores, expected)


def test_the_spacing_is_the_callers_or_the_bundles_or_every_frame(tmp_path, recognizer):
    assert Stream(recognizer).window.stride == 1
    assert Stream(recognizer, stride=5).window.stride == 5
    assert Stream(recognizer, fps=5.0).window.fps == 5.0
    with pytest.raises(UsageError, match="one of them"):
        Stream(recognizer, stride=2, fps=5.0)
    with load(write_bundle(tmp_path / "b", make_manifest(frame_rate=12.5))) as timed:
        assert Stream(timed).window.fps == 12.5
        assert Stream(timed, stride=2).window == Stream(timed, stride=2, fps=None).window
        assert Stream(timed, stride=2).window.stride == 2


def test_by_fps_the_cameras_own_rate_does_not_matter(recognizer):
    """The same scene, brighter by 60 every second, filmed at three rates."""
    results = []
    for rate in (30, 60, 120):
        stream = Stream(recognizer, hop=1, fps=7.5, smoothing=None)
        for index in range(rate * 2 + 1):
            prediction = stream.push(grey(round(10 + 60 * index / rate)), index / rate) or stream.latest
        results.append(prediction.scores)
    np.testing.assert_allclose(results[1], results[0], atol=0.02)
    np.testing.assert_allclose(results[2], results[0], atol=0.02)


def test_without_timestamps_the_clock_is_used(recognizer):
    stream = Stream(recognizer, hop=1)
    before = time.monotonic()
    for value in (10, 60, 110, 160):
        prediction = stream.push(grey(value))
    assert before <= prediction.timestamp <= time.monotonic()


def test_add_and_recognise_are_push_in_two_halves(recognizer):
    frames = [grey(value) for value in np.random.default_rng(2).integers(0, 256, 15)]
    pushed, halves = Stream(recognizer, hop=3), Stream(recognizer, hop=3)
    for index, frame in enumerate(frames):
        expected = pushed.push(frame, index / 30)
        assert halves.add(frame, index / 30) == (expected is not None)
        prediction = halves.recognise()
        assert (prediction is None) == (expected is None) and halves.recognise() is None, "one result of one window"
        if expected is not None:
            assert prediction.frame == expected.frame
            np.testing.assert_array_equal(prediction.scores, expected.scores)
    with Stream(recognizer).start() as started:
        for half in (lambda: started.add(frames[0]), started.recognise):
            with pytest.raises(UsageError, match="was started"):
                half()


def test_labels_are_smoothed(recognizer):
    values = list(range(0, 200, 10))
    values[10] = 0  # one dark frame in a scene that gets brighter
    raw, smooth = [], []
    for smoothing, labels in ((None, raw), (Smoothing(windows=4, hold=3), smooth)):
        stream = Stream(recognizer, hop=1, smoothing=smoothing)
        for index, value in enumerate(values):
            prediction = stream.push(grey(value), index / 30)
            if prediction is not None:
                labels.append(prediction.label)
                assert prediction.score == prediction.scores[prediction.labels.index(prediction.label)]
    assert "darker" in raw
    assert set(smooth) == {"brighter"}


def test_reset_forgets_frames_and_scores_but_counts_on(recognizer):
    stream = Stream(recognizer, hop=1, smoothing=Smoothing(windows=50, hold=50))
    for index, value in enumerate((10, 60, 110, 160)):
        stream.push(grey(value), 100 + index)
    assert stream.latest.label == "brighter"
    stream.reset()
    assert stream.latest is None
    results = [stream.push(grey(value), index) for index, value in enumerate((160, 110, 60, 10))]
    assert results[:3] == [None] * 3 and results[3].label == "darker"
    assert stream.statistics().frames == 8 and stream.statistics().windows == 2


def test_an_array_that_is_not_a_frame_is_refused(recognizer):
    with pytest.raises(UsageError, match="frame"):
        Stream(recognizer).push(np.zeros((4, 4), np.uint8))


# With its own thread


def test_fed_in_step_it_gives_what_push_gives(recognizer):
    frames = [grey(value) for value in np.random.default_rng(1).integers(0, 256, 20)]
    pushed = Stream(recognizer, hop=2)
    expected = [p for i, frame in enumerate(frames) if (p := pushed.push(frame, i / 30)) is not None]
    predictions = []
    with Stream(recognizer, hop=2).start(predictions.append) as stream:
        for index, frame in enumerate(frames):
            stream.feed(frame, index / 30)
            due = sum(p.frame <= index for p in expected)
            wait_until(lambda due=due: len(predictions) >= due)
    assert [p.frame for p in predictions] == [p.frame for p in expected]
    assert [p.label for p in predictions] == [p.label for p in expected]
    np.testing.assert_array_equal([p.scores for p in predictions], [p.scores for p in expected])


def test_a_slow_recogniser_drops_frames_and_never_blocks_the_camera(recognizer):
    predictions = []
    with Stream(recognizer, hop=1).start(predictions.append) as stream:
        BrightnessEngine.gate.clear()
        for index in range(200):  # returns although the engine does not move
            stream.feed(grey(index), index / 30)
        assert len(predictions) == 0
        assert stream.statistics().dropped >= 200 - 3 * FRAMES
        BrightnessEngine.gate.set()
        wait_until(lambda: predictions and predictions[-1].frame == 199)
        assert predictions[-1].dropped >= 200 - 3 * FRAMES
        assert len(predictions) <= 3, "the newest window, not every window that was missed"
    statistics = stream.statistics()
    assert statistics.frames == 200 and statistics.dropped <= 200


def test_closing_finishes_the_window_that_is_due(recognizer):
    predictions = []
    stream = Stream(recognizer, hop=1).start(predictions.append)
    BrightnessEngine.gate.clear()
    for index in range(10):
        stream.feed(grey(index), index)
    closer = threading.Thread(target=stream.close)
    closer.start()
    BrightnessEngine.gate.set()
    closer.join(timeout=60)
    assert predictions[-1].frame == 9


def test_a_result_from_before_a_reset_is_not_shown_after_it(recognizer):
    predictions = []
    with Stream(recognizer, hop=1).start(predictions.append) as stream:
        BrightnessEngine.gate.clear()
        for index in range(FRAMES):
            stream.feed(grey(index), index)
        wait_until(lambda: not stream._ring.due())  # the window is being recognised
        stream.reset()
        BrightnessEngine.gate.set()
        time.sleep(0.05)
        assert stream.latest is None
    assert predictions == []


def test_endless_timestamps_do_not_spoil_a_stream(recognizer):
    stream = Stream(recognizer, hop=1, stride=1, smoothing=Smoothing(seconds=0.5), motion_gate=True)
    last = None
    for index in range(20):
        if index % 3 == 0:
            for wrong in (float("inf"), float("-inf"), float("nan")):
                with pytest.raises(UsageError, match="finite"):
                    stream.push(grey(index), wrong)
        last = stream.push(grey(10 * index), index / 10) or last
    assert last is not None and np.isfinite(last.scores).all() and last.timestamp == 1.9


def test_no_callback_comes_with_a_result_from_before_a_reset(recognizer):
    """`reset` waits for a callback that has begun, and a result that comes later is dropped."""
    seen, inside, leave = [], threading.Event(), threading.Event()

    def on_prediction(prediction):
        inside.set()
        leave.wait(60)
        seen.append(prediction.timestamp)

    with Stream(recognizer, hop=1, stride=1).start(on_prediction) as stream:
        for index in range(FRAMES):
            stream.feed(grey(0), float(index))
        assert inside.wait(60)
        resetting = threading.Thread(target=stream.reset)
        resetting.start()
        resetting.join(0.05)
        assert resetting.is_alive() and not seen
        leave.set()
        resetting.join(60)
        assert seen == [FRAMES - 1]
        for number in range(200):
            earliest = 1000.0 * (number + 1)
            seen.clear()
            for index in range(FRAMES + 2):
                stream.feed(grey(0), earliest + index)
            stream.reset()
            given = len(seen)
            time.sleep(0.0005)
            assert len(seen) == given and all(timestamp >= earliest for timestamp in seen)


def test_a_callback_may_reset_its_stream(recognizer):
    seen = []

    def on_prediction(prediction):
        stream.reset()
        seen.append(prediction.frame)

    with Stream(recognizer, hop=1, stride=1) as stream:
        stream.start(on_prediction)
        for index in range(FRAMES):
            stream.feed(grey(0), float(index))
        wait_until(lambda: seen)
    assert seen == [FRAMES - 1] and stream.latest is None


def test_streams_of_one_recogniser_take_turns_and_read_their_windows_then(tmp_path):
    """A window has the newest frames of when its turn comes, not of when the stream began to wait."""
    with load(write_bundle(tmp_path / "b")) as recognizer:
        streams = [Stream(recognizer, hop=1, stride=1) for _ in range(3)]
        ends: dict[int, list[int]] = {index: [] for index in range(3)}
        BrightnessEngine.gate.clear()  # the first has its turn now, the others wait
        for number, stream in enumerate(streams):
            stream.start(lambda prediction, number=number: ends[number].append(prediction.frame))
            for index in range(FRAMES):
                stream.feed(grey(0), float(index))
            wait_until(lambda number=number: len(recognizer.turn()._waiting) == number)
            time.sleep(0.01)
        for stream in streams:
            for index in range(FRAMES, FRAMES + 10):
                stream.feed(grey(0), float(index))
        BrightnessEngine.gate.set()
        for stream in streams:
            stream.close()
    assert ends[0][0] == FRAMES - 1  # it had read its window
    assert ends[1][0] == ends[2][0] == FRAMES + 9


def test_an_error_of_the_engine_reaches_the_camera_thread(tmp_path):
    path = write_bundle(tmp_path / "b", fails_after=1)
    with load(path) as recognizer:
        stream = Stream(recognizer, hop=1).start()

        def feed_for_long():
            for index in range(100000):
                stream.feed(grey(index % 200), float(index))

        with pytest.raises(BundleError, match="the engine broke"):
            feed_for_long()
        with pytest.raises(BundleError, match="the engine broke"):
            stream.close()


def test_push_and_feed_do_not_mix(recognizer):
    stream = Stream(recognizer)
    with pytest.raises(UsageError, match="not started"):
        stream.feed(grey(1))
    with stream.start():
        with pytest.raises(UsageError, match="was started"):
            stream.push(grey(1))
        with pytest.raises(UsageError, match="already"):
            stream.start()
