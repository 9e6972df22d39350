"""Videos from the network: recorded or live, servers that say nothing, pictures that cannot be decoded."""

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time

import cv2
import pytest
from bundles import grey
from source_helpers import error_of, open_source, read_all
from videos import make_video

from vmp_edge.errors import SourceError
from vmp_edge.sources import Pauses
from vmp_edge.stream.capture import CaptureRun
from vmp_edge.video import decoder


@contextlib.contextmanager
def serving(handler):
    """Serve with a handler's class, and yield the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def mute_server():
    """A server that takes connections and never says anything. Yields its host and port."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=50)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def files_of(folder, way):
    """A handler that serves a folder's files with their length, in chunks, or until it hangs up."""

    class Files(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            content = (folder / self.path[1:]).read_bytes()
            self.send_response(200)
            self.send_header("Connection", "close")
            self.close_connection = True
            if way == "length":
                self.send_header("Content-Length", str(len(content)))
            elif way == "chunks":
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for start in range(0, len(content), 4096):
                    part = content[start : start + 4096]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if way == "chunks" else part)
                if way == "chunks":
                    self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *arguments):
            pass

    return Files


@pytest.mark.parametrize("way", ["length", "chunks", "hanging up"])
@pytest.mark.parametrize("name", ["a.ts", "a.h264", "a.gif", "a.mjpeg", "a.webm", "a.mp4", "a.flv", "a.mkv"])
def test_a_file_on_a_web_server_is_played_once_like_a_local_file(tmp_path, name, way):
    suffix = name.split(".")[1]
    if suffix == "mjpeg" and way == "hanging up":
        pytest.skip(
            "FFmpeg takes the end of an answer without a length for an error, and here it comes while it probes"
        )
    codec = {"gif": "gif", "mjpeg": "mjpeg", "webm": "libvpx"}.get(suffix, "libx264")
    container = {"mp4": {"movflags": "faststart"}, "webm": {"live": "1"}}.get(suffix, {})
    options = {"format": suffix} if suffix in ("h264", "mjpeg") else {}
    path = make_video(tmp_path / name, 40, codec=codec, container=container, **options)
    local = read_all(open_source(str(path)))
    messages = []
    with serving(files_of(tmp_path, way)) as address:
        source = open_source(f"{address}/{name}", messages.append)
        frames = read_all(source)
    assert not source.live and not messages
    assert [frame.timestamp for frame in frames] == [frame.timestamp for frame in local] and len(frames) == 40
    assert all((one.image == other.image).all() for one, other in zip(frames, local, strict=True))


def test_a_file_whose_server_dies_says_that_the_rest_is_missing(tmp_path):
    make_video(tmp_path / "a.mp4", 90, container={"movflags": "faststart"})

    class Dying(files_of(tmp_path, "length")):
        def do_GET(self):  # noqa: N802
            content = (tmp_path / "a.mp4").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.close_connection = True
            self.wfile.write(content[: 2 * len(content) // 3])

    messages = []
    with serving(Dying) as address:
        frames = read_all(open_source(f"{address}/a.mp4", messages.append))
    assert 0 < len(frames) < 90
    assert len(messages) == 1 and f"ended after {len(frames)} of 90 frames" in messages[0]


def camera(bad, *, rate=50.0, total=10**6):
    """A handler that plays a network camera. `bad` says which pictures are no pictures."""
    good = cv2.imencode(".jpg", grey(90, 48, 64))[1].tobytes()

    class Camera(http.server.BaseHTTPRequestHandler):
        calls = 0

        def do_GET(self):
            type(self).calls += 1
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            with contextlib.suppress(OSError):
                for index in range(total):
                    picture = bytes(50) if bad(index) else good
                    self.wfile.write(b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture))
                    self.wfile.write(picture + b"\r\n")
                    time.sleep(1 / rate)

        def log_message(self, *arguments):
            pass

    return Camera


def test_a_bad_picture_does_not_drop_a_live_stream():
    handler, messages = camera(lambda index: index % 5 == 3), []
    with serving(handler) as address:
        source = open_source(f"{address}/a.mjpg", messages.append)
        before = time.monotonic()
        frames = [source.read() for _ in range(40)]
        source.close()
    assert source.live and handler.calls == 1 and not any(frame.restarted for frame in frames)
    assert all(before - 5 < frame.timestamp <= time.monotonic() for frame in frames)
    assert source.undecodable >= 9
    assert 1 <= len(messages) <= 2 and all("could not be decoded" in text for text in messages)


def test_a_live_stream_of_bad_pictures_alone_is_given_up(monkeypatch):
    monkeypatch.setattr(decoder, "_BAD_SECONDS", 0.2)
    messages = []
    with serving(camera(lambda index: 20 < index < 60, rate=100)) as address:
        source = open_source(f"{address}/a.mjpg", messages.append)
        while not source.read().restarted:
            pass
        source.close()
    assert any("no frames that can be decoded; trying again" in text for text in messages)


def test_the_pause_is_short_again_after_a_connection_that_worked():
    """A camera that hangs up after half a second is back after the first pause every time."""
    messages = []
    with serving(camera(lambda index: False, rate=40, total=10)) as address:
        source = open_source(f"{address}/a.mjpg", messages.append, pauses=Pauses(0.05, 10))
        for _ in range(50):
            source.read()
        source.close()
    waits = [text.rpartition("trying again in ")[2] for text in messages if "trying again" in text]
    assert len(waits) >= 4 and set(waits) == {"0.05 s"}


SCHEMES = ["http", "rtsp", "tcp"]


@pytest.mark.parametrize("av", ["pyav", "opencv"])
@pytest.mark.parametrize("scheme", SCHEMES[:2])
def test_a_mute_server_does_not_hold_up_others_and_is_given_up(video, monkeypatch, scheme, av):
    if av == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(decoder, "OPEN_TIMEOUT", 1.5)
    failures = []

    def open_mute(address):
        try:
            open_source(f"{scheme}://user:secret@{address}/a")
        except SourceError as error:
            failures.append(str(error))

    with mute_server() as address:
        threads = [threading.Thread(target=open_mute, args=(address,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        assert len(read_all(open_source(str(video)))) == 60
        assert not failures, "the file was read while the others waited"
        for thread in threads:
            thread.join(timeout=60)
    assert len(failures) == 3
    assert all("cannot be opened" in text and "secret" not in text and "\n" not in text for text in failures)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("delay", [0.3, 1.2])
def test_a_program_ends_at_once_while_a_server_says_nothing(scheme, delay):
    """By SIGTERM, in the main thread, at any moment; and without a crash though FFmpeg still waits."""
    script = (
        "import sys, threading\n"
        "from vmp_edge import open_source\n"
        "def ended(*_): raise SystemExit(7)\n"
        "import signal; signal.signal(signal.SIGTERM, ended)\n"
        "print('ready', flush=True)\n"
        "open_source(sys.argv[1])\n"
    )
    with mute_server() as address:
        command = [sys.executable, "-c", script, f"{scheme}://{address}/a"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        began = time.monotonic()
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 7 and not errors
        assert time.monotonic() - began < 5, "a generous limit: the timeout of the server is 10 s"


def test_a_live_stream_that_freezes_can_be_closed(monkeypatch):
    released = threading.Event()

    class Freezing(camera(lambda index: False, total=5)):
        def handle(self):
            super().handle()
            released.wait(60)

        def finish(self):
            released.wait(60)
            super().finish()

    with serving(Freezing) as address:
        source = open_source(f"{address}/a.mjpg")
        got = []
        reader = threading.Thread(target=lambda: got.extend(iter(source.read, None)))
        reader.start()
        while len(got) < 5:
            time.sleep(0.01)
        source.close()
        reader.join(timeout=5)
        assert not reader.is_alive()
        released.set()


def test_stopping_a_camera_ends_its_opening():
    """Its server takes connections and says nothing."""
    with mute_server() as address:
        failures = []

        def capture(run):
            try:
                open_source(f"http://{address}/a", cancelled=run.cancelled)
            except SourceError as error:
                failures.append(str(error))

        run = CaptureRun("a camera", capture)
        run.thread.start()
        time.sleep(0.3)
        run.stop()
        run.thread.join(timeout=5)
        assert not run.thread.is_alive() and "closed while" in failures[0]


def test_errors_of_servers_are_told():
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    with serving(Refusing) as address:
        text = error_of(f"{address.replace('http://', 'http://u:secret@')}/a.mp4")
    assert "404" in text and "secret" not in text


def test_an_address_that_failed_can_be_tried_again():
    """A failure must not look like a cancellation, or a camera that is off would never be tried again."""
    cancelled = threading.Event()
    for _ in range(2):
        with pytest.raises(SourceError, match="cannot be opened"):
            open_source("http://127.0.0.1:9/off.mjpg", cancelled=cancelled)
        assert not cancelled.is_set()
