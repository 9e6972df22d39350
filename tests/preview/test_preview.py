"""The preview's server: what it sends, whom it lets in, and that no viewer slows recognition down."""

import asyncio
import base64
import itertools
import json
import signal
import socket
import struct
import sys

import cv2
import numpy as np
import pytest
from bundles import make_manifest, write_bundle
from serving import serve
from synthetic_sources import SyntheticCamera

from vmp_edge.cli import main
from vmp_edge.errors import BundleError, SourceError, UsageError
from vmp_edge.recognizer import load

pytest.importorskip("aiohttp", reason="needs aiohttp, of the extra `serve`")

import aiohttp
from previewing import camera, come_true, previewing

from vmp_edge.preview import pictures
from vmp_edge.preview.access import Access, is_loopback
from vmp_edge.preview.server import Preview, PreviewError

TOKEN = "correct-horse-battery"


async def next_of(events, kind):
    """Return the next message of a kind. The kind of pictures is `picture`."""
    async for message in events:
        if message.type == aiohttp.WSMsgType.BINARY:
            if kind == "picture":
                return message.data
        elif (content := json.loads(message.data))["type"] == kind:
            return content
    raise AssertionError(f"it ended before a {kind}")


# What it sends


def test_state_start_and_stop(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera, "b": camera}, top=2) as (preview, session):
            await come_true(lambda: all(item.statistics().windows > 2 for item in preview.cameras))
            state = await (await session.get("/api/state")).json()
            assert state["bundle"]["labels"] == ["brighter", "darker", "steady"]
            assert state["bundle"]["name"] == "brightness" and state["viewers"] == 0
            for index, item in enumerate(state["cameras"]):
                facts = [item[key] for key in ("index", "name", "state", "dropped")]
                assert facts == [index, "ab"[index], "running", 0]
                assert item["frames"] >= item["windows"] > 2 and item["latency_ms"]["p95"] > 0
                assert len(item["result"]["top"]) == 2 and item["result"]["label"] in state["bundle"]["labels"]
            stopped = await (await session.post("/api/stop", json={"camera": 1})).json()
            assert [item["state"] for item in stopped["cameras"]] == ["running", "stopped"]
            assert stopped["cameras"][1]["frames_per_second"] == 0
            assert [item.state for item in preview.cameras] == ["running", "stopped"]
            await session.post("/api/stop")
            assert [item.state for item in preview.cameras] == ["stopped", "stopped"]
            await session.post("/api/start")
            await come_true(lambda: all(item.state == "running" for item in preview.cameras))

    asyncio.run(check())


def test_windows_in_which_nothing_moves_are_marked(recognizer):
    async def check():
        sources = {"still": lambda: camera((80,))}
        async with previewing(recognizer, sources, motion_gate=3.0) as (preview, session):
            await come_true(lambda: preview.cameras[0].statistics().skipped > 5)
            (state,) = (await (await session.get("/api/state")).json())["cameras"]
            assert state["skipped"] > 5 and state["level"] == 0 and state["result"]["skipped"] is True

    asyncio.run(check())


def test_a_window_that_fills_up_is_told(tmp_path):
    async def check(recognizer):
        async with previewing(recognizer, {"a": camera}) as (preview, session):
            await come_true(lambda: preview.cameras[0].statistics().filled > 0.001)
            (state,) = (await (await session.get("/api/state")).json())["cameras"]
            assert state["window_s"] == 75.0 and 0 < state["filled"] < 0.1 and state["result"] is None

    with load(write_bundle(tmp_path / "long", make_manifest(span=100.0))) as recognizer:
        asyncio.run(check(recognizer))


def test_wrong_requests_are_refused(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera}) as (_, session):
            for body in ("nonsense", "[1]", '{"camera": "0"}', '{"camera": true}', '"x"', b"\xff"):
                response = await session.post("/api/stop", data=body)
                assert response.status == 400 and "camera" in (await response.json())["error"], body
            response = await session.post("/api/start", json={"camera": 7})
            assert response.status == 404 and "no camera 7" in (await response.json())["error"]
            assert (await session.post("/api/stop", data="x" * 5000)).status == 413
            assert (await session.get("/api/stop")).status == 405
            assert (await session.get("/static/../server.py")).status == 404
            assert (await session.get("/api/events")).status == 400

    asyncio.run(check())


def test_events_have_the_history_and_then_the_news(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera, "b": camera}) as (preview, session):
            await come_true(lambda: preview.cameras[1].statistics().windows > 5)
            async with session.ws_connect("/api/events") as events:
                hello = await next_of(events, "hello")
                assert hello["bundle"]["labels"] == ["brighter", "darker", "steady"] and hello["viewers"] == 0
                assert len(hello["history"]) == 2 and len(hello["history"][1]["results"]) > 5
                result = await next_of(events, "result")
                assert hello["history"][result["camera"]]["results"][-1]["time"] < result["time"]
                assert result["top"][0][0] in hello["bundle"]["labels"] and result["latency_ms"] > 0
                state = await next_of(events, "state")
                assert len(state["cameras"]) == 2 and state["now"] >= result["time"]
                for nonsense in (
                    "x",
                    "[]",
                    '{"picture": 2}',
                    '{"picture": -1}',
                    '{"picture": "0"}',
                    '{"picture": true}',
                ):
                    await events.send_str(nonsense)
                await events.send_bytes(b"\x00")
                await next_of(events, "state")  # it is still there
                assert preview.state()["viewers"] == 1
            await come_true(lambda: preview.state()["viewers"] == 0)

    asyncio.run(check())


def test_a_picture_is_the_newest_and_comes_when_asked_for(recognizer):
    tall = np.zeros((1200, 400, 3), np.uint8)
    tall[:, :, 2] = 200  # red: OpenCV's order

    async def check():
        sources = {"grey": camera([120], hold=True), "tall": camera([tall])}
        async with previewing(recognizer, sources) as (_, session), session.ws_connect("/api/events") as events:
            await next_of(events, "state")
            for index, shape in ((0, (24, 32, 3)), (1, (800, 267, 3))):
                await events.send_json({"picture": index})
                message = await next_of(events, "picture")
                assert struct.unpack(">II", message[:8])[0] == index
                picture = cv2.imdecode(np.frombuffer(message[8:], np.uint8), cv2.IMREAD_COLOR)
                assert picture.shape == shape
                expected = [0, 0, 200] if index else [120] * 3
                np.testing.assert_allclose(picture.mean((0, 1)), expected, atol=3)
            first = struct.unpack(">II", message[:8])[1]
            await events.send_json({"picture": 1})
            assert struct.unpack(">II", (await next_of(events, "picture"))[:8])[1] > first, "none is sent twice"

    asyncio.run(check())


# No viewer slows recognition down


def test_a_picture_is_encoded_once_for_all_and_only_for_somebody(recognizer, monkeypatch):
    encoded = []
    encode = pictures.encode
    monkeypatch.setattr(pictures, "encode", lambda image: (encoded.append(image), encode(image))[1])

    async def watch(session, numbers):
        async with session.ws_connect("/api/events") as events:
            for _ in range(6):
                await events.send_json({"picture": 0})
                numbers.append(struct.unpack(">II", (await next_of(events, "picture"))[:8])[1])

    async def check():
        frames = ([np.full((24, 32, 3), value, np.uint8)] for value in range(250))
        source = SyntheticCamera((frame for [frame] in frames), 60, hold=True)
        async with previewing(recognizer, {"a": source}) as (preview, session):
            await come_true(lambda: preview.cameras[0].statistics().windows > 5)
            assert encoded == [], "nobody watches"
            async with session.ws_connect("/api/events") as events:
                await next_of(events, "state")
                assert encoded == [], "nor does a page that asks for no picture"
            numbers = [[] for _ in range(4)]
            await asyncio.gather(*(watch(session, row) for row in numbers))
        distinct = set(itertools.chain(*numbers))
        assert len(encoded) == len(distinct) < 4 * 6
        assert all(earlier < later for row in numbers for earlier, later in itertools.pairwise(row))

    asyncio.run(check())


async def stuck_viewer(port):
    """Open a WebSocket that will never be read."""
    viewer = socket.socket()
    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    viewer.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(viewer, ("127.0.0.1", port))
    key = base64.b64encode(bytes(16)).decode()
    head = f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    await loop.sock_sendall(viewer, f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
    return viewer


async def keep_asking(viewer):
    text = b'{"picture": 0}'
    frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text  # masked with zeros
    while True:
        await asyncio.get_running_loop().sock_sendall(viewer, frame)
        await asyncio.sleep(0.02)


NOISE = [np.random.default_rng(seed).integers(0, 256, (700, 800, 3), np.uint8) for seed in range(2)]


def test_a_viewer_that_never_reads_slows_neither_recognition_nor_others(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera(NOISE, 60)}) as (preview, session):
            viewer = await stuck_viewer(preview.port)
            asking = asyncio.create_task(keep_asking(viewer))
            await come_true(lambda: preview._viewers)
            (stuck,) = preview._viewers
            transport = stuck._socket._req.transport
            await come_true(lambda: stuck._sending.locked() and transport.get_write_buffer_size() > 0)
            while True:  # what the system buffers is used up when nothing moves any more
                waiting = transport.get_write_buffer_size()
                await asyncio.sleep(0.3)
                if stuck._sending.locked() and transport.get_write_buffer_size() == waiting > 0:
                    break
            before = preview.cameras[0].statistics().windows
            async with session.ws_connect("/api/events") as events:
                for _ in range(8):
                    await events.send_json({"picture": 0})
                    assert len(await next_of(events, "picture")) > 100_000
                result = await next_of(events, "result")
                await come_true(lambda: preview.cameras[0].statistics().windows > before + 20)
                while (await next_of(events, "result"))["time"] < result["time"]:
                    pass
            assert stuck._sending.locked() and transport.get_write_buffer_size() == waiting, "it still does not move"
            assert waiting < 2_000_000 and len(stuck._results) <= 256 and len(stuck._tasks) == 2
            assert preview.cameras[0].state == "running"
        asking.cancel()  # only now: it ends although the viewer is stuck
        viewer.close()

    asyncio.run(check())


def test_a_viewer_that_gives_no_sign_of_life_is_given_up(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera(NOISE, 60)}, heartbeat=0.4) as (preview, session):
            async with session.ws_connect("/api/events") as events:
                viewer = await stuck_viewer(preview.port)
                await come_true(lambda: len(preview._viewers) == 2)
                stuck = max(preview._viewers, key=lambda page: not page._socket._req.headers.get("User-Agent"))
                asking = asyncio.create_task(keep_asking(viewer))
                reading = asyncio.create_task(next_of(events, "never"))
                await come_true(lambda: stuck._socket._req.transport.get_write_buffer_size() > 0)
                asking.cancel()
                await come_true(lambda: len(preview._viewers) == 1)
                assert stuck not in preview._viewers
                reading.cancel()
            viewer.close()

    asyncio.run(check())


# Whom it lets in


def test_loopback_addresses():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LocalHost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "localhost.example.org", "robot", "")))


def test_other_machines_need_a_token():
    assert Access.make("127.0.0.1", None).token is None
    assert Access.make("127.0.0.1", TOKEN).token == TOKEN
    tokens = {Access.make("0.0.0.0", None).token for _ in range(3)}
    assert len(tokens) == 3 and all(len(token) >= 22 for token in tokens)
    with pytest.raises(UsageError, match="token"):
        Access("0.0.0.0", None)
    with pytest.raises(UsageError, match="16 characters"):
        Access("0.0.0.0", "secret")
    access = Access("0.0.0.0", TOKEN)
    assert access.accepts(TOKEN)
    assert not any(map(access.accepts, (None, "", TOKEN[:-1], TOKEN + "x", "\udcff", TOKEN.upper())))


def test_without_the_token_everything_is_refused(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera}, token=TOKEN) as (preview, session):
            page = await session.get("/")
            assert page.status == 401 and page.content_type == "text/html" and "Token needed" in await page.text()
            for method, path in (("GET", "state"), ("POST", "start"), ("POST", "stop"), ("GET", "events")):
                response = await session.request(method, f"/api/{path}")
                assert response.status == 401 and "token" in (await response.json())["error"]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await session.ws_connect("/api/events")
            for wrong in (
                "Bearer " + TOKEN[1:],
                "Basic " + TOKEN,
                "Bearer",
                TOKEN,
                b"Bearer \xff\xfe".decode("latin1"),
            ):
                assert (await session.get("/api/state", headers={"Authorization": wrong})).status == 401
            assert (await session.get(f"/?token={TOKEN}x")).status == 401
            assert (await session.get("/?token=%ED%A0%80")).status == 401
            assert (await session.get(f"/api/state?token={TOKEN}")).status == 401, "addresses end up in logs"
            assert preview.cameras[0].active

    asyncio.run(check())


def test_the_token_opens_the_page(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera}, token=TOKEN) as (preview, session):
            for scheme in ("Bearer", "bearer"):
                assert (await session.get("/api/state", headers={"Authorization": f"{scheme} {TOKEN}"})).status == 200
            welcome = await session.get(f"/?token={TOKEN}", allow_redirects=False)
            assert welcome.status == 303 and welcome.headers["Location"] == "/"
            cookie = welcome.cookies[f"vmp_edge_{preview.port}"]
            assert cookie["httponly"] and cookie["samesite"] == "Strict"
            cookies = {cookie.key: cookie.value}
            assert (await session.get("/api/state", cookies=cookies)).status == 200
            refused = await session.post("/login", data={"token": "wrong"})
            assert refused.status == 401 and "not the token" in await refused.text()
            accepted = await session.post("/login", data={"token": f" {TOKEN} "}, allow_redirects=False)
            assert accepted.status == 303 and accepted.cookies[cookie.key].value == TOKEN

    asyncio.run(check())


def test_pages_of_other_sites_are_refused(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera}) as (preview, session):
            for origin in ("http://evil.example", "null", f"http://localhost:{preview.port + 1}"):
                headers = {"Origin": origin}
                assert (await session.post("/api/stop", headers=headers)).status == 403
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await session.ws_connect("/api/events", headers=headers)
            for host in ("evil.example", f"evil.example:{preview.port}", "192.168.0.1"):
                assert (await session.get("/api/state", headers={"Host": host})).status == 403, "DNS rebinding"
            assert (await session.get("/api/state", headers={"Host": "[::1"})).status == 400
            own = f"http://127.0.0.1:{preview.port}"
            response = await session.post("/api/start", headers={"Origin": own})
            assert response.status == 200 and preview.cameras[0].active
            assert not [name for name in response.headers if name.lower().startswith("access-control")], "no CORS"
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]

    asyncio.run(check())


# How it ends


def test_an_engine_that_fails_ends_it(tmp_path):
    async def check(recognizer):
        preview = Preview(recognizer, ["a"], Access.make("::1", None), hop=1, opener=lambda text, tell: camera())
        try:
            await preview.start(0)
        except PreviewError:
            pytest.skip("this machine has no IPv6")
        with pytest.raises(BundleError, match="the engine broke"):
            await preview.watch()
        with pytest.raises(BundleError, match="the engine broke"):
            await preview.close()

    with load(write_bundle(tmp_path / "b", fails_after=3)) as recognizer:
        asyncio.run(check(recognizer))


def test_cameras_that_cannot_be_opened_end_it_only_together(recognizer):
    def absent():
        raise SourceError("camera 9: there is no /dev/video9")

    async def check():
        async with previewing(recognizer, {"a": absent, "b": camera}) as (preview, session):
            await come_true(lambda: preview.cameras[0].state == "failed" and preview.cameras[1].state == "running")
            state = await (await session.get("/api/state")).json()
            assert "there is no /dev/video9" in state["cameras"][0]["message"]
        preview = Preview(recognizer, ["a", "b"], Access.make("127.0.0.1", None), opener=lambda text, tell: absent())
        await preview.start(0)
        with pytest.raises(SourceError, match="video9"):
            await preview.watch()
        await preview.close()

    asyncio.run(check())


def test_a_port_in_use_is_an_error(recognizer):
    async def check():
        async with previewing(recognizer, {"a": camera}) as (first, _):
            second = Preview(recognizer, ["a"], first.access, opener=lambda text, tell: camera())
            with pytest.raises(PreviewError, match=f"port {first.port}"):
                await second.start(first.port)

    asyncio.run(check())


# The command


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_although_somebody_watches(bundle, video, number, expected):
    async def watch(address):
        async with aiohttp.ClientSession(address) as session, session.ws_connect("/api/events") as events:
            await next_of(events, "result")
            process.send_signal(number)
            async for _ in events:
                pass
            return events.close_code

    process = serve(bundle, "--source", video, "--source", video)
    assert asyncio.run(watch(json.loads(process.stdout.readline())["address"])) == aiohttp.WSCloseCode.GOING_AWAY
    out, err = process.communicate(timeout=60)
    last = json.loads(out.splitlines()[-1])
    assert process.returncode == expected and err == "vmp-edge: stopped\n"
    assert [camera_state["state"] for camera_state in last["cameras"]] == ["stopped"] * 2
    assert sum(camera_state["windows"] for camera_state in last["cameras"]) > 0


def test_for_other_machines_a_token_is_made_and_printed(bundle, video):
    process = serve(bundle, "--source", video, "--host", "0.0.0.0")
    answer = json.loads(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=60)
    assert len(answer["token"]) >= 22 and answer["address"].endswith(f":{answer['port']}/?token={answer['token']}")


def test_the_token_may_come_from_a_file(bundle, video, tmp_path):
    (tmp_path / "token").write_text("correct&horse battery\n")
    process = serve(bundle, "--source", video, "--host", "0.0.0.0", "--token", f"${{file:{tmp_path / 'token'}}}")
    answer = json.loads(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=60)
    assert answer["token"] == "correct&horse battery"
    assert answer["address"].endswith("/?token=correct%26horse%20battery")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--port", 70000], 2, "port"),
        (["--token", "short"], 2, "16 characters"),
        (["--token", "${file:/none/token}"], 2, "/none/token, which an argument names, cannot be read"),
        (["--top", 0], 2, "at least 1"),
        (["--hop", 0], 2, "hop"),
        (["--budget-ms", 0], 2, "budget of latency"),
        (["--max-cpu", "150%"], 2, "share of the CPU"),
        (["--motion-gate", -1], 2, "threshold"),
        (["--gallery", "none.npz"], 1, "none.npz"),
        (["--host", "203.0.113.1"], 1, "cannot listen on 203.0.113.1"),
        (["--source", "nothing.mp4"], 1, "nothing.mp4 does not exist"),
    ],
)
def test_failures_are_one_line(capsys, bundle, options, code, message):
    source = [] if "--source" in options else ["--source", bundle / "none.mp4"]
    assert main(["serve", str(bundle), "--port", "0", *map(str, source + options)]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_without_aiohttp_the_extra_is_named(capsys, bundle, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("aiohttp", "vmp_edge.preview"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main(["serve", str(bundle)]) == 1
    assert "[serve]'" in capsys.readouterr().err
