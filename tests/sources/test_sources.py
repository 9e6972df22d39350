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
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import SUPPORT, grey

from vmp_edge import sources
from vmp_edge.errors import MissingDependencyError, SourceError, UsageError
from vmp_edge.sources import Paced, Pauses, StdinSource, Y4mReader
from vmp_edge.sources import camera as camera_module
from vmp_edge.sources import capture as capture_module
from vmp_edge.sources.camera import find_camera

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


class Flaky(http.server.BaseHTTPRequestHandler):
    """A network camera that gives three frames of MJPEG and hangs up; refuses every other call; is cut now and then."""

    picture = cv2.imencode(".jpg", grey(90, 48, 64))[1].tobytes()
    calls = 0

    def do_GET(self):
        type(self).calls += 1
        if self.calls % 2 == 0:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.picture)}\r\n\r\n".encode()
        part = head + self.picture + b"\r\n"
        with contextlib.suppress(OSError):
            self.wfile.write(3 * part + (part[: len(part) // 2] if self.calls % 3 == 0 else b""))

    def log_message(self, *arguments):
        pass


def usage():
    """Open files and running threads of this process, and its memory in bytes."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files, threads = (len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("fd", "task"))
    return files, threads, resident


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts in /proc, which only Linux has")
def test_a_stream_that_is_lost_and_back_a_hundred_times_leaks_nothing():
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told = []
    with contextlib.closing(
        open_source(f"http://127.0.0.1:{server.server_port}/a.mjpg", told.append, pauses=Pauses(0.001, 0.002))
    ) as source:
        assert source.live
        returns, frames, early = 0, 0, None
        while returns < 100:
            frame = source.read()
            assert frame.image.shape == (48, 64, 3)
            returns += frame.restarted
            frames += 1
            if returns == 20 and early is None:  # by then, everything that is made once is there
                early = usage()
        late = usage()
    server.shutdown()
    server.server_close()
    assert sum(text.endswith(" is back") for text in told) == 100 and frames >= 300
    assert sum("cannot be opened" in text for text in told) >= 100
    assert late[0] <= early[0] + 1 and late[1] <= early[1] + 1, "one connection may be open or not at each moment"
    assert late[2] - early[2] < 2 << 20


def test_a_stream_that_stalls_is_lost_and_tried_again(monkeypatch):
    """The connection stays, and nothing comes."""
    monkeypatch.setattr(capture_module, "_TIMEOUT_MS", 300)
    released = threading.Event()

    class Stalling(Flaky):
        def handle(self):
            super().handle()
            released.wait(timeout=60)

    monkeypatch.setattr(Stalling, "calls", 0)
    monkeypatch.setattr(Stalling, "send_error", lambda self, code: self.close_connection)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    with contextlib.closing(
        open_source(f"http://127.0.0.1:{server.server_port}/a.mjpg", (told := []).append)
    ) as source:
        while not source.read().restarted:
            pass
    released.set()
    server.shutdown()
    server.server_close()
    assert "gives no more frames" in told[0] and told[-1].endswith(" is back")


def rtsp_server(port=0):
    """A camera in a process of its own, of the system's Python, which has the bindings; and its port."""
    command = ["/usr/bin/python3", str(SUPPORT / "rtsp_server.py"), str(port)]
    why = "needs GStreamer's RTSP server: apt install python3-gi gir1.2-gst-rtsp-server-1.0"
    if not Path(command[0]).exists():
        pytest.skip(why)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    said = process.stdout.readline().strip()
    if not said:
        process.wait()
        pytest.skip(why)
    return process, int(said)


def test_an_rtsp_camera_that_is_switched_off_and_on_again():
    process, port = rtsp_server()
    try:
        source = open_source(f"rtsp://user:secret@127.0.0.1:{port}/camera", (told := []).append)
        assert source.live and source.read().image.shape == (48, 64, 3)
        early = usage()
        for _ in range(3):
            process.kill()
            process.wait()
            process.stdout.close()
            process, _ = rtsp_server(port)
            while not source.read().restarted:
                pass
        assert usage()[:2] == early[:2]
        source.close()
        assert source.read() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert sum(text.endswith(" is back") for text in told) == 3 and not any("secret" in text for text in told)


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


@pytest.fixture
def cameras(tmp_path, monkeypatch):
    """Two cameras as Linux lists them: the first has a second device, for metadata; names are files, ids are links."""
    monkeypatch.setattr(camera_module, "KERNEL", tmp_path / "sys")
    monkeypatch.setattr(camera_module, "DEVICES", tmp_path / "dev")
    listed = [("video10", "HD Webcam: HD Webcam", 0), ("video2", "HD Webcam: HD Webcam", 1), ("video3", "Grabber", 0)]
    for device, name, index in listed:
        (tmp_path / "sys" / device).mkdir(parents=True)
        (tmp_path / "sys" / device / "name").write_text(name + "\n")
        (tmp_path / "sys" / device / "index").write_text(f"{index}\n")
    links = tmp_path / "dev" / "v4l" / "by-id"
    links.mkdir(parents=True)
    (links / "usb-Acme_HD_Webcam_0A1B-video-index0").symlink_to("../../video10")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("HD Webcam: HD Webcam", "video10"),
        ("grab", "video3"),
        ("usb-Acme_HD_Webcam_0A1B-video-index0", "video10"),
        ("acme", "video10"),
    ],
)
def test_a_camera_is_found_by_its_name_or_a_part_of_it(cameras, name, device):
    assert find_camera(name).resolve() == cameras / "dev" / device


def test_a_name_that_no_camera_or_several_have_is_told(cameras):
    text = refused("camera:Acme 9")
    assert "no camera is called 'Acme 9'" in text and "'Grabber'" in text and "'HD Webcam: HD Webcam'" in text
    (cameras / "sys" / "video3" / "name").write_text("HD Webcam: HD Webcam\n")
    text = refused("camera:webcam:")
    assert "several cameras" in text and "video3" in text and "video10" in text and "video2," not in text
    for name in ("", "  "):
        assert "no camera" in refused(f"camera:{name}") or "several" in refused(f"camera:{name}")
    shutil.rmtree(cameras / "sys")
    shutil.rmtree(cameras / "dev")
    assert "none is connected" in refused("camera:grab")


def test_a_named_camera_may_come_back_as_another_device(cameras, camera, monkeypatch):
    opened = []
    monkeypatch.setattr(camera, "__init__", lambda self, what, backend=0, first=camera.__init__: (
        opened.append(what), first(self, what))[1])  # fmt: skip
    camera.plan = [2, 10**9]
    source = open_source("camera:Grabber", (told := []).append)
    source.read()
    source.read()
    (cameras / "sys" / "video3").rename(cameras / "sys" / "video4")
    assert source.read().restarted
    assert opened == [str(cameras / "dev" / "video3"), str(cameras / "dev" / "video4")]
    assert told[-1] == "camera Grabber is back"


# Folders of pictures


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (10, 2, 1, 100):
        cv2.imwrite(str(folder / f"shot{number}.png"), grey(number, 8 + number, 16))
    (folder / "notes.txt").write_text("no picture")
    (folder / "more.png").mkdir()
    return folder


def test_pictures_come_in_their_natural_order_at_the_rate_that_is_given(pictures):
    source = open_source(str(pictures), fps=4.0)
    assert (source.live, source.fps, source.frame_count) == (False, 4.0, 4)
    frames = read_all(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10, 100]
    assert [frame.timestamp for frame in frames] == [0.0, 0.25, 0.5, 0.75]
    assert source.read() is None
    assert open_source(str(pictures)).fps == 30.0


def test_a_damaged_picture_is_named_and_a_rate_of_nothing_refused(pictures):
    (pictures / "shot3.png").write_bytes(b"none")
    source = open_source(str(pictures))
    source.read()
    source.read()
    with pytest.raises(SourceError, match=r"shot3\.png cannot be read"):
        source.read()
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="must be positive"):
            open_source(str(pictures), fps=fps)


# The standard input


@pytest.fixture
def stdin(monkeypatch):
    """Makes a pipe the standard input of a source; returns its other end, to write to."""
    reading, writing = os.pipe()
    monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, reading))
    with os.fdopen(writing, "wb", buffering=0) as end:
        yield end
    os.close(reading)


def write_later(end, content):
    def write():
        with contextlib.suppress(BrokenPipeError):
            for start in range(0, len(content), 1000):  # in pieces, as pipes do it
                end.write(content[start : start + 1000])
        end.close()

    threading.Thread(target=write, daemon=True).start()


def test_yuv4mpeg_on_the_standard_input(stdin):
    write_later(stdin, y4m(65, 47, 3))
    source = open_source("-")
    assert not source.live and abs(source.fps - 29.97) < 0.001
    frames = read_all(source)
    assert [frame.image.shape for frame in frames] == [(47, 65, 3)] * 3
    assert [frame.timestamp for frame in frames] == [index / source.fps for index in range(3)]


PICTURE = np.random.default_rng(0).integers(0, 256, (8, 4, 3), np.uint8)
UPSCALED = cv2.resize(PICTURE[:4, :2], (4, 8), interpolation=cv2.INTER_NEAREST)
PLANES = cv2.cvtColor(UPSCALED, cv2.COLOR_BGR2YUV_I420).reshape(-1)


@pytest.mark.parametrize(
    ("pixels", "content", "expected"),
    [
        ("bgr", PICTURE, PICTURE),
        ("rgb", PICTURE[..., ::-1], PICTURE),
        ("grey", PICTURE[..., 0], np.repeat(PICTURE[..., :1], 3, 2)),
        ("i420", PLANES, cv2.cvtColor(PLANES.reshape(12, 4), cv2.COLOR_YUV2BGR_I420)),
        (
            "nv12",
            np.concatenate([PLANES[:32], np.stack([PLANES[32:40], PLANES[40:]], 1).reshape(-1)]),
            cv2.cvtColor(PLANES.reshape(12, 4), cv2.COLOR_YUV2BGR_I420),
        ),
        ("yuyv", np.full((8, 4, 2), (200, 128), np.uint8), np.full((8, 4, 3), 214, np.uint8)),
    ],
)
def test_raw_pixels_on_the_standard_input(stdin, pixels, content, expected):
    write_later(stdin, 2 * np.ascontiguousarray(content).tobytes())
    source = open_source(f"raw:4x8:{pixels}:12.5")
    assert source.fps == 12.5
    frames = read_all(source)
    assert [frame.timestamp for frame in frames] == [0.0, 0.08]
    for frame in frames:
        np.testing.assert_allclose(frame.image, expected, atol=1)


def test_a_pipe_that_breaks_off_or_holds_something_else_is_told(stdin):
    write_later(stdin, bytes(100))
    source = open_source("raw:4x8:bgr", fps=10.0)
    assert source.fps == 10.0 and source.read() is not None
    with pytest.raises(SourceError, match="break off within a frame"):
        source.read()
    assert "no YUV4MPEG2" in refused("-")


@pytest.mark.parametrize(
    "text", ["raw:", "raw:640x480", "raw:0x4:bgr", "raw:5x4:yuyv", "raw:4x5:nv12", "raw:4x4:cmyk", "raw:4x4:bgr:0"]
)
def test_raw_formats_that_cannot_be_are_refused(text):
    refused(text, UsageError)


def test_closing_ends_a_read_that_waits_for_a_pipe(stdin):
    source = open_source("raw:4x4:grey")
    frames = []
    reader = threading.Thread(target=lambda: frames.extend(iter(source.read, None)))
    reader.start()
    stdin.write(bytes(16 + 7))  # a frame and a half
    while not frames:
        time.sleep(0.002)
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive() and len(frames) == 1


def test_a_file_may_be_the_standard_input(tmp_path, monkeypatch):
    (tmp_path / "a.y4m").write_bytes(y4m(8, 4, 2))
    with (tmp_path / "a.y4m").open("rb") as file:
        monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, file.fileno()))
        assert len(read_all(open_source("-"))) == 2


def test_a_terminal_is_no_source(monkeypatch):
    leader, terminal = os.openpty()
    monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, terminal))
    assert "is a terminal" in refused("-")
    os.close(leader)
    os.close(terminal)


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
