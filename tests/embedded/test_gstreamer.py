"""vmprecognize in real pipelines: its messages, its metadata, its errors. On an engine that needs nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from brightness_engine import LABELS
from bundles import FRAMES
from embedded import NATIVE, ROOT, cmake, have_gstreamer, write_fake

from vmp_edge.recognizer import load
from vmp_edge.runtimes.executorch.library import executorch_folder
from vmp_edge.stream.stream import Stream

FRAME = 1_000_000_000 // 30  # nanoseconds, as videotestsrc counts them
BLACK, WHITE = LABELS[0], LABELS[2]
AT_ONCE = "smoothing-windows=0 smoothing-margin=0 smoothing-hold=1"


@pytest.fixture(scope="session")
def plugin(built):
    """The build folder with the plugin, and with gst_watch."""
    if not shutil.which("gst-launch-1.0") or not shutil.which("pkg-config"):
        pytest.skip("needs GStreamer (Debian: apt install gstreamer1.0-tools gstreamer1.0-plugins-base pkg-config)")
    if not have_gstreamer():
        pytest.skip("needs GStreamer's headers (Debian: apt install libgstreamer-plugins-base1.0-dev)")
    return built


@pytest.fixture
def run(plugin, tmp_path):
    """Runs a command that finds the plugin."""
    folder = plugin / "vmp_edge" / "gstreamer"
    environment = {**os.environ, "GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": str(tmp_path / "registry.bin")}

    def running(*command):
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)

    return running


@pytest.fixture
def launch(run):
    """Runs gst-launch-1.0 -m; gives its messages of recognition as dicts, in order."""

    def launching(pipeline):
        done = run("gst-launch-1.0", "-m", *pipeline.split())
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert done.stdout.rindex("Got EOS") > done.stdout.rfind("vmp-recognition,")
        return [fields(line) for line in done.stdout.splitlines() if "vmp-recognition," in line]

    return launching


@pytest.fixture
def watch(run, plugin):
    """Runs gst_watch; gives its lines, split into words."""

    def watching(pipeline, *then):
        done = run(plugin / "gst_watch", pipeline, *then)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return [line.split() for line in done.stdout.splitlines()]

    return watching


@pytest.fixture
def element(fake, engine_folder):
    """The element with that bundle, every window recognised, for a pipeline's text."""
    return f"vmprecognize wait=true bundle={fake} libraries={engine_folder}"


@pytest.fixture
def white_file(tmp_path):
    """Makes a file of white frames; gives the begin of a pipeline that reads it at 30 frames per second."""

    def making(count):
        path = tmp_path / "white.raw"
        path.write_bytes(b"\xff" * (16 * 16 * count))
        return f"filesrc location={path} ! rawvideoparse format=gray8 width=16 height=16 framerate=30/1"

    return making


def fields(line):
    """A structure as gst-launch prints it, as a dict."""
    found = {}
    for name, kind, quoted, plain in re.findall(r'([\w-]+)=\((\w+)\)(?:"((?:[^"\\]|\\.)*)"|([^,;]*))', line):
        text = re.sub(r"\\(.)", r"\1", quoted) or plain
        found[name] = {"string": str, "guint64": int, "double": float}[kind](text)
    return found


def on_buffers(lines):
    """Of gst_watch's lines, each buffer's label, and the number of the frame that its timestamp says."""
    return [(line[2], round(int(line[3]) / FRAME)) for line in lines if line[0] == "buffer"]


def messages(lines):
    """Of gst_watch's lines, each message's label and frame."""
    return [(line[1], int(line[2])) for line in lines if line[0] == "message"]


def test_windows_reach_over_the_span_of_the_bundle(launch, tmp_path, engine_folder):
    """4 frames over 4 s at 30 frames per second: the first window is full after 2.95 s, and then there is one a hop."""
    bundle = write_fake(tmp_path / "span", engine_folder, span=4.0)
    results = launch(
        "videotestsrc pattern=white num-buffers=130 ! video/x-raw,format=RGB,framerate=30/1"
        f" ! vmprecognize wait=true bundle={bundle} libraries={engine_folder} hop=10 ! fakesink"
    )
    assert [result["frame"] for result in results] == [89, 99, 109, 119, 129]


def test_messages_of_a_whole_pipeline(launch, element):
    results = launch(
        "videotestsrc pattern=white num-buffers=20 ! video/x-raw,format=RGB,framerate=30/1"
        f" ! {element} hop=4 ! fakesink"
    )
    assert [result["frame"] for result in results] == [3, 7, 11, 15, 19]
    assert {result["label"] for result in results} == {WHITE}
    for result in results:
        newest = result["frame"]
        assert abs(result["timestamp"] - newest * FRAME) <= newest
        assert abs(result["window-start"] - (newest - FRAMES + 1) * FRAME) <= newest
        assert result["score"] > 0.9 and result["latency"] > 0 and result["dropped"] == 0
        told = json.loads(result["json"])
        assert (told["label"], told["frame"], told["top"][0][0]) == (WHITE, newest, WHITE)


@pytest.mark.parametrize(
    "caps",
    [
        "format=RGB,width=64,height=48",
        "format=BGR,width=33,height=17",  # rows with a gap
        "format=GRAY8,width=31,height=50",
        "format=NV12,width=64,height=48",
        "format=NV12,width=34,height=18",
        "format=YUY2,width=62,height=33",
        "format=RGB,width=1,height=1",
    ],
)
@pytest.mark.parametrize("pattern, label", [("white", WHITE), ("black", BLACK)])
def test_formats_and_sizes(launch, element, caps, pattern, label):
    results = launch(f"videotestsrc pattern={pattern} num-buffers=8 ! video/x-raw,{caps} ! {element} hop=4 ! fakesink")
    assert [result["label"] for result in results] == [label, label]


def test_colours_are_those_that_python_sees(launch, tmp_path, element, fake, edge, engine_folder):
    """A file of one colour: the same scores as from the library, frame by frame."""
    path = tmp_path / "frames.raw"
    clip = np.full((FRAMES, 24, 32, 3), (200, 90, 10), np.uint8)
    path.write_bytes(clip.tobytes())
    (result,) = launch(f"filesrc location={path} ! rawvideoparse format=rgb width=32 height=24 ! {element} ! fakesink")
    recognizer = edge.recognizer(fake, engine_folder)
    expected = edge.predict(recognizer, clip)
    edge.c.vmp_edge_recognizer_destroy(recognizer)
    assert (result["label"], result["score"]) == (expected["name"], pytest.approx(expected["score"], abs=1e-6))


def test_sizes_that_halve_no_chroma_are_not_negotiated(run, element):
    done = run(*f"gst-launch-1.0 videotestsrc ! video/x-raw,format=NV12,width=33 ! {element} ! fakesink".split())
    assert done.returncode != 0 and "could not link" in done.stderr


def test_video_goes_through_unchanged(run, element, tmp_path):
    source = "videotestsrc pattern=snow num-buffers=12 ! video/x-raw,format=YUY2,width=64,height=48 ! tee name=t"
    plain, through = tmp_path / "plain", tmp_path / "through"
    sinks = [f"t. ! queue ! filesink location={plain}", f"t. ! queue ! {element} ! filesink location={through}"]
    assert run("gst-launch-1.0", *f"{source} {' '.join(sinks)}".split()).returncode == 0
    assert len(plain.read_bytes()) == 12 * 64 * 48 * 2 and plain.read_bytes() == through.read_bytes()


def test_metadata_on_buffers(watch, element):
    """From the first result on, also on what a conversion made of the buffer."""
    lines = watch(
        f"videotestsrc pattern=white num-buffers=10 ! video/x-raw,format=RGB,width=32,height=24,framerate=30/1"
        f" ! {element} hop=4 ! videoconvert ! videoscale ! video/x-raw,format=I420,width=16 ! fakesink name=sink"
    )
    assert on_buffers(lines) == [("-", 0)] * 3 + [(WHITE, 3)] * 4 + [(WHITE, 7)] * 3
    assert messages(lines) == [(WHITE, 3), (WHITE, 7)] and lines[-1] == ["end"]


def test_seeking_starts_again(watch, element, white_file):
    """After a flush no window reaches back, no old result is attached, and time starts again."""
    lines = watch(f"{white_file(6)} ! {element} hop=2 ! fakesink name=sink", "seek")
    end = lines.index(["end"])
    for part, frames in ((lines[:end], (3, 5)), (lines[end + 1 :], (9, 11))):
        assert on_buffers(part) == [("-", 0)] * 3 + [(WHITE, 3)] * 2 + [(WHITE, 5)]
        assert messages(part) == [(WHITE, frame) for frame in frames]
    assert lines[-1] == ["end"]


def test_seeking_after_the_thread_has_ended(watch, element, white_file):
    """EOS ends it, after a last window; frames after a seek start it again."""
    lines = watch(f"{white_file(6)} ! {element} wait=false hop=2 ! fakesink name=sink", "seek")
    end = lines.index(["end"])
    first, second = messages(lines[:end]), messages(lines[end + 1 :])
    assert first and second and {label for label, _ in first + second} == {WHITE}
    assert all(3 <= frame < 6 for _, frame in first) and all(9 <= frame < 12 for _, frame in second)


def test_size_and_format_change_within_a_stream(watch, element):
    """The window goes on over the change."""
    lines = watch(
        f"videotestsrc pattern=white num-buffers=14 ! capsfilter name=filter caps=video/x-raw,format=NV12,width=64"
        f" ! {element} hop=1 ! fakesink name=sink",
        "video/x-raw,format=GRAY8,width=20,height=30",
    )
    assert messages(lines) == [(WHITE, frame) for frame in range(3, 14)]


def test_another_stream_starts_a_new_window(launch, element):
    results = launch(
        f"concat name=c ! {element} {AT_ONCE} hop=2 ! fakesink"
        " videotestsrc pattern=white num-buffers=6 ! video/x-raw,format=NV12,width=64,height=48,framerate=30/1 ! c."
        " videotestsrc pattern=black num-buffers=6 ! video/x-raw,format=GRAY8,width=30,height=20,framerate=30/1 ! c."
    )
    told = [(result["label"], result["frame"], round(result["timestamp"] / FRAME)) for result in results]
    assert told == [(WHITE, 3, 3), (WHITE, 5, 5), (BLACK, 9, 9), (BLACK, 11, 11)]


def test_frames_without_timestamps_have_those_of_the_clock(launch, element, white_file):
    """Nothing parses the file: buffers of 16x16 pixels, in a segment of bytes."""
    source = white_file(8).split(" ! ")[0]
    caps = "video/x-raw,format=GRAY8,width=16,height=16,framerate=30/1"
    results = launch(f"{source} blocksize=256 ! {caps} ! {element} hop=4 ! fakesink")
    assert [(result["label"], result["frame"]) for result in results] == [(WHITE, 3), (WHITE, 7)]


def test_in_a_thread_of_its_own(launch, element):
    """The default: a live source is never held up; the last result is posted before the end."""
    results = launch(
        f"videotestsrc is-live=true pattern=black num-buffers=20 ! video/x-raw,format=GRAY8,framerate=60/1"
        f" ! {element} wait=false hop=2 ! fakesink sync=true"
    )
    frames = [result["frame"] for result in results]
    assert frames and frames == sorted(set(frames)) and {result["label"] for result in results} == {BLACK}


def test_a_slow_engine_drops_frames_and_not_the_video(launch, engine_folder, tmp_path):
    slow = write_fake(tmp_path / "slow", engine_folder, program="300 0")
    results = launch(
        f"videotestsrc num-buffers=1000 ! video/x-raw,format=GRAY8,width=16,height=16"
        f" ! vmprecognize bundle={slow} libraries={engine_folder} hop=1 ! fakesink"
    )
    assert 1 <= len(results) < 100 and results[-1]["dropped"] > 0


@pytest.mark.parametrize(
    "settings, words",
    [
        ("", "set the property bundle"),
        ("bundle=/nowhere", "/nowhere does not exist"),
        ("bundle={engine}", "no manifest.yaml"),
        ("bundle={fake} libraries={engine} smoothing-margin=1", "smoothing_margin"),
    ],
)
def test_wrong_settings_are_an_error_of_the_element(run, fake, engine_folder, settings, words):
    settings = settings.format(fake=fake, engine=engine_folder)
    done = run(*f"gst-launch-1.0 videotestsrc num-buffers=9 ! vmprecognize name=v {settings} ! fakesink".split())
    (error,) = (line for line in done.stderr.splitlines() if "GstVmpRecognize:v:" in line and "ERROR" in line)
    assert done.returncode not in (0, -6, -11) and words in error


@pytest.mark.parametrize("wait", ["true", "false"])
def test_an_engine_that_fails_ends_the_pipeline(run, engine_folder, tmp_path, wait):
    failing = write_fake(tmp_path / "failing", engine_folder, program="0 2")
    done = run(
        *f"gst-launch-1.0 videotestsrc is-live=true num-buffers=200 ! vmprecognize wait={wait} hop=1 bundle={failing}"
        f" libraries={engine_folder} ! fakesink".split()
    )
    assert done.returncode > 0 and done.stderr.count("running the model failed: it was told to fail") == 1


@pytest.fixture(scope="session")
def egomotion(once):
    """The path of egomotion-nano's bundle for this machine."""
    pytest.importorskip("executorch", reason="needs executorch")
    return once.bundle("--target", "host", "--engine", "executorch")


def test_without_gstreamer_cmake_says_what_to_install(tmp_path, monkeypatch, plugin):
    monkeypatch.setenv("PKG_CONFIG_LIBDIR", str(tmp_path))
    with pytest.raises(AssertionError, match=r"GStreamer 1\.20 or later is missing"):
        cmake(NATIVE, tmp_path / "build", "-DVMP_EDGE_GSTREAMER=ON")


def test_a_real_bundle(launch, tmp_path, egomotion):
    """egomotion-nano in ExecuTorch on a part of the sample video: what Python says, window by window."""
    capture = cv2.VideoCapture(str(ROOT / "assets" / "egomotion-sample.mp4"))
    clip = [cv2.resize(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB), (160, 120)) for _ in range(90)]
    capture.release()
    path = tmp_path / "frames.raw"
    path.write_bytes(np.stack(clip).tobytes())
    results = launch(
        f"filesrc location={path} ! rawvideoparse format=rgb width=160 height=120 framerate=30/1"
        f" ! vmprecognize wait=true bundle={egomotion} libraries={executorch_folder() / 'lib'} ! fakesink"
    )
    with load(egomotion) as recognizer:
        stream = Stream(recognizer)
        predictions = [stream.push(frame, index * FRAME * 1e-9) for index, frame in enumerate(clip)]
    expected = [prediction for prediction in predictions if prediction]
    assert len(expected) > 5
    assert [(result["label"], result["frame"]) for result in results] == [(one.label, one.frame) for one in expected]
    np.testing.assert_allclose([one["score"] for one in results], [one.score for one in expected], atol=1e-4)
