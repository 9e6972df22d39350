"""The C library refuses wrong arguments, frames, streams and bundles: an error of one line each."""

from __future__ import annotations

import ctypes
import shutil
import threading
import time

import pytest
import yaml
from bundles import grey
from embedded import (
    ARGUMENT,
    BUNDLE,
    ENGINE,
    MACHINE,
    STREAM_DEFAULTS,
    Info,
    RecognizerConfig,
    ResultStruct,
    Statistics,
    StreamConfig,
    fails,
    frame_of,
    write_fake,
)


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
