"""The C library: its verbs, its errors, and that it streams as Python does. On an engine that needs nothing."""

from __future__ import annotations

import ctypes
import json
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from brightness_engine import LABELS
from bundles import FRAMES, SIZE, grey
from embedded import (
    ARGUMENT,
    BUNDLE,
    CALLBACK,
    ENGINE,
    MACHINE,
    OK,
    STATE,
    STREAM_DEFAULTS,
    EdgeError,
    Info,
    RecognizerConfig,
    ResultStruct,
    Statistics,
    StreamConfig,
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


@pytest.fixture
def stream(edge, loaded):
    handles = []

    def make(**options):
        handles.append(edge.stream(loaded, **options))
        return handles[-1]

    yield make
    for handle in handles:
        edge.c.vmp_edge_stream_destroy(handle)


def fails(edge, status, *words):
    """An EdgeError of a status whose message is one line with these words."""

    class Expecting:
        def __enter__(self):
            return self

        def __exit__(self, kind, error, trace):
            assert kind is EdgeError, "nothing failed"
            assert error.status == status, error
            assert "\n" not in str(error) and str(error)
            assert all(word in str(error) for word in words), error
            return True

    return Expecting()


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


def test_null_everywhere(edge, loaded, stream):
    c, place = edge.c, ctypes.c_void_p()
    config, how = RecognizerConfig(ctypes.sizeof(RecognizerConfig)), StreamConfig(ctypes.sizeof(StreamConfig), 4)
    calls = [
        (c.vmp_edge_recognizer_create, (None, ctypes.byref(place))),
        (c.vmp_edge_recognizer_create, (ctypes.byref(config), ctypes.byref(place))),
        (c.vmp_edge_recognizer_get_info, (None, None)),
        (c.vmp_edge_recognizer_get_info, (loaded, None)),
        (c.vmp_edge_recognizer_predict, (loaded, None, 1, 1, ctypes.byref(place))),
        (c.vmp_edge_recognizer_predict, (None, None, 1, 1, None)),
        (c.vmp_edge_stream_create, (None, ctypes.byref(how), ctypes.byref(place))),
        (c.vmp_edge_stream_create, (loaded, None, ctypes.byref(place))),
        (c.vmp_edge_stream_push, (None, None)),
        (c.vmp_edge_stream_push, (stream(), None)),
        (c.vmp_edge_stream_get_result, (stream(), None)),
        (c.vmp_edge_stream_get_result, (None, ctypes.byref(place))),
        (c.vmp_edge_stream_start, (None, None, None)),
        (c.vmp_edge_stream_stop, (None,)),
        (c.vmp_edge_stream_reset, (None,)),
        (c.vmp_edge_stream_get_statistics, (stream(), None)),
        (c.vmp_edge_result_to_json, (None, ctypes.byref(place))),
    ]
    for call, arguments in calls:
        with fails(edge, ARGUMENT, "NULL"):
            edge.check(call(*arguments))
    assert c.vmp_edge_stream_is_ready(None) == 0 and c.vmp_edge_recognizer_label(None, 0) is None
    for destroy in ("recognizer", "stream", "result", "string"):
        getattr(c, f"vmp_edge_{destroy}_destroy")(None)
    assert not place


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"struct_size": 0}, "struct_size of 0"),
        ({"struct_size": 20}, "struct_size of 20"),
        ({"struct_size": 4096}, "newer version"),
        ({"format": 7}, "format is 7"),
        ({"format": 5}, "format is 5"),
        ({"format": -1}, "format is -1"),
        ({"format": -(1 << 31)}, "format"),
        ({"width": 0}, "pixels"),
        ({"height": -5}, "pixels"),
        ({"width": 1 << 20}, "pixels"),
        ({"format": 3, "width": 31}, "even"),
        ({"format": 3, "height": 23}, "even"),
        ({"format": 3}, "data[1] is NULL"),
        ({"stride": (ctypes.c_int32 * 2)(10, 0)}, "stride"),
        ({"timestamp": float("nan")}, "finite"),
        ({"timestamp": float("inf")}, "finite"),
        ({"timestamp": float("-inf")}, "finite"),
        ({"timestamp": 1.7e12}, "seconds"),  # milliseconds since 1970
        ({"timestamp": 1e308}, "seconds"),
        ({"timestamp": 0.5}, "backwards"),
    ],
)
def test_wrong_frames(edge, stream, changes, words):
    ours = stream()
    edge.push(ours, grey(0), 1.0)
    frame = frame_of(grey(0), 2.0)
    for name, value in changes.items():
        setattr(frame, name, value)
    with fails(edge, ARGUMENT, words):
        edge.check(edge.c.vmp_edge_stream_push(ours, ctypes.byref(frame)))
    edge.push(ours, grey(0), 2.0)  # goes on
    assert edge.statistics(ours).frames == 2


@pytest.mark.parametrize(
    "options, word",
    [
        ({"struct_size": 400}, "newer"),
        ({"hop": 0}, "hop"),
        ({"stride": -1}, "stride"),
        ({"stride": 2, "fps": 5.0}, "not both"),
        ({"fps": float("inf")}, "fps"),
        ({"fps": -1.0}, "fps"),
        ({"stride": 1 << 30}, "window"),
        ({"smoothing_windows": -1.0}, "smoothing_windows"),
        ({"smoothing_margin": 1.0}, "smoothing_margin"),
        ({"smoothing_hold": 0}, "smoothing_hold"),
        ({"top": -1}, "top"),
    ],
)
def test_wrong_streams(edge, stream, options, word):
    with fails(edge, ARGUMENT, word):
        stream(**options)


def calls_with_structs(edge, loaded, stream, result):
    """Pairs of a struct and a function that passes it to the library and returns the status."""
    place, c, by = ctypes.c_void_p(), edge.c, ctypes.byref
    config = RecognizerConfig(ctypes.sizeof(RecognizerConfig), b"nowhere")
    how, info, statistics = StreamConfig(0, **STREAM_DEFAULTS), Info(), Statistics()
    frame = frame_of(grey(0), 5.0)
    return [
        (config, lambda: c.vmp_edge_recognizer_create(by(config), by(place))),
        (how, lambda: c.vmp_edge_stream_create(loaded, by(how), by(place))),
        (info, lambda: c.vmp_edge_recognizer_get_info(loaded, by(info))),
        (statistics, lambda: c.vmp_edge_stream_get_statistics(stream, by(statistics))),
        (frame, lambda: c.vmp_edge_stream_push(stream, by(frame))),
        (frame, lambda: c.vmp_edge_recognizer_predict(loaded, by(frame), 1, 1, by(place))),
        (result, lambda: c.vmp_edge_result_to_json(by(result), by(place))),
    ]


def test_a_struct_has_a_size_that_a_version_of_the_header_gives_it(edge, loaded, stream):
    """Any other size would cut a member in two: half of a pointer is a wrong address."""
    ours = stream(hop=1)
    for struct, call in calls_with_structs(edge, loaded, ours, ResultStruct()):
        for size in {*range(ctypes.sizeof(struct)), ctypes.sizeof(struct) + 1, ctypes.sizeof(struct) + 8, 0xFFFFFFFF}:
            struct.struct_size = size
            with fails(edge, ARGUMENT, "newer" if size > ctypes.sizeof(struct) else f"struct_size of {size},"):
                edge.check(call())
            assert struct.struct_size == size
    assert edge.statistics(ours).frames == 0


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


def test_use_after_destroy(edge, loaded, fake, engine_folder):
    recognizer = edge.recognizer(fake, engine_folder)
    ours = edge.stream(recognizer)
    edge.c.vmp_edge_stream_destroy(ours)
    with fails(edge, ARGUMENT, "destroyed"):
        edge.push(ours, grey(0))
    edge.c.vmp_edge_stream_destroy(ours)  # twice: nothing happens
    edge.c.vmp_edge_recognizer_destroy(recognizer)
    with fails(edge, ARGUMENT, "destroyed"):
        edge.stream(recognizer)


def rewrite(bundle, change):
    """Changes a bundle's manifest."""
    path = bundle / "manifest.yaml"
    entries = yaml.safe_load(path.read_text())
    change(entries)
    path.write_text(yaml.safe_dump(entries, sort_keys=False))


def set_at(*keys, value):
    def change(entries):
        for key in keys[:-1]:
            entries = entries[key]
        entries[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change, status, words",
    [
        (set_at("format", value=2), BUNDLE, "without --per-frame"),
        (set_at("format", value=3), BUNDLE, "lacks 'sampling'"),
        (set_at("format", value=4), BUNDLE, "causal model, whose steps this library does not run yet"),
        (set_at("format", value=5), BUNDLE, "update"),
        (set_at("states", value={"h-0": [1]}), BUNDLE, "has 'states', which is for format 4"),
        (set_at("model", "causal", value=True), BUNDLE, "lacks 'states'"),
        (set_at("sampling", value={"frames": 4, "span": 10.0}), BUNDLE, "has 'sampling', which is for format 3"),
        (set_at("format", value="one"), BUNDLE, "whole number"),
        (set_at("machine", value="s390x"), MACHINE, "s390x"),
        (set_at("cpu_features", value=["telepathy"]), MACHINE, "telepathy"),
        (set_at("engine", value="onnxruntime"), ENGINE, "onnxruntime"),
        (set_at("labels", value=["a", "b"]), BUNDLE, "num_classes"),
        (set_at("labels", value=["a", True, "c"]), BUNDLE, "texts"),
        (set_at("labels", value=[]), BUNDLE, "neither labels nor features"),
        (set_at("input", value=[]), BUNDLE, "mapping for input"),
        (set_at("input", "frames", value=0), BUNDLE, "input.frames"),
        (set_at("preprocessing", "std", value=[1, 0, 1]), BUNDLE, "std"),
        (set_at("preprocessing", "resize", value="fold"), BUNDLE, "fold"),
        (set_at("program", value="other"), BUNDLE, "other"),
        (set_at("files", "../x", value={"size": 1, "sha256": "0" * 64}), BUNDLE, "plain names"),
        (set_at("files", "model.pte", "sha256", value="0" * 64), BUNDLE, "damaged"),
        (set_at("files", "model.pte", "size", value=1), BUNDLE, "bytes"),
        (set_at("files", "gone", value={"size": 1, "sha256": "0" * 64}), BUNDLE, "gone is missing"),
        (lambda entries: entries.pop("name"), BUNDLE, "lacks 'name'"),
    ],
)
def test_wrong_manifests(edge, fake, engine_folder, change, status, words):
    rewrite(fake, change)
    with fails(edge, status, words, str(fake)):
        edge.recognizer(fake, engine_folder)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "a: &x 1\nb: *x", "a: !!python/none 1", "[" * 100, "a: \xff"])
def test_manifests_that_are_none(edge, fake, engine_folder, text):
    (fake / "manifest.yaml").write_bytes(text.encode("latin-1"))
    with fails(edge, BUNDLE, "manifest.yaml"):
        edge.recognizer(fake, engine_folder)


def test_a_library_that_no_hash_covers_is_not_loaded(edge, fake, engine_folder):
    rewrite(fake, lambda entries: entries["files"].pop("libvmp_executorch.so"))
    with fails(edge, BUNDLE, "libvmp_executorch.so is not among the bundle's files"):
        edge.recognizer(fake, engine_folder)
    (fake / "libvmp_executorch.so").unlink()
    with fails(edge, BUNDLE, "libvmp_executorch.so is not among the bundle's files"):
        edge.recognizer(fake, engine_folder)


def test_a_library_that_is_listed_and_missing(edge, fake, engine_folder):
    (fake / "libvmp_executorch.so").unlink()
    with fails(edge, BUNDLE, "libvmp_executorch.so is missing"):
        edge.recognizer(fake, engine_folder)


def test_cuda_runtime_that_no_hash_covers_is_not_loaded(edge, fake, engine_folder, evil):
    shutil.copy(evil.library, fake / "libcudart.so.13")
    rewrite(fake, set_at("gpu", value={"architectures": [87], "cuda": "13.0", "device": "Orin"}))
    with fails(edge, BUNDLE, "libcudart.so.13 is not among the bundle's files"):
        edge.recognizer(fake, engine_folder)
    assert not evil.ran()


@pytest.mark.parametrize("how", ["renamed", "written"])
def test_what_is_loaded_is_what_was_checked(built, fake, engine_folder, evil, how):
    """Another process exchanges the library all the time. Each load gets the right one or an error, but no other."""
    library, good = fake / "libvmp_executorch.so", (engine_folder / "libvmp_executorch.so").read_bytes()
    stop = threading.Event()

    def exchange():
        contents = [good, evil.library.read_bytes()]
        while not stop.is_set():
            for content in contents:
                target = fake.parent / "next" if how == "renamed" else library
                target.write_bytes(content)
                if how == "renamed":
                    target.replace(library)
                time.sleep(0.003)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(20):
            evil.check([built / "suite", engine_folder, fake, fake, fake, fake, "0"])
    finally:
        stop.set()
        thread.join()
    assert not evil.ran()


def test_bundles_that_are_none(edge, tmp_path, fake, engine_folder):
    with fails(edge, BUNDLE, "does not exist"):
        edge.recognizer(tmp_path / "nowhere")
    with fails(edge, BUNDLE, "no manifest.yaml"):
        edge.recognizer(tmp_path)
    with fails(edge, ARGUMENT, "threads"):
        edge.recognizer(fake, engine_folder, threads=-1)
    with fails(edge, ARGUMENT, "newer"):
        edge.recognizer(fake, engine_folder, struct_size=999)
    (fake / "model.pte").write_bytes(b"")
    with fails(edge, BUNDLE, "has 0 bytes"):
        edge.recognizer(fake, engine_folder)


def test_a_program_that_does_not_load(edge, engine_folder, tmp_path):
    with fails(edge, ENGINE, "model.pte", "not a program"):
        edge.recognizer(write_fake(tmp_path / "other", engine_folder, program="xx"), engine_folder)


def test_frames_keep_their_timestamps_by_the_clock(edge, stream):
    ours = stream(hop=1)
    for _ in range(FRAMES):
        edge.push(ours, grey(0))
    assert abs(edge.get_result(ours)["timestamp"] - time.monotonic()) < 60
