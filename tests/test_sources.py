"""Every kind of source: what it gives, how it ends, and what is said when it cannot be had."""

import contextlib
import functools
import http.server
import io
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

from vmp_edge import sources
from vmp_edge.errors import MissingDependencyError, SourceError
from vmp_edge.sources import Paced, Pauses, Y4mReader

SHORT = Pauses(0.01, 0.08)
open_source = functools.partial(sources.open_source, pauses=SHORT)


def read_all(source):
    with contextlib.closing(source):
        return list(iter(source.read, None))


def refused(text, error=SourceError):
    with pytest.raises(error) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Files


def test_a_file_gives_its_frames_at_its_rate_and_ends(video):
    source = open_source(str(video))
    assert (source.live, source.fps, source.frame_count) == (False, 30.0, 60)
    frames = read_all(source)
    assert [frame.timestamp for frame in frames] == [index / 30 for index in range(60)]
    assert all(frame.image.shape == (48, 64, 3) and not frame.restarted for frame in frames)
    found = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(found, [*range(10, 220, 7), *range(220, 10, -7)], atol=3)
    assert source.read() is None


def test_a_file_may_be_a_url(video):
    assert len(read_all(open_source(f"file://{video}"))) == 60


def test_the_channels_are_bgr(tmp_path):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 0] = 255
    cv2.imwrite(str(tmp_path / "blue.png"), picture)
    frame = read_all(open_source(str(tmp_path / "blue.png")))[0].image
    assert frame[0, 0].tolist() == [255, 0, 0]


def test_what_is_no_video_is_told(tmp_path):
    assert "does not exist" in refused("nothing.mp4")
    assert "has no pictures" in refused(str(tmp_path))
    (tmp_path / "text.mp4").write_text("hello")
    assert "cannot be opened as a video" in refused(str(tmp_path / "text.mp4"))
    assert "empty" in refused("  ")


def test_a_cut_file_ends_early(tmp_path, video):
    content = video.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: len(content) // 2])
    assert 0 < len(read_all(open_source(str(cut)))) < 60


def test_paced_plays_at_the_files_own_rate_and_can_be_stopped(video):
    source = Paced(open_source(str(video)))
    assert source.live and source.fps == 30.0
    start = time.monotonic()
    times = [source.read().timestamp for _ in range(10)]
    assert time.monotonic() - start >= 9 / 30 - 0.001  # a frame never comes before its time
    assert times == [index / 30 for index in range(10)]
    threading.Timer(0.05, source.close).start()
    while source.read() is not None:
        pass


# URLs


@pytest.fixture
def web(tmp_path):
    """A web server of the temporary folder; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *arguments: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.filterwarnings("ignore")
def test_a_video_on_a_web_server_is_played_to_its_end(web, video, capfd):
    source = open_source(f"http://{web}/{video.name}")
    frames = read_all(source)
    assert len(frames) == 60
    if not source.live:
        assert frames[-1].timestamp == 59 / 30


def test_a_url_that_leads_nowhere_does_not_tell_the_password():
    text = refused("rtsp://robot:secret@127.0.0.1:9/stream")
    assert "rtsp://127.0.0.1:9/stream cannot be opened" in text and "secret" not in text


# Cameras, played by a stand-in: there is none where tests run


class FakeCamera:
    """A VideoCapture of a camera that is pulled out after some frames, and comes back some openings later."""

    plan: list  # how many frames each opening gives; 0 for one that fails
    opened: int

    def __init__(self, what, backend=0):
        self.left = self.plan[min(type(self).opened, len(self.plan) - 1)]
        type(self).opened += 1
        self.shape = (8, 8) if what == 9 else (8, 8, 3)

    def isOpened(self):  # noqa: N802
        return self.left > 0

    def read(self):
        if self.left == 0:
            return False, None
        self.left -= 1
        return True, np.full(self.shape, 7, np.uint8)

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 25.0}.get(what, -1.0)

    def release(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    FakeCamera.plan, FakeCamera.opened = [10**9], 0
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    return FakeCamera


def test_a_camera_is_live_and_on_the_clock(camera):
    source = open_source("0")
    assert source.live and source.fps == 25.0 and source.frame_count is None
    before = time.monotonic()
    frame = source.read()
    assert before <= frame.timestamp <= time.monotonic()


def test_a_grey_camera_gives_three_channels(camera):
    assert open_source("9").read().image.shape == (8, 8, 3)


def test_a_camera_that_vanishes_is_tried_again_until_it_is_back(camera):
    camera.plan = [5, 0, 0, 0, 10**9]
    told = []
    source = open_source("/dev/video0", told.append)
    frames = [source.read() for _ in range(10)]
    assert [frame.restarted for frame in frames] == [False] * 5 + [True] + [False] * 4
    assert camera.opened == 5
    assert "gives no more frames; trying again in 0.01 s" in told[0]
    waits = [text.rpartition(" in ")[2] for text in told[:4]]
    assert waits == ["0.01 s", "0.02 s", "0.04 s", "0.08 s"], "each wait is longer, up to the longest"
    assert told[4] == "camera /dev/video0 is back"


def test_a_camera_that_is_not_there_at_first_is_told_at_once(camera):
    camera.plan = [0]
    assert "camera 99 cannot be opened: there is no /dev/video99" in refused("99")
    assert camera.opened == 1


def test_closing_ends_the_wait_for_a_camera(camera):
    camera.plan = [1, 0]
    gone = threading.Event()
    source = open_source("0", lambda text: gone.set(), pauses=Pauses(3600.0, 3600.0))
    frames = []
    reader = threading.Thread(target=lambda: frames.extend(iter(source.read, None)))
    reader.start()
    assert gone.wait(timeout=60)
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive() and len(frames) == 1


# YUV4MPEG


def y4m(width, height, frames, header="", padded=False):
    """The bytes of a YUV4MPEG2 stream of grey frames with a bright right edge; padded as GStreamer does it."""
    rows, columns = -(-height // 2), -(-width // 2)
    content = f"YUV4MPEG2 W{width} H{height} F30000:1001 Ip C420jpeg{header}\n".encode()
    for _ in range(frames):
        luma = np.full((height, width), 100, np.uint8)
        luma[:, -1] = 200
        chroma = np.full((rows, columns), 128, np.uint8)
        if padded:
            luma = np.pad(luma, ((0, 2 * rows - height), (0, -width % 4)))
            chroma = np.pad(chroma, ((0, 0), (0, -columns % 4)))
        content += b"FRAME\n" + luma.tobytes() + 2 * chroma.tobytes()
    return content


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(8, 4), (6, 4), (7, 4), (8, 5), (7, 5), (1, 1), (2, 2), (65, 47)])
def test_yuv4mpeg_of_any_size_with_and_without_row_padding(width, height, frames, padded):
    reader = Y4mReader(io.BytesIO(y4m(width, height, frames, padded=padded)))
    assert abs(reader.fps - 29.97) < 0.001
    for _ in range(frames):
        image = reader.read()
        assert image.shape == (height, width, 3)
        expected = np.full((height, width), 98.0)  # limited range: (100 - 16) * 255 / 219
        expected[:, -1] = 214.0
        np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, 2), atol=1)
    assert reader.read() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF....",
        b"YUV4MPEG2 W8 H4",
        b"YUV4MPEG2 H4\n",
        b"YUV4MPEG2 Wx H4\n",
        b"YUV4MPEG2 W0 H4\n",
        b"YUV4MPEG2 W99999999 H4\n",
        b"YUV4MPEG2 W8 H4 C444\n",
    ],
)
def test_what_is_no_yuv4mpeg_is_refused(content):
    with pytest.raises(SourceError):
        Y4mReader(io.BytesIO(content))


@pytest.mark.parametrize("cut", [1, 6, 20, 47])
def test_a_torn_frame_is_told(cut):
    whole = y4m(8, 4, 2)
    reader = Y4mReader(io.BytesIO(whole[:-cut]))
    reader.read()
    with pytest.raises(SourceError):
        reader.read()
    damaged = Y4mReader(io.BytesIO(whole.replace(b"FRAME", b"FRUME")))
    with pytest.raises(SourceError, match="FRAME"):
        damaged.read()


def test_an_unknown_rate_is_none():
    assert Y4mReader(io.BytesIO(b"YUV4MPEG2 W8 H4 F0:0\n")).fps is None


# GStreamer pipelines, by a stand-in for gst-launch-1.0


@pytest.fixture
def fake_gst(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gst-launch-1.0"
    program.parent.mkdir()
    shutil.copy(SUPPORT / "fake_gst_launch.py", program)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)


def process_of(source):
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
    told = []
    source = open_source("endless ! x", told.append)
    for _ in range(3):
        source.read()
    first = process_of(source)
    os.kill(first.pid, signal.SIGKILL)
    while not (frame := source.read()).restarted:
        pass
    assert frame.image.shape == (6, 8, 3)
    assert "the pipeline ended with signal 9" in told[0] and told[-1] == "pipeline is back"
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
    assert "it failed" in refused("fail ! x")
    assert "gives no frames" in refused("noise ! x")
    assert "cannot be split into words" in refused("a ! 'b")


@pytest.mark.usefixtures("fake_gst")
def test_a_torn_pipeline_is_tried_again():
    told = threading.Event()
    source = open_source("torn ! x", lambda text: told.set())
    reader = threading.Thread(target=lambda: list(iter(source.read, None)))
    reader.start()
    assert told.wait(timeout=60)
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive()


def test_without_gstreamer_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    assert "apt install gstreamer1.0-tools" in refused("videotestsrc ! x", MissingDependencyError)


# GStreamer itself


def has_gstreamer():
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
    told = []
    with contextlib.closing(open_source("videotestsrc is-live=true ! video/x-raw,width=64", told.append)) as source:
        if not hasattr(source._source, "_process"):
            pytest.skip("this OpenCV has GStreamer itself: there is no process to kill")
        source.read()
        os.kill(process_of(source).pid, signal.SIGKILL)
        while not source.read().restarted:
            pass
    assert "signal 9" in told[0]


@gstreamer
def test_gstreamer_errors_are_passed_on():
    assert "no element" in refused("nosuchelement ! x") or "cannot be opened" in refused("nosuchelement ! x")
