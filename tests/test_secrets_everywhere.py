"""No part of a user name or password gets out: not to the terminal, JSON, events, clips, the page or errors."""

import contextlib
import http.server
import json
import re
import threading
import urllib.request
from typing import ClassVar

import cv2
import pytest
from bundles import grey
from serving import serve

import vmp_edge
from vmp_edge.cli import main
from vmp_edge.errors import VmpError

# Port 9 answers nothing. What must not get out is written with these letters.
SECRETS = re.compile("R00T|P4SS|W0RD|S3CRET", re.I)
DEAD = [
    "rtsp://R00T:P4SS@W0RD@127.0.0.1:9/live",
    "rtsp://R00T:P4SS/W0RD@127.0.0.1:9/live",
    "rtsp://127.0.0.1:9/user=R00T&password=S3CRET&channel=1&stream=0.sdp",
    "http://127.0.0.1:9/CGIProxy.fcgi?cmd=x&usr=R00T&pwd=S3CRET",
    "http://127.0.0.1:9/mjpg?token=S3CRET",
    "rtsp:/R00T:P4SS@127.0.0.1/live",
    "R00T:P4SS@127.0.0.1:554/live",
    "rtspsrc location=rtsp://R00T:P4SS@127.0.0.1:9/a user-pw='S3CRET W0RD' ! decodebin",
    "videotestsrc user-pw=S3CRET ! x",
    "souphttpsrc location='http://R00T:P4SS@127.0.0.1:9/a?pwd=W0RD",
]


@pytest.mark.parametrize("source", DEAD)
def test_of_a_source_that_cannot_be_opened_no_secret_gets_out(source, bundle, capfd):
    for command in (
        ["run", str(bundle), "--headless", "--json", "--source", source],
        ["enroll", str(bundle), "--name", "a", "--source", source],
    ):
        assert main(command) == 1
        captured = capfd.readouterr()
        assert captured.err and not SECRETS.search(captured.out + captured.err)
    with pytest.raises(VmpError) as caught:
        vmp_edge.open_source(source)
    assert not SECRETS.search(str(caught.value))


@pytest.mark.parametrize(
    "sink",
    [
        "http://R00T:P4SS/W0RD@127.0.0.1:9/a",
        "http://R00T:P4SS@127.0.0.1:99999/a",
        "https://R00T:P4SS@/S3CRET",
        "ftp://R00T:P4SS@127.0.0.1/S3CRET",
        "mqtt://R00T:P4SS@127.0.0.1:9",
    ],
)
def test_of_a_sink_that_cannot_be_opened_no_secret_gets_out(sink, bundle, video, capfd):
    assert main(["run", str(bundle), "--headless", "--json", "--source", str(video), "--events", sink]) in (1, 2)
    captured = capfd.readouterr()
    assert captured.err and not SECRETS.search(captured.out + captured.err)


class Camera(http.server.BaseHTTPRequestHandler):
    """A camera that gets brighter and darker, and goes away after a while; and a webhook that takes no event."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        self.seen.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            for index in range(400):
                value = 40 + 2 * abs(index % 80 - 40)
                picture = cv2.imencode(".jpg", grey(value, 48, 64))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")

    def do_POST(self):
        self.send_error(400, "bad S3CRET of R00T")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_results_events_and_clips_of_a_live_source_have_no_secret(port, bundle, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("CAM_PASSWORD", "P4SS")
    monkeypatch.setattr("vmp_edge.masking._given", set())
    source = f"http://127.0.0.1:{port}/${{CAM_PASSWORD}}.mjpg?user=R00T&password=${{CAM_PASSWORD}}"
    sinks = [str(tmp_path / "events.jsonl"), f"http://R00T:W0RD@127.0.0.1:{port}/S3CRET"]
    events = [part for sink in sinks for part in ("--events", sink)]
    command = ["run", str(bundle), "--headless", "--json", "--source", source, "--clips", str(tmp_path / "clips")]
    options = ["--max-frames", "300", "--hop", "1", "--event-hold", "0", "--event-gap", "0", "--event-threshold", "0.4"]
    assert main([*command, *options, *events, "--pre-roll", "0.1", "--post-roll", "0.1"]) == 0
    assert "/P4SS.mjpg?user=R00T&password=P4SS" in Camera.seen
    captured = capfd.readouterr()
    summary = json.loads(captured.out.splitlines()[-1])["summary"]
    assert summary["source"] == f"http://127.0.0.1:{port}/***.mjpg?user=***&password=***"
    assert (
        summary["events"] and summary["clips"] and f"events did not reach http://127.0.0.1:{port}/***" in captured.err
    )
    assert not SECRETS.search(captured.out + captured.err)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".json", ".jsonl")]
    assert len(written) > 1 and not [path for path in written if SECRETS.search(path.name + path.read_text())]
    names = [path.name for path in (tmp_path / "clips").iterdir()]
    assert names and not SECRETS.search(" ".join(names))


def test_the_page_shows_no_secret(port, bundle):
    pytest.importorskip("aiohttp", reason="needs aiohttp, of the extra `serve`")
    sources = [f"http://127.0.0.1:{port}/a.mjpg?user=R00T&password=S3CRET", *DEAD[2:6]]
    process = serve(bundle, *[part for source in sources for part in ("--source", source)])
    address = json.loads(process.stdout.readline())["address"]
    for _ in range(600):
        with urllib.request.urlopen(f"{address}api/state", timeout=60) as answer:
            text = answer.read().decode()
        cameras = json.loads(text)["cameras"]
        if cameras[0]["windows"] and all(camera["message"] for camera in cameras[1:]):
            break
        threading.Event().wait(0.1)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert cameras[0]["name"] == f"http://127.0.0.1:{port}/a.mjpg?user=***&password=***"
    assert all(camera["message"] for camera in cameras[1:]) and err
    assert not SECRETS.search(text + out + err)


@pytest.mark.parametrize(
    "arguments",
    [
        ["rtsp://R00T:P4SS@127.0.0.1/a"],
        ["--source", "rtspsrc", "location=rtsp://R00T:P4SS@127.0.0.1/a", "user-pw=S3CRET", "!", "decodebin"],
        ["--source", "0", "--hop", "rtsp://R00T:P4SS/W0RD@127.0.0.1/a"],
    ],
)
def test_arguments_that_are_not_understood_show_no_secret(arguments, bundle, capfd):
    assert main(["run", str(bundle), "--json", *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.err and not SECRETS.search(captured.out + captured.err)


def test_a_data_set_that_is_an_address_shows_no_secret(bundle, capfd):
    assert main(["evaluate", str(bundle), "--json", "--data", "http://R00T:P4SS@127.0.0.1/a?password=S3CRET"]) == 1
    captured = capfd.readouterr()
    assert captured.err and not SECRETS.search(captured.out + captured.err)
