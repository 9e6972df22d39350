"""Requests that stall are ended, and many connections do not stop the page."""

import asyncio
import contextlib
import json
import resource
import urllib.request

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp, of the extra `serve`")

import aiohttp
from previewing import camera as make_camera
from previewing import come_true, previewing
from serving import serve

from vmp_edge.preview.door import Limits, Rarely
from vmp_edge.preview.requests import loop_errors

HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
HALF_BODY = b"POST /api/start HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"


async def half_sent(port, head):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    return reader, writer


async def rest_of(reader):
    """Return what the server still sends, until it closes the connection."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(-1), 60)
    return b""


@pytest.mark.parametrize("head", [HALF, HALF_BODY, b"GET /", b""])
def test_a_request_that_stalls_is_ended(recognizer, head):
    async def check():
        told = []
        limits = Limits(request=0.3, idle=0.5)
        async with previewing(recognizer, {"a": make_camera}, limits=limits, tell=told.append) as (preview, session):
            reader, writer = await half_sent(preview.port, head)

            async def drip():
                while head:
                    writer.write(b"x")
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            answer = await rest_of(reader)
            dripping.cancel()
            writer.close()
            assert not answer or (head and answer.startswith(b"HTTP/1.1 408 ")), "the end may overtake the answer"
            assert (await session.get("/api/state")).status == 200
            await come_true(lambda: len(preview._door) <= 1)
        return told

    told = asyncio.run(check())
    assert told == ["a request from 127.0.0.1 was not whole after 0.3 s: it was ended"] or head in (HALF_BODY, b"")


@pytest.mark.parametrize("head", [HALF, HALF_BODY])
def test_many_half_sent_requests_leave_room_for_whole_ones_and_for_open_pages(recognizer, head):
    limits = Limits(connections=20, per_address=16, viewers=3, request=30.0, idle=30.0)

    async def check():
        told = []
        async with previewing(recognizer, {"a": make_camera}, limits=limits, tell=told.append) as (preview, session):
            async with session.ws_connect("/api/events") as events:
                half = [await half_sent(preview.port, head) for _ in range(60)]
                for _ in range(10):
                    async with aiohttp.ClientSession(f"http://127.0.0.1:{preview.port}") as other:
                        assert (await other.get("/api/state")).status == 200
                assert len(preview._door) <= 16
                await events.receive()
                await events.send_json({"picture": 0})
                while (await events.receive()).type is not aiohttp.WSMsgType.BINARY:
                    pass
            for _, writer in half:
                writer.close()
        return told

    told = asyncio.run(check())
    assert len(told) == 1, told
    assert told[0].startswith("too many connections to the page")


def test_more_pages_than_there_may_be_are_refused_and_the_others_stay(recognizer):
    limits = Limits(connections=8, per_address=8, viewers=2)

    async def check():
        told = []
        async with previewing(recognizer, {"a": make_camera}, limits=limits, tell=told.append) as (preview, session):
            pages = [await session.ws_connect("/api/events") for _ in range(2)]
            for _ in range(3):
                with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                    await session.ws_connect("/api/events")
            assert [json.loads((await page.receive()).data)["type"] for page in pages] == ["hello"] * 2
            assert (await session.get("/api/state")).status == 200
            await pages.pop().close()
            await come_true(lambda: preview.state()["viewers"] == 1)
            pages.append(await session.ws_connect("/api/events"))
            for page in pages:
                await page.close()
        return told

    assert asyncio.run(check()) == ["too many pages are open (2): more are refused"]


def test_when_no_connection_is_idle_a_new_one_is_refused(recognizer):
    limits = Limits(connections=2, per_address=2, viewers=2)

    async def check():
        async with previewing(recognizer, {"a": make_camera}, limits=limits) as (preview, session):
            pages = [await session.ws_connect("/api/events") for _ in range(2)]
            reader, writer = await half_sent(preview.port, HALF)
            assert (await rest_of(reader)).startswith(b"HTTP/1.1 503 ")
            writer.close()
            for page in pages:
                await page.close()

    asyncio.run(check())


def test_the_limits_leave_most_files_to_cameras():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for files, connections in ((200, 80), (64, 25), (before[1], 256)):
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
            limits = Limits.of_process()
            assert limits.connections == connections and limits.viewers < limits.per_address < connections
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_happens_again_and_again_is_reported_rarely():
    told = []
    rarely = Rarely(told.append, pause=60.0)
    handle = loop_errors(rarely)
    for _ in range(100):
        handle(
            None, {"message": "socket.accept() out of system resource", "exception": OSError(24, "Too many open files")}
        )
        rarely("other", "something\nelse")
    assert told == ["new connections to the page have to wait: Too many open files", "something else"]
    rarely._told["accept"] -= 61
    rarely("accept", "again")
    assert told[-1] == "again (99 more since the last such message)"


def test_a_server_with_few_files_survives_many_connections(bundle, video):
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\n"
    process = serve(bundle, "--source", video, before=code)
    address = json.loads(process.stdout.readline())["address"]

    async def attack(port):
        half = []
        for _ in range(300):
            with contextlib.suppress(OSError):
                half.append(await half_sent(port, HALF))
        answers = [await asyncio.to_thread(probe) for _ in range(5)]
        for _, writer in half:
            writer.close()
        return answers

    def probe():
        with urllib.request.urlopen(f"{address}api/state", timeout=60) as answer:
            return answer.status

    assert asyncio.run(attack(int(address.rsplit(":", 1)[1].strip("/")))) == [200] * 5
    process.terminate()
    _, errors = process.communicate(timeout=60)
    lines = errors.splitlines()
    assert lines[-1] == "vmp-edge: stopped" and len(lines) <= 3, errors
    assert all(line.startswith("vmp-edge: ") for line in lines)
