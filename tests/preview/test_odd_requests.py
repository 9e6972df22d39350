"""Odd requests to the preview get an answer that says so, never 500, and no traceback."""

import asyncio
import base64
import json
import random

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp, of the extra `serve`")

import aiohttp
from previewing import answer_to, camera, previewing

TOKEN = "correct-horse-battery"
DEEP = b"[" * 4000


def request(line, *headers, body=None, host="127.0.0.1"):
    """Return a request's bytes. Headers are bytes or text."""
    lines = [line, *([] if host is None else [f"Host: {host}"]), *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    encoded = [part if isinstance(part, bytes) else part.encode() for part in lines]
    return b"\r\n".join(encoded) + b"\r\nConnection: close\r\n\r\n" + (body or b"")


JSON = "Content-Type: application/json"
FORM = "Content-Type: application/x-www-form-urlencoded"
ODD = {
    "origin": (request("GET /api/state HTTP/1.1", "Origin: http://["), 400),
    "origin of another port": (request("GET /api/state HTTP/1.1", "Origin: http://127.0.0.1:1x"), 403),
    "origin not text": (request("GET /api/state HTTP/1.1", b"Origin: \xff\xfe"), 403),
    "host": (request("GET /api/state HTTP/1.1", host="[::1"), 400),
    "host not text": (request(b"GET /api/state HTTP/1.1", b"Host: \xff\xfe", host=None), 403),
    "host with fullwidth signs": (request("GET /api/state HTTP/1.1", host="a\uff0fb"), 400),
    "no host": (request("GET /api/state HTTP/1.0", host=None), 403),
    "two hosts": (request("GET /api/state HTTP/1.1", "Host: evil.example"), 400),
    "deep JSON": (request("POST /api/start HTTP/1.1", JSON, body=DEEP), 400),
    "deep objects": (request("POST /api/start HTTP/1.1", JSON, body=b'{"camera":' * 400), 400),
    "unknown charset": (request("POST /api/start HTTP/1.1", f"{JSON}; charset=foo", body=b"{}"), 400),
    "charset that is no text's": (request("POST /api/start HTTP/1.1", f"{JSON}; charset=zlib", body=b"{}"), 400),
    "charset not text": (request("POST /api/start HTTP/1.1", JSON.encode() + b"; charset=\xff\0", body=b"{}"), 400),
    "UTF-16": (
        request("POST /api/start HTTP/1.1", f"{JSON}; charset=utf-16", body='{"camera": 0}'.encode("utf-16")),
        400,
    ),
    "not UTF-8": (request("POST /api/start HTTP/1.1", JSON, body=b'{"camera": "\xff"}'), 400),
    "NUL": (request("POST /api/start HTTP/1.1", JSON, body=b"\0" * 20), 400),
    "infinite camera": (request("POST /api/start HTTP/1.1", JSON, body=b'{"camera": 1e400}'), 400),
    "huge camera": (request("POST /api/start HTTP/1.1", JSON, body=b'{"camera": ' + b"9" * 4000 + b"}"), 404),
    "negative camera": (request("POST /api/start HTTP/1.1", JSON, body=b'{"camera": -1}'), 404),
    "camera that is a list": (request("POST /api/start HTTP/1.1", JSON, body=b'{"camera": [0]}'), 400),
    "long body": (request("POST /api/start HTTP/1.1", JSON, body=b" " * 100_000), 413),
    "body not packed": (request("POST /api/start HTTP/1.1", "Content-Encoding: gzip", body=b"nonsense"), 400),
    "chunks that are none": (request("POST /api/start HTTP/1.1", "Transfer-Encoding: chunked") + b"zz\r\n", 400),
    "two lengths": (request("POST /api/start HTTP/1.1", "Content-Length: 5", body=b"{}"), 400),
    "negative length": (request("POST /api/start HTTP/1.1", "Content-Length: -5"), 400),
    "huge length": (request("POST /api/start HTTP/1.1", f"Content-Length: {10**30}"), None),
    "method": (request("DELETE /api/state HTTP/1.1"), 405),
    "method that is none": (request("\N{SNOWMAN} / HTTP/1.1"), 400),
    "TRACE": (request("TRACE / HTTP/1.1"), 405),
    "CONNECT": (request("CONNECT 127.0.0.1:80 HTTP/1.1"), None),
    "OPTIONS": (request("OPTIONS * HTTP/1.1"), None),
    "version": (request("GET / HTTP/9.9"), None),
    "no HTTP": (b"SSH-2.0-hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
    "long line": (request(f"GET /{'a' * 10_000} HTTP/1.1"), 400),
    "long header": (request("GET / HTTP/1.1", f"X: {'a' * 10_000}"), 400),
    "many headers": (request("GET / HTTP/1.1", *[f"X{i}: a" for i in range(500)]), 400),
    "header without a name": (request("GET / HTTP/1.1", ": a"), 400),
    "header with NUL": (request("GET / HTTP/1.1", b"X: a\0b"), 400),
    "percent": (request("GET /%zz%/%ff HTTP/1.1"), 404),
    "path with NUL": (request("GET /static/%00 HTTP/1.1"), 404),
    "path upwards": (request("GET /static/..%2fserver.py HTTP/1.1"), 404),
    "path upwards, plain": (request("GET /static/../server.py HTTP/1.1"), 404),
    "long name": (request(f"GET /static/{'a' * 5000} HTTP/1.1"), 404),
    "path not text": (request(b"GET /\xff\xfe HTTP/1.1"), None),
    "whole address": (request("GET http://[::1/ HTTP/1.1"), 400),
    "whole address with a port": (request("GET http://127.0.0.1:99999/ HTTP/1.1"), 400),
    "cookie": (request("GET /api/state HTTP/1.1", b'Cookie: a=\xff"; b; =; vmp_edge="\\777'), 200),
    "expectation": (request("POST /api/start HTTP/1.1", "Expect: miracles", body=b"{}"), 417),
    "expectation not text": (request("POST /api/start HTTP/1.1", b"Expect: \xff", body=b"{}"), 417),
    "expectation of no path": (request("GET /none HTTP/1.1", b"Expect: \xff"), 417),
    "expectation that is met": (request("GET /api/state HTTP/1.1", "Expect: 100-continue"), 100),
    "no WebSocket": (request("GET /api/events HTTP/1.1", "Upgrade: websocket"), 400),
    "WebSocket of no version": (
        request("GET /api/events HTTP/1.1", "Upgrade: websocket", "Sec-WebSocket-Version: 99999"),
        400,
    ),
    "range": (request("GET /static/preview.css HTTP/1.1", "Range: bytes=9-1,x"), 416),
    "date": (request("GET /static/preview.css HTTP/1.1", "If-Modified-Since: Sat, 99 Foo 99999 25:61:61 GMT"), 200),
    "login": (request("POST /login HTTP/1.1", "Content-Type: multipart/form-data", body=b"x"), 415),
    "login in parts": (
        request("POST /login HTTP/1.1", "Content-Type: multipart/form-data; boundary=x", body=b"--x"),
        415,
    ),
    "login with a charset": (request("POST /login HTTP/1.1", f"{FORM}; charset=foo", body=b"x"), 400),
    "login with many fields": (request("POST /login HTTP/1.1", FORM, body=b"a=1&" * 900), 400),
    "login not UTF-8": (request("POST /login HTTP/1.1", FORM, body=b"token=\xff"), 400),
    "login with half a sign": (request("POST /login HTTP/1.1", FORM, body=b"token=%ed%a0%80%zz%"), None),
}


def outcomes(recognizer, requests, token=None):
    """Return the status of each request's answer, and what was told."""
    told, statuses = [], []

    async def check():
        async with previewing(recognizer, {"a": camera}, token=token, tell=told.append) as (preview, session):
            for content in requests:
                statuses.append(await answer_to(preview.port, content))
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            assert (await session.get("/api/state", headers=headers)).status == 200

    asyncio.run(check())
    return statuses, told


def test_odd_requests_are_refused(recognizer, capfd, caplog):
    statuses, told = outcomes(recognizer, [content for content, _ in ODD.values()])
    wrong = {
        name: (status, expected)
        for (name, (_, expected)), status in zip(ODD.items(), statuses, strict=True)
        if (status != expected if expected is not None else status is not None and not 100 <= status < 500)
    }
    assert not wrong and not told and not caplog.records
    assert "Traceback" not in capfd.readouterr().err


def test_without_the_token_odd_requests_are_refused_too(recognizer, capfd, caplog):
    statuses, told = outcomes(recognizer, [content for content, _ in ODD.values()], TOKEN)
    for name, status in zip(ODD, statuses, strict=True):
        allowed = (200, 206, 304, 404, 405, 416) if ODD[name][0].startswith((b"GET /static", b"OPTIONS")) else ()
        assert status in (None, 100) or 400 <= status < 500 or status in allowed, name
    assert not told and not caplog.records and "Traceback" not in capfd.readouterr().err


def test_random_requests_never_make_it_fail(recognizer, capfd, caplog):
    random.seed(0)
    good = [content for content, _ in ODD.values()] + [request("GET / HTTP/1.1"), request("GET /api/state HTTP/1.1")]
    requests = []
    for _ in range(400):
        content = bytearray(random.choice(good))
        for _ in range(random.randrange(1, 6)):
            place = random.randrange(len(content))
            content[place : place + random.randrange(3)] = random.choice(
                [b"", b"\0", b"\xff", b"\r\n", b":", b"%", b"[", b"\\", b'"', random.choice(good)[:40]]
            )
        requests.append(bytes(content) + b"\r\n\r\n" + b"\r\n")
    limits = {"request": 0.3, "idle": 0.3}
    statuses, told = [], []

    async def check():
        from vmp_edge.preview.door import Limits

        async with previewing(recognizer, {"a": camera}, tell=told.append, limits=Limits(**limits)) as (preview, _):
            for start in range(0, len(requests), 20):
                answers = (answer_to(preview.port, content) for content in requests[start : start + 20])
                statuses.extend(await asyncio.gather(*answers))

    asyncio.run(check())
    assert not [
        (content, status)
        for content, status in zip(requests, statuses, strict=True)
        if status is not None and (status < 100 or status >= 500)
    ]
    assert not [text for text in told if "was not whole" not in text] and not caplog.records
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "text", ["[" * 1000, '{"picture":' * 90, "x", "", "[]", '{"picture": 1e400}', '{"picture": %s}' % ("9" * 900), "\0"]
)
def test_an_odd_message_of_a_page_is_answered_with_an_error(recognizer, text):
    async def check():
        told = []
        previewed = previewing(recognizer, {"a": camera}, tell=told.append)
        async with previewed as (_, session), session.ws_connect("/api/events") as events:
            await events.send_str(text)
            while (message := await events.receive(timeout=60)).type is not aiohttp.WSMsgType.TEXT or (
                json.loads(message.data)["type"] != "error"
            ):
                assert not events.closed
            await events.send_json({"picture": 0})  # it goes on
            while (await events.receive(timeout=60)).type is not aiohttp.WSMsgType.BINARY:
                assert not events.closed
        assert not told

    asyncio.run(check())


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # text that is not UTF-8
        (b"\x81\xfe\xff\xff\0\0\0\0" + bytes(1000), 1009),  # too long
        (b"\x83\x80\0\0\0\0", 1002),  # a kind that there is not
        (b"\xf1\x80\0\0\0\0", 1002),  # bits that mean nothing
        (b"\x88\x81\0\0\0\0\0", 1002),  # a closing frame with half a code
    ],
)
def test_a_broken_frame_closes_the_page_s_socket_with_a_code(recognizer, frame, code, capfd, caplog):
    async def check():
        told = []
        async with previewing(recognizer, {"a": camera}, tell=told.append) as (preview, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", preview.port)
            key = base64.b64encode(bytes(16)).decode()
            head = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
            content = request("GET /api/events HTTP/1.1", *head).replace(b"Connection: close", b"Connection: Upgrade")
            writer.write(content)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            received = await asyncio.wait_for(reader.read(-1), 60)
            writer.close()
        assert not told
        return received

    received = asyncio.run(check())
    assert received[-200:].find(b"\x88") >= 0 and code.to_bytes(2, "big") in received[-200:]
    assert not caplog.records and "Traceback" not in capfd.readouterr().err


def test_a_failure_that_nobody_has_thought_of_is_one_line(recognizer, capfd, caplog):
    async def check():
        told = []
        async with previewing(recognizer, {"a": camera}, tell=told.append) as (preview, session):
            preview.state = lambda: {}["missing"]
            for _ in range(5):
                response = await session.get("/api/state")
                assert response.status == 500 and await response.json() == {"error": "the server failed"}
        return told

    assert asyncio.run(check()) == ["a request to the page failed: KeyError: 'missing'"]
    assert not caplog.records and not capfd.readouterr().err
