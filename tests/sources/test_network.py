"""Network sources: videos on web servers, and live streams that are lost and come back."""

import contextlib
import functools
import http.server
import os
import subprocess
import threading
from pathlib import Path

import cv2
import pytest
from bundles import SUPPORT, grey
from source_helpers import error_of, open_source, read_all

from vmp_edge.sources import Pauses
from vmp_edge.video import decoder


@pytest.fixture
def web(tmp_path):
    """The host and port of a web server that serves the temporary folder."""
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


def test_the_error_of_a_url_does_not_contain_the_password():
    text = error_of("rtsp://robot:secret@127.0.0.1:9/stream")
    assert "rtsp://127.0.0.1:9/stream cannot be opened" in text and "secret" not in text


class Flaky(http.server.BaseHTTPRequestHandler):
    """A network camera that refuses every second request. To the others it sends three frames of MJPEG.

    After every third request it also sends half a frame before it hangs up.
    """

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


def resources():
    """Return the numbers of open files and threads of this process, and its memory in bytes."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files, threads = (len(list(Path(f"/proc/self/{kind}").iterdir())) for kind in ("fd", "task"))
    return files, threads, resident


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts in /proc, which only Linux has")
def test_a_stream_that_is_lost_and_back_a_hundred_times_leaks_nothing():
    server = http.server.HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    messages = []
    with contextlib.closing(
        open_source(f"http://127.0.0.1:{server.server_port}/a.mjpg", messages.append, pauses=Pauses(0.001, 0.002))
    ) as source:
        assert source.live
        returns, frames, early = 0, 0, None
        while returns < 100:
            frame = source.read()
            assert frame.image.shape == (48, 64, 3)
            returns += frame.restarted
            frames += 1
            if returns == 20 and early is None:  # by then, everything that is allocated only once exists
                early = resources()
        late = resources()
    server.shutdown()
    server.server_close()
    assert sum(text.endswith(" is back") for text in messages) == 100 and frames >= 300
    assert sum("cannot be opened" in text for text in messages) >= 100
    assert late[0] <= early[0] + 1 and late[1] <= early[1] + 1, "at each moment, one connection may be open or not"
    assert late[2] - early[2] < 2 << 20


def test_a_stream_that_stalls_is_opened_again(monkeypatch):
    """The connection stays open, but no frames come."""
    monkeypatch.setattr(decoder, "READ_TIMEOUT", 0.3)
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
        open_source(f"http://127.0.0.1:{server.server_port}/a.mjpg", (messages := []).append)
    ) as source:
        while not source.read().restarted:
            pass
    released.set()
    server.shutdown()
    server.server_close()
    assert "gives no more frames" in messages[0]
    assert any(message.endswith(" is back") for message in messages)


def rtsp_server(port=0):
    """Start an RTSP camera in the system's Python, which has the bindings. Return the process and the port."""
    command = ["/usr/bin/python3", str(SUPPORT / "rtsp_server.py"), str(port)]
    reason = "needs GStreamer's RTSP server: apt install python3-gi gir1.2-gst-rtsp-server-1.0"
    if not Path(command[0]).exists():
        pytest.skip(reason)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    first_line = process.stdout.readline().strip()
    if not first_line:
        process.wait()
        pytest.skip(reason)
    return process, int(first_line)


def test_an_rtsp_camera_that_is_switched_off_and_on_again():
    process, port = rtsp_server()
    try:
        source = open_source(f"rtsp://user:secret@127.0.0.1:{port}/camera", (messages := []).append)
        assert source.live and source.read().image.shape == (48, 64, 3)
        early = resources()
        for _ in range(3):
            process.kill()
            process.wait()
            process.stdout.close()
            process, _ = rtsp_server(port)
            while not source.read().restarted:
                pass
        assert resources()[:2] == early[:2]
        source.close()
        assert source.read() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert sum(text.endswith(" is back") for text in messages) == 3 and not any("secret" in text for text in messages)
