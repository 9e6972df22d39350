"""One page that watches: what it is told, and how one that is slow costs nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from .pictures import Pictures

_WAITING = 256  # results that wait for a slow page; the oldest go
_GOODBYE = 0.5  # seconds that a page has to take its leave


class Viewer:
    """A page's WebSocket.

    It is sent results and states as JSON, and a picture of a camera when it asks for one (`{"picture": 0}`): the
    newest there is at that moment, as a binary message (camera and picture number, 32 bits each, then JPEG). A page
    that is slow asks rarely, and one that does not read has at most a picture of each camera, the last results and
    one state waiting.

    Args:
        socket: Prepared already.
        pictures: Of each camera.
    """

    def __init__(self, socket: web.WebSocketResponse, pictures: Sequence[Pictures]) -> None:
        self._socket = socket
        self._pictures = pictures
        self._seen = [0] * len(pictures)  # the number of the last picture of each camera
        self._results: deque[str] = deque(maxlen=_WAITING)
        self._state: str | None = None
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by camera, pictures on their way; -1: results and states

    def result(self, text: str) -> None:
        """Has a result sent, JSON."""
        self._results.append(text)
        self._news.set()

    def state(self, text: str) -> None:
        """Has a state sent, JSON, unless a newer one comes before its turn."""
        self._state = text
        self._news.set()

    async def serve(self) -> None:
        """Serves the page until it goes away."""
        self._tasks[-1] = asyncio.create_task(_till_it_is_gone(self._send_news()))
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT:
                    self._heed(message.data)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def end(self) -> None:
        """Takes leave of the page, if it takes in anything: the server ends."""
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._take_leave(), _GOODBYE)

    async def _take_leave(self) -> None:
        async with self._sending:  # two that wait for the same page to read would be cancelled together
            await self._socket.close(code=WSCloseCode.GOING_AWAY)

    def _heed(self, text: str) -> None:
        """Heeds a request for a picture; what is anything else is passed over."""
        try:
            camera = json.loads(text)["picture"]
        except (ValueError, TypeError, KeyError):
            return
        if type(camera) is not int or not 0 <= camera < len(self._pictures):
            return
        on_its_way = self._tasks.get(camera)
        if on_its_way is None or on_its_way.done():
            self._tasks[camera] = asyncio.create_task(_till_it_is_gone(self._send_picture(camera)))

    async def _send_picture(self, camera: int) -> None:
        await self._pictures[camera].arrival(self._seen[camera])
        async with self._sending:
            number, jpeg = await self._pictures[camera].newest()
            self._seen[camera] = number
            await self._socket.send_bytes(struct.pack(">II", camera, number) + jpeg)

    async def _send_news(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._results:
                await self._send(self._results.popleft())
            if self._state is not None:
                state, self._state = self._state, None
                await self._send(state)

    async def _send(self, text: str) -> None:
        async with self._sending:
            await self._socket.send_str(text)


async def _till_it_is_gone(sending: Coroutine[Any, Any, None]) -> None:
    """Sends; a page that goes away in the middle of it is no failure, and `serve` notices."""
    with contextlib.suppress(ConnectionError):
        await sending
