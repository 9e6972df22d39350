"""Events reach files and web servers, or are counted as lost. Recognition never waits for them."""

import base64
import contextlib
import dataclasses
import http.server
import json
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from delivering import QUICK, make_event
from synthetic_sources import wait_until

from vmp_edge.errors import UsageError
from vmp_edge.events.outbox import Outbox
from vmp_edge.events.sinks import Delivery, SinkError, open_sink

# Files


def test_lines_are_appended_to_a_file_and_each_is_complete_at_once(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"old": true}\n')
    sink = open_sink(str(path), print)
    sink.put(make_event(1, "Grüße"))
    assert [json.loads(line) for line in path.read_text().splitlines()][1]["label"] == "Grüße"
    sink.put(make_event(2))
    sink.close()
    assert len(path.read_text().splitlines()) == 3


def test_a_file_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(SinkError, match="No such file or directory"):
        open_sink(str(tmp_path / "none" / "a.jsonl"), print)
    messages = []
    sink = open_sink("/dev/full", messages.append)
    sink.put(make_event(1))
    sink.put(make_event(2))
    assert messages == ["events cannot be written to /dev/full: No space left on device"] and sink.failed == 2


def test_a_half_line_is_not_joined_with_the_next(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "start", "numb')  # an earlier run was cut off
    sink = open_sink(str(path), print)
    sink.put(make_event(1))
    sink.put(make_event(2))
    sink.close()
    half, *lines = path.read_bytes().splitlines()
    assert half == b'{"event": "start", "numb' and [json.loads(line)["number"] for line in lines] == [1, 2]


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_whole_lines_and_all_events_are_counted(tmp_path):
    path, messages, room = tmp_path / "events.jsonl", [], len(make_event(1).to_json()) + 20
    sink = open_sink(str(path), messages.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        for number in (1, 2, 3):
            sink.put(make_event(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    sink.put(make_event(4))
    sink.close()
    sink.close()
    assert [json.loads(line)["number"] for line in path.read_bytes().splitlines()] == [1, 4]
    assert (sink.written, sink.failed) == (2, 2) and len(messages) == 2
    assert "File too large" in messages[0] and messages[1].startswith("2 of 4 events are missing in ")


def test_a_half_line_that_cannot_be_taken_away_is_ended(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    sink = open_sink(str(path), print)
    write = sink._file.write

    class Full:
        """A disk that takes 10 bytes, and then no more."""

        def __init__(self, file):
            self.file, self.left = file, 10

        def write(self, content):
            if not self.left:
                raise OSError(28, "No space left on device")
            count, self.left = self.file.write(content[: self.left]), 0
            return count

        def __getattr__(self, name):
            return getattr(self.file, name)

    whole, sink._file = sink._file, Full(sink._file)
    monkeypatch.setattr("os.ftruncate", lambda *arguments: write(b"x"))  # another program has written meanwhile
    monkeypatch.setattr("os.fstat", lambda file: os.stat_result([0] * 10))
    sink.put(make_event(1))
    sink._file = whole
    sink.put(make_event(2))
    sink.close()
    half, line = path.read_bytes().splitlines()
    assert len(half) == 10 and json.loads(line)["number"] == 2


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/a",
        "http://a..b/",
        "http://host:pass/word@x",
        "http://",
        "http:///a",
        "http://host:99999/",
        "mqtt://host",
        "mqtt://host/a/#",
        "mqtt:///a",
    ],
)
def test_invalid_addresses_are_refused(text):
    if text.startswith("mqtt"):
        pytest.importorskip("paho", reason="needs paho-mqtt, the extra `mqtt`")
    with pytest.raises(UsageError):
        open_sink(text, print)


# Webhooks


class Hook(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted in the server's `requests`, and answers with the codes in its `answers`."""

    def do_POST(self):
        server = self.server
        server.gate.wait(timeout=60)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = server.answers.pop(0) if server.answers else 200
        server.requests.append((code, dict(self.headers), json.loads(body)))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.daemon_threads = True
    server.gate, server.answers, server.requests = threading.Event(), [], []
    server.gate.set()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()


def address(server):
    return f"http://127.0.0.1:{server.server_port}/hook?key=1"


def test_events_are_posted_in_order(hook):
    sink = open_sink(address(hook).replace("//", "//us%40er:pass@"), print, QUICK)
    for number in (1, 2, 3):
        sink.put(make_event(number))
    sink.close()
    assert [body for _, _, body in hook.requests] == [make_event(number).to_dict() for number in (1, 2, 3)]
    headers = hook.requests[0][1]
    assert headers["Content-Type"] == "application/json"
    assert base64.b64decode(headers["Authorization"].split()[1]) == b"us@er:pass"
    assert (sink.sent, sink.dropped, sink.failed) == (3, 0, 0)


def test_an_event_is_tried_again_and_then_given_up(hook):
    messages = []
    hook.answers = [503, 429, 200, 500, 500, 500, 200]
    sink = open_sink(address(hook), messages.append, QUICK)
    for number in (1, 2, 3):
        sink.put(make_event(number))
    sink.close()
    assert [(code, body["number"]) for code, _, body in hook.requests] == [
        *[(503, 1), (429, 1), (200, 1)],
        *[(500, 2), (500, 2), (500, 2)],
        (200, 3),
    ]
    assert (
        "answers 500" in messages[0]
        and messages[1].startswith("events reach")
        and messages[2].startswith("1 of 3 events")
    )


@pytest.mark.parametrize("code", [302, 400, 404])
def test_a_refused_event_is_not_tried_again(hook, code):
    messages = []
    hook.answers = [code]
    sink = open_sink(address(hook), messages.append, QUICK)
    sink.put(make_event(1))
    sink.close()
    assert len(hook.requests) == 1 and sink.failed == 1 and f"answers {code}" in messages[0]


def test_put_does_not_wait_for_a_slow_receiver_and_the_oldest_events_are_dropped(hook):
    messages = []
    hook.gate.clear()
    sink = open_sink(address(hook), messages.append, QUICK)
    sink.put(make_event(0))
    wait_until(lambda: not sink._waiting)  # it is being sent
    for number in range(1, 101):  # returns, although the receiver does not move
        sink.put(make_event(number))
    assert sink.dropped == 92
    hook.gate.set()
    sink.close()
    assert [body["number"] for _, _, body in hook.requests] == [0, *range(93, 101)]
    assert messages[-1].startswith("92 of 101 events did not reach http://127.0.0.1")


def test_a_refused_connection_is_reported_without_the_password_and_closing_does_not_hang():
    with socket.socket() as reserved:  # a port on which nobody listens
        reserved.bind(("127.0.0.1", 0))
        messages = []
        url = f"http://user:secret@127.0.0.1:{reserved.getsockname()[1]}/"
        sink = open_sink(url, messages.append, Delivery(first_pause=3600.0, flush=0.1))
        sink.put(make_event(1))
        sink.put(make_event(2))
        sink.close()
        sink.close()
    assert "Connection refused" in messages[0] and messages[-1].startswith("2 of 2 events")
    assert not any("secret" in text for text in messages) and not sink._thread.is_alive()


def test_a_server_that_does_not_speak_http_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-hello\r\n")

        threading.Thread(target=answer, daemon=True).start()
        messages = []
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        sink = open_sink(url, messages.append, Delivery(tries=1))
        sink.put(make_event(1))
        sink.close()
    assert "does not answer as a web server" in messages[0]


class Slow(threading.Thread):
    """A server that takes each request, and then sends what `answer` says, a byte at a time."""

    def __init__(self, head, pause, context=None):
        super().__init__(daemon=True)
        self.head, self.pause, self.requests, self.context = head, pause, 0, context
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.socket.accept()[0],), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError), connection:
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            connection.recv(65536)
            self.requests += 1
            connection.sendall(self.head)
            while True:
                time.sleep(self.pause)
                connection.sendall(b"x")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()


def test_an_answer_that_drips_holds_up_no_event():
    with Slow(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 0.05) as server:
        sink = open_sink(f"http://127.0.0.1:{server.port}/", print, Delivery(tries=1, flush=30.0))
        for number in range(10):
            sink.put(make_event(number))
        sink.close()
    assert (sink.sent, sink.failed, server.requests) == (10, 0, 10)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 "])
def test_an_exchange_has_one_limit_of_time_and_every_lost_event_is_counted(head):
    messages = []
    with Slow(head, 0.01) as server:
        sink = open_sink(
            f"http://127.0.0.1:{server.port}/", messages.append, Delivery(tries=1, timeout=0.2, flush=0.5, kept=4)
        )
        for number in range(8):
            sink.put(make_event(number))
        sink.close()
    assert "timed out" in messages[0] and messages[-1].startswith("8 of 8 events")
    assert sink.sent + sink.dropped + sink.failed == 8


def test_an_exchange_over_tls_has_one_limit_of_time_too(tmp_path, monkeypatch):
    program = shutil.which("openssl") or pytest.skip("needs the program openssl")
    names = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *subject]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    for head, timeout, sent in ((b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", 30.0, 2), (b"HTTP/1.1 2", 0.5, 0)):
        messages = []
        with Slow(head, 0.02, context) as server:
            sink = open_sink(
                f"https://localhost:{server.port}/", messages.append, Delivery(tries=1, timeout=timeout, flush=60.0)
            )
            sink.put(make_event(1))
            sink.put(make_event(2))
            sink.close()
        assert sink.sent == sent and (not messages if sent else "timed out" in messages[0]), messages


@pytest.mark.parametrize("location", ["http://[", "file:///etc/passwd", "//elsewhere/"])
def test_no_redirect_is_followed_wherever_it_leads(location):
    messages = []
    with Slow(f"HTTP/1.1 307 Gone\r\nLocation: {location}\r\n\r\n".encode(), 9) as server:
        sink = open_sink(f"http://u:secret@127.0.0.1:{server.port}/key", messages.append, QUICK)
        sink.put(make_event(1))
        sink.close()
    assert "answers 307 Gone" in messages[0] and server.requests == 1 and sink.failed == 1


class Stuck:
    """A carrier that never comes back, or fails in a way that nobody has thought of."""

    def __init__(self, error=None):
        self.error, self.sent, self.gate = error, 0, threading.Event()

    def send(self, payload, timeout):
        self.sent += 1
        if self.error is not None:
            raise self.error
        self.gate.wait(timeout=60)

    def close(self):
        pass


def test_an_event_that_is_still_on_its_way_counts_as_lost():
    messages, carrier = [], Stuck()
    sink = Outbox("nobody", carrier, messages.append, Delivery(timeout=0.1, flush=0.1))
    for number in range(3):
        sink.put(make_event(number))
    wait_until(lambda: carrier.sent)
    sink.close()
    sink.put(make_event(4))
    carrier.gate.set()
    sink._thread.join(60)
    assert messages == ["3 of 3 events did not reach nobody"] and (sink.sent, sink.failed, sink.dropped) == (0, 3, 1)


def test_a_failure_that_nobody_has_thought_of_costs_one_event():
    messages, carrier = [], Stuck(ZeroDivisionError("odd"))
    sink = Outbox("nobody", carrier, messages.append, QUICK)
    sink.put(make_event(1))
    sink.put(dataclasses.replace(make_event(2), peak=float("nan")))  # JSON has no way to write it
    sink.close()
    assert messages == [
        "an event did not reach nobody: ZeroDivisionError: odd",
        "2 of 2 events did not reach nobody",
    ]


def test_no_message_tells_a_webhook_s_secrets(hook):
    messages = []
    hook.answers = [404]
    url = (
        address(hook)
        .replace("//", "//user:hunter2@")
        .replace("/hook?key=1", "/services/T0SECRET?x=K3YVALUE\n\N{SNOWMAN}")
    )
    sink = open_sink(url, messages.append, QUICK)
    sink.put(make_event(1))
    sink.close()
    assert messages and f"http://127.0.0.1:{hook.server_port}/***" in messages[0]
    assert not [text for text in ("hunter2", "T0SECRET", "K3YVALUE") if text in "".join(messages) + sink._thread.name]


# One event


def test_an_event_is_one_line_of_json():
    assert b"\n" not in make_event(1, "two\nlines").to_json()
