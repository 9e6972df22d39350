"""A preview in this process, with sources that tests make, and raw connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

import aiohttp
from synthetic_sources import SyntheticCamera

from vmp_edge.preview.access import Access
from vmp_edge.preview.server import Preview


def camera(values=(10, 60, 110, 160), rate=100, **options):
    """Return a camera whose pictures have these grey values in turn."""
    return SyntheticCamera(itertools.cycle(values), rate, **options)


@contextlib.asynccontextmanager
async def previewing(recognizer, sources, host="127.0.0.1", token=None, **options):
    """Run a preview, and give it with a client session."""

    def opener(text, tell):
        return sources[text]() if callable(sources[text]) else sources[text]

    preview = Preview(recognizer, list(sources), Access.make(host, token), hop=1, opener=opener, **options)
    await preview.start(0)
    watching = asyncio.create_task(preview.watch())
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{preview.port}") as session:
            yield preview, session
    finally:
        watching.cancel()
        await preview.close()


async def come_true(condition):
    """Wait until a condition is true."""

    async def poll():
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 60)


async def answer_to(port, request):
    """Send bytes, and return the status of the answer, or None if the connection is closed without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        try:
            line = await asyncio.wait_for(reader.readline(), 60)
        except ConnectionError:
            return None
        return int(line.split()[1]) if line else None
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def next_of(events, kind):
    """Return the next message of a kind. The kind of pictures is `picture`."""
    async for message in events:
        if message.type == aiohttp.WSMsgType.BINARY:
            if kind == "picture":
                return message.data
        elif (content := json.loads(message.data))["type"] == kind:
            return content
    raise AssertionError(f"it ended before a {kind}")
