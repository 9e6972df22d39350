"""GStreamer pipelines, with a stand-in for `gst-launch-1.0`, and with the real one where it is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading

import cv2
import numpy as np
import pytest
from bundles import SUPPORT
from source_helpers import error_of, open_source, read_all

from vmp_edge.errors import MissingDependencyError


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
