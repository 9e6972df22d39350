"""The C library: its verbs, and that it streams as Python does. On an engine that needs nothing."""

from __future__ import annotations

import ctypes
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from brightness_engine import LABELS
from bundles import FRAMES, SIZE, grey
from embedded import (
    ARGUMENT,
    CALLBACK,
    ENGINE,
    OK,
    STATE,
    fails,
    frame_of,
    write_fake,
)

from vmp_edge.bundle.reading import Bundle
from vmp_edge.recognizer import Recognizer
from vmp_edge.stream.smoothing import Smoothing
from vmp_edge.stream.stream import Stream


class FakeEngine:
    """fake_engine.c in numpy."""

    def run(self, video):
        mean = video.astype(np.float64).mean((1, 2, 3, 4))
        return np.stack([-mean, 1 - mean * mean, mean], 1).astype(np.float32)

    def close(self):
        pass


def flicker(count, seed=0):
    """Frames whose brightness wanders, with their timestamps at an uneven 30 frames per second."""
    rng = np.random.default_rng(seed)
    values = np.clip(120 + np.cumsum(rng.normal(0, 25, count)), 0, 255).astype(int)
    times = np.cumsum(rng.uniform(0.02, 0.05, count))
    return [(grey(value), float(moment)) for value, moment in zip(values, times, strict=True)]


def test_versions(edge):
    assert edge.c.vmp_edge_abi_version() == 1
    assert edge.c.vmp_edge_version().decode().count(".") == 2
    assert [edge.c.vmp_edge_status_name(status) for status in (0, 2, 99)] == [b"ok", b"bundle", b"unknown"]


def test_info_and_labels(edge, loaded, fake):
    info = edge.info(loaded)
    assert (info.frames, info.image_size, info.classes, info.frame_rate) == (FRAMES, SIZE, 3, 0)
    assert (info.name, info.engine, info.precision) == (b"brightness", b"executorch", b"fp32")
    labels = [edge.c.vmp_edge_recognizer_label(loaded, index) for index in range(-1, 4)]
    assert labels == [None, *(label.encode() for label in LABELS), None]


def test_features_after_the_logits_are_left_alone(edge, engine_folder, tmp_path):
    """A bundle for `vmp-edge enroll`: the same classes and scores as without features."""
    clip, found = np.stack([grey(20 * index) for index in range(FRAMES)]), []
    for features in (0, 5):
        path = write_fake(tmp_path / str(features), engine_folder, features=features)
        handle = edge.recognizer(path, engine_folder)
        assert edge.info(handle).classes == 3
        found.append(edge.predict(handle, clip)["scores"])
        edge.c.vmp_edge_recognizer_destroy(handle)
    np.testing.assert_array_equal(*found)
    assert found[0].sum() == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_predicts_clips_as_python_does(edge, loaded, fake, count):
    clip = np.stack([grey(20 * index, 20, 31) for index in range(count)])
    ours = edge.predict(loaded, clip, top=2)
    theirs = Recognizer(Bundle.open(fake), FakeEngine()).predict(clip)
    np.testing.assert_allclose(ours["scores"], theirs.scores, atol=1e-6)
    assert (ours["name"], [name for name, _ in ours["top"]]) == (theirs.label, [name for name, _ in theirs.top(2)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hop": 1},
        {"hop": 7, "stride": 2},
        {"fps": 12.0},
        {"fps": 60.0, "hop": 2},
        {"smoothing_windows": 0, "smoothing_margin": 0, "smoothing_hold": 1},
        {"smoothing_seconds": 0.4, "smoothing_margin": 0.2, "smoothing_hold": 3},
    ],
)
def test_streams_as_python_does(edge, stream, fake, options):
    how = {key.removeprefix("smoothing_"): value for key, value in options.items() if key.startswith("smoothing")}
    spacing = {key: value for key, value in options.items() if key in ("hop", "stride", "fps")}
    theirs = Stream(Recognizer(Bundle.open(fake), FakeEngine()), **spacing, smoothing=replace(Smoothing(), **how))
    ours, results = stream(**options), 0
    for frame, moment in flicker(200):
        edge.push(ours, frame, moment)
        expected = theirs.push(frame, moment)
        assert edge.c.vmp_edge_stream_is_ready(ours) == (expected is not None)
        result = edge.get_result(ours)
        assert (result is None) == (expected is None)
        if result is not None and expected is not None:
            results += 1
            assert (result["name"], result["frame"], result["dropped"]) == (
                expected.label,
                expected.frame,
                expected.dropped,
            )
            assert result["timestamp"] == moment and result["first_timestamp"] < moment
            np.testing.assert_allclose(result["scores"], expected.scores, atol=1e-5)
    found, wanted = edge.statistics(ours), theirs.statistics()
    assert (found.frames, found.dropped, found.windows) == (wanted.frames, wanted.dropped, wanted.windows)
    assert results == found.windows > 10 and found.push_p95 >= found.push_p50 > 0


def test_json(edge, stream):
    ours = stream(hop=1, top=2)
    for index in range(FRAMES):
        edge.push(ours, grey(255), index / 4)
    result = edge.get_result(ours)
    told = json.loads(result["json"])
    assert list(told) == ["time", "frame", "label", "score", "top", "latency_ms", "dropped"]
    assert told["label"] == LABELS[2] == told["top"][0][0] and len(told["top"]) == 2
    assert (told["time"], told["frame"], told["dropped"]) == (0.75, 3, 0)


def test_reset_forgets_frames_and_lets_time_start_again(edge, stream):
    ours = stream(hop=1)
    for index in range(FRAMES):
        edge.push(ours, grey(0), 100 + index)
    assert edge.c.vmp_edge_stream_reset(ours) == OK
    assert edge.get_result(ours) is None
    for index in range(FRAMES):
        edge.push(ours, grey(255), float(index))
    assert edge.get_result(ours)["name"] == LABELS[2]
    assert edge.statistics(ours).frames == 2 * FRAMES


def test_callback_from_a_thread_of_its_own(edge, stream):
    seen = []
    callback = CALLBACK(lambda result, message, user: seen.append((result.contents.frame, threading.get_native_id())))
    ours = stream(hop=2)
    edge.check(edge.c.vmp_edge_stream_start(ours, callback, None))
    for index in range(20):
        edge.push(ours, grey(100), float(index))
        while not index % 2 and index > FRAMES and (not seen or seen[-1][0] < index - 2):
            time.sleep(0.001)
    edge.check(edge.c.vmp_edge_stream_stop(ours))
    assert seen[-1][0] >= 18 and len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_native_id()
    with fails(edge, STATE, "not started"):
        edge.check(edge.c.vmp_edge_stream_stop(ours))


def test_results_by_asking_while_a_thread_recognises(edge, stream):
    ours = stream(hop=1)
    edge.check(edge.c.vmp_edge_stream_start(ours, CALLBACK(), None))
    for index in range(FRAMES):
        edge.push(ours, grey(255), float(index))
    while not edge.c.vmp_edge_stream_is_ready(ours):
        time.sleep(0.001)
    assert edge.get_result(ours)["name"] == LABELS[2]
    assert edge.get_result(ours) is None
    with fails(edge, STATE, "started already"):
        edge.check(edge.c.vmp_edge_stream_start(ours, CALLBACK(), None))


def test_overload_drops_and_counts_and_never_waits(edge, engine_folder, tmp_path):
    slow = edge.recognizer(write_fake(tmp_path / "slow", engine_folder, program="300 0"), engine_folder)
    ours = edge.stream(slow, hop=1)
    edge.check(edge.c.vmp_edge_stream_start(ours, CALLBACK(), None))
    start = time.perf_counter()
    for index in range(1000):
        edge.push(ours, grey(index % 256), float(index))
    pushing = time.perf_counter() - start
    edge.check(edge.c.vmp_edge_stream_stop(ours))
    found = edge.statistics(ours)
    # one run takes 0.3 s: had pushing waited for each, it would have taken five minutes
    assert found.frames == 1000 and found.windows <= 3 + pushing / 0.3
    assert 1000 - found.windows * FRAMES - FRAMES <= found.dropped <= 1000 - FRAMES
    edge.c.vmp_edge_stream_destroy(ours)
    edge.c.vmp_edge_recognizer_destroy(slow)


def test_failure_of_the_engine(edge, engine_folder, tmp_path):
    failing = edge.recognizer(write_fake(tmp_path / "failing", engine_folder, program="0 2"), engine_folder)
    ours = edge.stream(failing, hop=1)
    for index in range(FRAMES):
        edge.push(ours, grey(0), float(index))
    assert edge.get_result(ours) is not None
    edge.push(ours, grey(0), 10.0)
    with fails(edge, ENGINE, "told to fail"):
        edge.get_result(ours)
    messages = []
    callback = CALLBACK(lambda result, message, user: messages.append((bool(result), message)))
    edge.check(edge.c.vmp_edge_stream_start(ours, callback, None))
    edge.push(ours, grey(0), 11.0)
    while not messages:
        time.sleep(0.001)
    assert messages == [(False, b"running the model failed: it was told to fail")]
    with fails(edge, ENGINE, "told to fail"):
        edge.check(edge.c.vmp_edge_stream_stop(ours))
    edge.c.vmp_edge_stream_destroy(ours)
    edge.c.vmp_edge_recognizer_destroy(failing)


def test_streams_outlive_their_recogniser(edge, fake, engine_folder):
    recognizer = edge.recognizer(fake, engine_folder)
    ours = edge.stream(recognizer, hop=1)
    edge.c.vmp_edge_recognizer_destroy(recognizer)
    for index in range(FRAMES):
        edge.push(ours, grey(255), float(index))
    assert edge.get_result(ours)["name"] == LABELS[2]
    edge.c.vmp_edge_stream_destroy(ours)


def test_callback_destroys_its_stream(edge, loaded):
    """Afterwards the handle is refused, from every thread, and there are no more callbacks."""
    handle, calls, gone = edge.stream(loaded, hop=1), [], threading.Event()

    def called(result, message, user):
        calls.append(edge.c.vmp_edge_stream_stop(handle))
        edge.c.vmp_edge_stream_destroy(handle)
        gone.set()

    callback = CALLBACK(called)
    edge.check(edge.c.vmp_edge_stream_start(handle, callback, None))
    frame = frame_of(grey(0))
    while not gone.is_set():
        edge.c.vmp_edge_stream_push(handle, ctypes.byref(frame))
    with fails(edge, ARGUMENT, "destroyed"):
        edge.check(edge.c.vmp_edge_stream_push(handle, ctypes.byref(frame)))
    time.sleep(0.05)
    assert calls == [STATE]


def test_reset_waits_for_the_callback(edge, stream):
    inside, leave = threading.Event(), threading.Event()

    def called(result, message, user):
        inside.set()
        leave.wait(60)

    callback, ours = CALLBACK(called), stream(hop=1)
    edge.check(edge.c.vmp_edge_stream_start(ours, callback, None))
    for index in range(FRAMES):
        edge.push(ours, grey(0), float(index))
    assert inside.wait(60)
    resetting = threading.Thread(target=edge.c.vmp_edge_stream_reset, args=(ours,))
    resetting.start()
    resetting.join(0.05)
    assert resetting.is_alive()
    leave.set()
    resetting.join(60)
    assert not resetting.is_alive()


def test_streams_take_turns_and_read_their_windows_then(edge, engine_folder, tmp_path):
    """Each result is of frames that are about as old as one run, even though the stream waited for three others."""
    slow = edge.recognizer(write_fake(tmp_path / "slow", engine_folder, program="100 0"), engine_folder)
    streams, ages = [edge.stream(slow, hop=1, stride=1) for _ in range(4)], []

    def called(result, message, user):
        ages.append(time.monotonic() - result.contents.timestamp)

    callback = CALLBACK(called)
    for one in streams:
        edge.check(edge.c.vmp_edge_stream_start(one, callback, None))
    while len(ages) < 24:
        for one in streams:
            edge.push(one, grey(0))
        time.sleep(0.005)
    windows = [edge.statistics(one).windows for one in streams]
    latency = edge.statistics(streams[0]).latency_p50
    for one in streams:
        edge.c.vmp_edge_stream_destroy(one)
    edge.c.vmp_edge_recognizer_destroy(slow)
    assert max(windows) - min(windows) <= 2
    assert np.median(ages) < latency * 0.75  # the latency has the waiting in it: 4 runs, of which the age has one


def test_frames_keep_their_timestamps_by_the_clock(edge, stream):
    ours = stream(hop=1)
    for _ in range(FRAMES):
        edge.push(ours, grey(0))
    assert abs(edge.get_result(ours)["timestamp"] - time.monotonic()) < 60
