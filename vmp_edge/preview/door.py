"""`Door`: lets connections in, so many at once, and ends those that do not finish their requests.

A middleware sees a request only when its head is there. So the door stands before aiohttp's own protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from ..sources import Message

BACKLOG = 32  # connections that the system takes before the door has seen them
_SWEEP = 0.5  # seconds between two looks for requests that stall
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Limits:
    """How much visitors may take.

    Args:
        connections: Number of connections at once.
        per_address: Number of connections at once from one address.
        viewers: Number of open pages. Fewer than the connections of an address, so that requests still come through.
        request: Seconds for the head of a request, and again for its body.
        idle: Seconds after which a connection that asks for nothing is ended.
    """

    connections: int = 256
    per_address: int = 192
    viewers: int = 128
    request: float = 5.0
    idle: float = 15.0

    @classmethod
    def of_process(cls) -> Limits:
        """Return limits that leave more than half of the files that this process may open to cameras and engines."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = cls.connections if files == resource.RLIM_INFINITY else min(cls.connections, max(8, files * 2 // 5))
        return cls(most, most * 3 // 4, most // 2)


class Rarely:
    """Reports what happens again and again once a minute, with the number of times.

    Args:
        tell: Called with a message.
        pause: Seconds between two messages of one kind.
    """

    def __init__(self, tell: Message, pause: float = 60.0) -> None:
        self._tell, self._pause = tell, pause
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def __call__(self, kind: str, text: str) -> None:
        """Report something of a kind, unless such a thing was reported a short time ago."""
        now = time.monotonic()
        if kind in self._told and now - self._told[kind] < self._pause:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return
        self._told[kind] = now
        untold = self._untold.pop(kind, 0)
        self._tell(" ".join(text.split()) + (f" ({untold} more since the last such message)" if untold else ""))


_served: contextvars.ContextVar[_Guest | None] = contextvars.ContextVar("the connection of a request", default=None)


class Door:
    """Makes the protocols of connections, as `loop.create_server` asks for them.

    When there are too many connections, the one that has waited longest for its next request is ended. If none waits,
    the new connection is refused.

    Args:
        protocols: Makes aiohttp's protocol of a connection.
        limits: How many connections there may be, and how long a request may take.
        tell: Called rarely, with a message.
    """

    def __init__(self, protocols: Callable[[], asyncio.Protocol], limits: Limits, tell: Rarely) -> None:
        self.limits = limits
        self._protocols = protocols
        self._tell = tell
        self._guests: dict[asyncio.BaseProtocol, _Guest] = {}  # by aiohttp's protocol
        self._loop = asyncio.get_running_loop()
        self._sweeping = self._loop.call_later(_SWEEP, self._sweep)

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of a new connection."""
        return _Guest(self, self._protocols())

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._guests)

    def close(self) -> None:
        """Stop looking for requests that stall."""
        self._sweeping.cancel()

    @web.middleware
    async def attend(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note, as a middleware, that a connection's request has come and is being answered."""
        guest = self._guests.get(request.protocol)
        if guest is None:  # it was ended meanwhile
            return await handler(request)
        _served.set(guest)
        guest.is_served = True
        try:
            return await handler(request)
        finally:
            guest.is_served, guest.has_begun, guest.since = False, False, time.monotonic()

    def admit(self, guest: _Guest) -> bool:
        """Let a new connection in, if need be in place of another one. Return whether there is room."""
        same = [other for other in self._guests.values() if other.address == guest.address]
        crowd: list[_Guest] | None = None
        if len(same) >= self.limits.per_address:
            crowd = same
        elif len(self._guests) >= self.limits.connections:
            crowd = list(self._guests.values())
        if crowd is not None:
            self._tell("crowd", f"too many connections to the page ({len(self._guests)}): the idle ones are ended")
            oldest = min((other for other in crowd if not other.is_served), key=lambda other: other.since, default=None)
            if oldest is None:
                return False
            self._end(oldest)
        self._guests[guest.protocol] = guest
        return True

    def forget(self, guest: _Guest) -> None:
        """Note that a connection is closed."""
        self._guests.pop(guest.protocol, None)

    def _end(self, guest: _Guest) -> None:
        self.forget(guest)
        guest.transport.abort()

    def _sweep(self) -> None:
        """End the connections whose requests stall, and those that have asked for nothing for a while."""
        self._sweeping = self._loop.call_later(_SWEEP, self._sweep)
        now = time.monotonic()
        for guest in [guest for guest in self._guests.values() if not guest.is_served]:
            seconds = self.limits.request if guest.has_begun else self.limits.idle
            if now - guest.since <= seconds:
                continue
            if guest.has_begun:
                self._tell("stalled", f"a request from {guest.address} was not whole after {seconds:g} s: it was ended")
                if not guest.transport.get_write_buffer_size():
                    guest.transport.write(_LATE)
            self._end(guest)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """While a request's body is read, count its connection among those that wait for their visitors."""
    guest = _served.get()
    if guest is None:
        yield
        return
    guest.is_served, guest.has_begun, guest.since = False, True, time.monotonic()
    try:
        yield
    finally:
        guest.is_served = True


class _Guest(asyncio.Protocol):
    """A connection: passes everything on to aiohttp's protocol once it is let in.

    Attributes:
        protocol: The protocol of aiohttp.
        transport: The connection's transport.
        address: The visitor's address.
        is_served: Whether a request is being answered.
        has_begun: Whether a part of the next request has come.
        since: When the connection was made, its last request was answered, or the next one began.
    """

    transport: asyncio.Transport

    def __init__(self, door: Door, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.address = ""
        self.is_served = self.has_begun = False
        self.since = time.monotonic()
        self._door = door
        self._is_in = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self._is_in = self._door.admit(self)
        if self._is_in:
            self.protocol.connection_made(transport)
        else:
            transport.write(_BUSY)
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._is_in:
            if not self.has_begun and not self.is_served:
                self.has_begun, self.since = True, time.monotonic()
            self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received() if self._is_in else None

    def connection_lost(self, error: Exception | None) -> None:
        self._door.forget(self)
        if self._is_in:
            self.protocol.connection_lost(error)

    def pause_writing(self) -> None:
        if self._is_in:
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._is_in:
            self.protocol.resume_writing()
