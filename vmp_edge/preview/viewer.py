"""`Viewer`: sends results, states and pictures to one page. A slow page does not slow anything else."""

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

_MAX_WAITING = 256  # results that wait for a slow page; the oldest are dropped
_MISUNDERSTOOD = json.dumps({"type": "error", "error": 'send {"picture": 0}, with the number of a camera'})
_CLOSE_TIMEOUT = 0.5  # seconds that a page has to answer the closing of its socket


class Viewer:
    """The WebSocket of one page.

    The page gets results and states as JSON. It asks for a camera's picture (`{"picture": 0}`) and gets the newest
    picture of that moment, as a binary message (camera and picture number, 32 bits each, then JPEG). A slow page asks
    rarely. For a page that does not read, at most a picture of each camera, the last results and one state wait.

    Args:
        socket: The page's socket, prepared already.
        pictures: The pictures of each camera.
    """

    def __init__(self, socket: web.WebSocketResponse, pictures: Sequence[Pictures]) -> None:
        self._socket = socket
        self._pictures = pictures
        self._seen = [0] * len(pictures)  # number of the last picture that the page got, of each camera
        self._results: deque[str] = deque(maxlen=_MAX_WAITING)
        self._state: str | None = None
        self._news = asyncio.Event()
        self._sending = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # pictures on their way, by camera; -1 sends results and states

    def result(self, text: str) -> None:
        """Send a result (JSON) when its turn comes."""
        self._results.append(text)
        self._news.set()

    def state(self, text: str) -> None:
        """Send a state (JSON) when its turn comes, unless there is a newer state by then."""
        self._state = text
        self._news.set()

    async def serve(self) -> None:
        """Serve the page until it goes away."""
        self._tasks[-1] = asyncio.create_task(_until_gone(self._send_news()))
        try:
            async for message in self._socket:
                if message.type == WSMsgType.TEXT:
                    self._handle(message.data)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def end(self) -> None:
        """Close the socket because the server ends. A page that does not read is left as it is."""
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._close(), _CLOSE_TIMEOUT)

    async def _close(self) -> None:
        async with self._sending:  # two tasks that wait for the same page to read would be cancelled together
            await self._socket.close(code=WSCloseCode.GOING_AWAY)

    def _handle(self, text: str) -> None:
        """Start sending the picture that a message asks for. Any other message is answered with an error."""
        try:
            camera = json.loads(text)["picture"]
            if type(camera) is not int or not 0 <= camera < len(self._pictures):
                raise ValueError(camera)
        except (ValueError, TypeError, KeyError, RecursionError):
            self.result(_MISUNDERSTOOD)
            return
        on_its_way = self._tasks.get(camera)
        if on_its_way is None or on_its_way.done():
            self._tasks[camera] = asyncio.create_task(_until_gone(self._send_picture(camera)))

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


async def _until_gone(sending: Coroutine[Any, Any, None]) -> None:
    """Send until the page goes away. That is no failure here, and `serve` notices it."""
    with contextlib.suppress(ConnectionError):
        await sending
