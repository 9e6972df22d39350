"""Whom the preview lets in, and the command that serves it."""

import asyncio
import json
import signal
import sys

import pytest
from serving import serve

from vmp_edge.cli import main
from vmp_edge.errors import UsageError

pytest.importorskip("aiohttp", reason="needs aiohttp, of the extra `serve`")

import aiohttp
from previewing import camera, next_of, previewing

from vmp_edge.preview.access import Access, is_loopback

TOKEN = "correct-horse-battery"


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
