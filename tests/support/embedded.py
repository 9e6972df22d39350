"""vmp_edge.h for ctypes, and building the library with CMake."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_void_p
from dataclasses import replace
from pathlib import Path

import numpy as np
from bundles import make_manifest

from vmp_edge.bundle.writing import staged_bundle

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "tests" / "embedded" / "native"
OK, ARGUMENT, BUNDLE, MACHINE, ENGINE, STATE = range(6)
RGB, BGR, GREY, NV12, YUYV = range(5)


class RecognizerConfig(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("bundle", c_char_p), ("threads", c_int32), ("libraries", c_char_p)]


class Info(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        *((name, c_int32) for name in ("frames", "image_size", "classes")),
        ("frame_rate", c_double),
        *((name, c_char_p) for name in ("name", "engine", "precision", "target")),
    ]


class Frame(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("format", c_int32),
        ("width", c_int32),
        ("height", c_int32),
        ("data", c_void_p * 2),
        ("stride", c_int32 * 2),
        ("timestamp", c_double),
    ]


class Score(ctypes.Structure):
    _fields_ = [("label", c_int32), ("score", c_float), ("name", c_char_p)]


class ResultStruct(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("label", c_int32),
        ("name", c_char_p),
        ("score", c_float),
        ("classes", c_int32),
        ("scores", POINTER(c_float)),
        ("num_top", c_int32),
        ("top", POINTER(Score)),
        *((name, c_double) for name in ("first_timestamp", "timestamp", "latency")),
        ("frame", c_int64),
        ("dropped", c_int64),
    ]


class StreamConfig(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("hop", c_int32),
        ("stride", c_int32),
        *((name, c_double) for name in ("fps", "smoothing_windows", "smoothing_seconds", "smoothing_margin")),
        ("smoothing_hold", c_int32),
        ("top", c_int32),
    ]


class Statistics(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        *((name, c_int64) for name in ("frames", "dropped", "windows")),
        *((name, c_double) for name in ("frames_per_second", "latency_p50", "latency_p95", "push_p50", "push_p95")),
    ]


CALLBACK = ctypes.CFUNCTYPE(None, POINTER(ResultStruct), c_char_p, c_void_p)
STREAM_DEFAULTS = {"hop": 4, "smoothing_windows": 1.5, "smoothing_seconds": -1, "smoothing_margin": 0.05}
STREAM_DEFAULTS |= {"smoothing_hold": 2, "top": 5}


def cmake(source: Path, build: Path, *options: str, targets: tuple[str, ...] = ()) -> Path:
    """Configures and builds; returns the folder."""
    import ninja

    environment = {**os.environ, "PATH": f"{ninja.BIN_DIR}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "cmake"]
    for step in (
        [*command, "-S", str(source), "-B", str(build), "-G", "Ninja", *options],
        [*command, "--build", str(build), *(("--target", *targets) if targets else ())],
    ):
        done = subprocess.run(step, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return build


def have_gstreamer() -> bool:
    """Return whether GStreamer's headers are installed."""
    modules = "gstreamer-1.0 >= 1.20 gstreamer-base-1.0 gstreamer-video-1.0"
    if shutil.which("pkg-config") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", modules], check=False).returncode == 0


class EdgeError(Exception):
    """A call that failed, with its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def frame_of(pixels, timestamp=-1.0, kind=RGB, chroma=None, size=None):
    """A frame struct on arrays, whose rows may have gaps; it keeps them alive."""
    height, width = pixels.shape[:2] if size is None else size
    frame = Frame(ctypes.sizeof(Frame), kind, width, height, timestamp=timestamp)
    for plane, array in enumerate([pixels] if chroma is None else [pixels, chroma]):
        frame.data[plane] = array.ctypes.data
        frame.stride[plane] = array.strides[0]
    frame.keep = pixels, chroma
    return frame


class Library:
    """The C library: every function checked, results as dicts."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        for name in ("version", "status_name", "last_error", "recognizer_label"):
            getattr(self.c, f"vmp_edge_{name}").restype = c_char_p
        self.c.vmp_edge_recognizer_label.argtypes = [c_void_p, c_int32]
        self.c.vmp_edge_status_name.argtypes = [c_int32]

    def check(self, status: int) -> None:
        if status:
            raise EdgeError(status, self.c.vmp_edge_last_error().decode())

    def recognizer(self, bundle, libraries="", threads=0, struct_size=None) -> c_void_p:
        config = RecognizerConfig(
            struct_size or ctypes.sizeof(RecognizerConfig), os.fsencode(bundle), threads, os.fsencode(libraries)
        )
        handle = c_void_p()
        self.check(self.c.vmp_edge_recognizer_create(ctypes.byref(config), ctypes.byref(handle)))
        return handle

    def info(self, recognizer) -> Info:
        info = Info(ctypes.sizeof(Info))
        self.check(self.c.vmp_edge_recognizer_get_info(recognizer, ctypes.byref(info)))
        return info

    def stream(self, recognizer, **options) -> c_void_p:
        config = StreamConfig(**({"struct_size": ctypes.sizeof(StreamConfig)} | STREAM_DEFAULTS | options))
        handle = c_void_p()
        self.check(self.c.vmp_edge_stream_create(recognizer, ctypes.byref(config), ctypes.byref(handle)))
        return handle

    def push(self, stream, pixels, timestamp=-1.0, **options) -> None:
        frame = frame_of(pixels, timestamp, **options)
        self.check(self.c.vmp_edge_stream_push(stream, ctypes.byref(frame)))

    def get_result(self, stream):
        result = POINTER(ResultStruct)()
        self.check(self.c.vmp_edge_stream_get_result(stream, ctypes.byref(result)))
        return self.taken(result)

    def predict(self, recognizer, clip, top=5):
        frames = (Frame * len(clip))(*(frame_of(picture) for picture in clip))
        result = POINTER(ResultStruct)()
        self.check(self.c.vmp_edge_recognizer_predict(recognizer, frames, len(clip), top, ctypes.byref(result)))
        return self.taken(result)

    def statistics(self, stream) -> Statistics:
        found = Statistics(ctypes.sizeof(Statistics))
        self.check(self.c.vmp_edge_stream_get_statistics(stream, ctypes.byref(found)))
        return found

    def taken(self, result):
        """A result as a dict, and destroyed."""
        if not result:
            return None
        text = c_void_p()
        self.check(self.c.vmp_edge_result_to_json(result, ctypes.byref(text)))
        found = describe(result.contents) | {"json": ctypes.string_at(text).decode()}
        self.c.vmp_edge_string_destroy(text)
        self.c.vmp_edge_result_destroy(result)
        return found


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


def describe(result: ResultStruct) -> dict:
    """What a result says, copied."""
    found = {name: getattr(result, name) for name, _ in ResultStruct._fields_ if name not in ("scores", "top")}
    scores = np.array(result.scores[: result.classes], np.float32)
    top = [(one.name.decode(), one.score) for one in result.top[: result.num_top]]
    return found | {"name": result.name.decode(), "scores": scores, "top": top}


def insides(path: Path) -> ctypes.CDLL:
    """The library of insides.cpp."""
    library = ctypes.CDLL(str(path))
    library.insides_prepare.argtypes = [
        POINTER(Frame),
        *[c_int32] * 3,
        POINTER(c_double),
        POINTER(c_double),
        POINTER(c_float),
    ]
    library.insides_sha256.argtypes = [c_char_p, ctypes.c_size_t, ctypes.c_size_t, c_char_p]
    return library


def write_fake(path, engine_folder, program="0 0", **changes):
    """A bundle of fake_engine.c; `program` is milliseconds of a run, and after how many it fails."""
    names = {"model.pte": program.encode(), "libvmp_executorch.so": engine_folder / "libvmp_executorch.so"}
    with staged_bundle(path) as staging:
        for name, content in names.items():
            staging.add(name, content)
        staging.seal(replace(make_manifest(engine="executorch", program="model.pte"), **changes))
    return path
