"""GStreamer pipelines, with a stand-in for `gst-launch-1.0`, and with the real one where it is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest
from bundles import SUPPORT
from source_helpers import error_of, open_source, read_all

from vmp_edge.errors import MissingDependencyError, SourceError
from vmp_edge.sources import AddressError
from vmp_edge.sources import gstreamer as gstreamer_module


@pytest.fixture
def fake_gst(tmp_path, monkeypatch):
    """Puts the stand-in first in PATH, and hides OpenCV's own GStreamer."""
    program = tmp_path / "bin" / "gst-launch-1.0"
    program.parent.mkdir()
    shutil.copy(SUPPORT / "fake_gst_launch.py", program)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)


def process_of(source):
    """Return the process that runs a source's pipeline."""
    return source._source._process


@pytest.mark.usefixtures("fake_gst")
def test_a_pipeline_gives_its_frames_and_ends():
    source = open_source("7 ! appsink")
    assert source.live and source.fps == 25.0
    frames = read_all(source)
    assert len(frames) == 7 and frames[0].image.shape == (6, 8, 3)
    assert [frame.image.shape for frame in read_all(open_source("odd ! x"))] == [(5, 3, 3)] * 2


@pytest.mark.usefixtures("fake_gst")
def test_a_pipeline_that_is_killed_is_started_again():
    messages = []
    source = open_source("endless ! x", messages.append)
    for _ in range(3):
        source.read()
    first = process_of(source)
    os.kill(first.pid, signal.SIGKILL)
    while not (frame := source.read()).restarted:
        pass
    assert frame.image.shape == (6, 8, 3)
    assert "the pipeline ended with signal 9" in messages[0] and messages[-1] == "pipeline is back"
    second = process_of(source)
    source.close()
    assert second.poll() is not None, "closing leaves no process behind"
    assert source.read() is None


@pytest.mark.usefixtures("fake_gst")
def test_closing_a_pipeline_ends_a_read_that_waits():
    source = open_source("endless ! x")
    reader = threading.Thread(target=lambda: list(iter(source.read, None)))
    reader.start()
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive()


@pytest.mark.usefixtures("fake_gst")
def test_pipelines_that_fail_at_once_say_why():
    assert "it failed" in error_of("fail ! x")
    assert "gives no frames" in error_of("noise ! x")
    assert "cannot be split into words" in error_of("a ! 'b")


@pytest.mark.usefixtures("fake_gst")
def test_a_pipeline_whose_frames_break_off_is_started_again():
    lost = threading.Event()
    source = open_source("torn ! x", lambda text: lost.set())
    reader = threading.Thread(target=lambda: list(iter(source.read, None)))
    reader.start()
    assert lost.wait(timeout=60)
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive()


@pytest.mark.usefixtures("fake_gst")
def test_frames_of_full_range_are_known_by_their_caps():
    frames = read_all(open_source("full ! x"))
    assert [frame.image[0, 0].tolist() for frame in frames] == [[16, 16, 16]] * 2


@pytest.mark.usefixtures("fake_gst")
def test_a_wrong_pipeline_is_told_from_one_that_may_come_back_and_secrets_are_hidden():
    text = error_of("wrong ! rtspsrc location=rtsp://me:secret@cam/1", AddressError)
    assert "erroneous pipeline" in text and "secret" not in text
    with pytest.raises(SourceError) as caught:
        open_source("fail ! x")
    assert not isinstance(caught.value, AddressError)


@pytest.fixture
def processes(monkeypatch):
    """The processes of the pipelines that were started."""
    started, launch = [], gstreamer_module._launch

    def note(pipeline):
        process, pipe = launch(pipeline)
        started.append(process)
        return process, pipe

    monkeypatch.setattr(gstreamer_module, "_launch", note)
    return started


@pytest.mark.usefixtures("fake_gst")
def test_the_opening_of_a_pipeline_that_hangs_can_be_ended(processes):
    cancelled, errors = threading.Event(), []

    def opening():
        with pytest.raises(SourceError) as caught:
            open_source("hang ! x", cancelled=cancelled)
        errors.append(str(caught.value))

    thread = threading.Thread(target=opening)
    thread.start()
    while not processes:
        time.sleep(0.002)
    cancelled.set()
    thread.join(timeout=60)
    assert errors == ["the pipeline was closed while it was being opened"]
    assert processes[0].poll() is not None, "it leaves no process behind"


@pytest.mark.usefixtures("fake_gst")
def test_an_interrupt_ends_the_opening_of_a_pipeline_that_hangs(monkeypatch, processes):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("vmp_edge.sources.gstreamer.wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_source("hang ! x")
    assert processes[0].poll() is not None


def test_without_gstreamer_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    assert "apt install gstreamer1.0-tools" in error_of("videotestsrc ! x", MissingDependencyError)


# With the real GStreamer


def has_gstreamer():
    """Return whether GStreamer can run a simple pipeline."""
    if shutil.which("gst-launch-1.0") is None:
        return False
    probe = "gst-launch-1.0 -q videotestsrc num-buffers=1 ! videoconvert ! y4menc ! fakesink"
    return subprocess.run(probe.split(), capture_output=True, check=False).returncode == 0


gstreamer = pytest.mark.skipif(not has_gstreamer(), reason="needs gst-launch-1.0 with the base and good plugins")


@gstreamer
@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 47), (66, 50)])
def test_gstreamer_frames_have_the_right_size_and_colours(width, height):
    pipeline = f"videotestsrc num-buffers=5 ! video/x-raw,width={width},height={height},framerate=100/1"
    frames = read_all(open_source(pipeline))
    assert len(frames) == 5
    bars = frames[0].image[height // 3, [width // 14, width // 2, width - 3]]
    np.testing.assert_allclose(bars, [[255, 255, 255], [0, 255, 0], [255, 0, 0]], atol=6)  # smpte: white, green, blue
    times = [frame.timestamp for frame in frames]
    assert times == sorted(times)


@gstreamer
def test_gstreamer_that_is_killed_is_started_again():
    messages = []
    with contextlib.closing(open_source("videotestsrc is-live=true ! video/x-raw,width=64", messages.append)) as source:
        if not hasattr(source._source, "_process"):
            pytest.skip("this OpenCV has GStreamer itself: there is no process to kill")
        source.read()
        os.kill(process_of(source).pid, signal.SIGKILL)
        while not source.read().restarted:
            pass
    assert "signal 9" in messages[0]


@gstreamer
def test_gstreamer_errors_are_passed_on():
    assert "no element" in error_of("nosuchelement ! x") or "cannot be opened" in error_of("nosuchelement ! x")


def has_element(name):
    """Return whether GStreamer has an element."""
    if shutil.which("gst-inspect-1.0") is None:
        return False
    return subprocess.run(["gst-inspect-1.0", name], capture_output=True, check=False).returncode == 0


def h264(path, width, height, pixels="yuv420p", full_range=False):
    """Write an H.264 file of 6 frames, 50 a second: red above, blue below on the left, grey on the right."""
    av = pytest.importorskip("av", reason="needs PyAV")
    try:
        container = av.open(str(path), "w")
        stream = container.add_stream("libx264", rate=50)
    except ValueError:
        pytest.skip("this FFmpeg has no libx264")
    picture = np.full((height, width, 3), 235, np.uint8)
    picture[: height // 2, : width // 2] = (200, 30, 30)
    picture[height // 2 :, : width // 2] = (30, 30, 200)
    with container:
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.options = {"crf": "8"}
        if full_range:
            stream.codec_context.color_range = av.video.reformatter.ColorRange.JPEG
        for _ in range(6):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            destination = {"dst_color_range": "JPEG", "src_color_range": "JPEG"} if full_range else {}
            container.mux(stream.encode(frame.reformat(format=pixels, **destination)))
        container.mux(stream.encode())
    return picture[..., ::-1]


@gstreamer
@pytest.mark.skipif(not has_element("avdec_h264"), reason="needs gstreamer1.0-libav")
@pytest.mark.parametrize(
    ("width", "height", "pixels", "full_range"),
    [
        (160, 90, "yuv420p", False),
        (352, 288, "yuv420p", False),
        (480, 270, "yuv420p", False),
        (640, 480, "yuv420p", False),
        (1280, 720, "yuv420p", False),
        (66, 50, "yuv420p", False),
        (65, 47, "yuv444p", False),
        (160, 90, "yuv420p10le", False),
        (160, 90, "yuv422p", False),
        (160, 90, "yuv420p", True),
    ],
)
def test_what_a_decoder_pads_is_read_rightly(tmp_path, width, height, pixels, full_range):
    """Decoders give their frames in larger buffers than the picture needs."""
    expected = h264(tmp_path / "a.mp4", width, height, pixels, full_range)
    frames = read_all(open_source(f"filesrc location={tmp_path}/a.mp4 ! qtdemux ! h264parse ! avdec_h264"))
    assert len(frames) == 6 and frames[0].image.shape == (height, width, 3)
    for y, x in ((height // 5, width // 5), (4 * height // 5, width // 5), (height // 5, 4 * width // 5)):
        np.testing.assert_allclose(frames[0].image[y, x].astype(int), expected[y, x], atol=12)


@gstreamer
def test_a_pipeline_with_a_url_in_it_is_a_pipeline(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 64, 3), (10, 200, 30), np.uint8))
    if not has_element("uridecodebin"):
        pytest.skip("needs uridecodebin")
    frames = read_all(open_source(f"uridecodebin uri=file://{tmp_path}/a.png ! videoconvert"))
    assert len(frames) == 1
    np.testing.assert_allclose(frames[0].image[5, 5], [10, 200, 30], atol=4)


@gstreamer
def test_frames_of_an_unknown_rate_are_read():
    caps = "video/x-raw,format=I420,width=32,height=16,framerate=0/1"
    frames = read_all(open_source(f"videotestsrc num-buffers=1 ! {caps}"))
    assert frames[0].image.shape == (16, 32, 3)
