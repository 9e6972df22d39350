"""Sending events to a web server."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from .outbox import RefusedError

_BODY_SECONDS, _BODY_BYTES = 0.1, 1 << 16  # how much of an answer is read beyond its head, which says all that matters


class Webhook:
    """Posts each event to a URL as `application/json`.

    Args:
        url: The address. A user and password in it become basic authentication.
    """

    def __init__(self, url: urllib.parse.SplitResult) -> None:
        self._headers = {"Content-Type": "application/json", "User-Agent": "vmp-edge"}
        if url.username is not None:
            user = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._opener = urllib.request.build_opener(_Http, _Https, _NoRedirects)
        path, query = (urllib.parse.quote(part, safe="/?:@!$&'()*+,;=%~") for part in (url.path, url.query))
        self._url = url._replace(netloc=url.netloc.rpartition("@")[2], path=path, query=query, fragment="").geturl()

    def send(self, payload: bytes, timeout: float) -> None:
        """Post one event. See `Carrier.send`. The timeout is for connecting, sending and the answer together."""
        request = urllib.request.Request(self._url, payload, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                _read_a_little(answer)
        except urllib.error.HTTPError as error:
            error.close()
            reason = "".join(sign for sign in str(error.reason)[:100] if sign.isprintable())
            if error.code < 500 and error.code not in (408, 429):
                raise RefusedError(f"it answers {error.code} {reason}") from error
            raise OSError(f"it answers {error.code} {reason}") from error
        except urllib.error.URLError as error:
            raise OSError(str(getattr(error.reason, "strerror", None) or error.reason)) from error
        except http.client.InvalidURL as error:
            raise RefusedError("its address is not valid") from error
        except http.client.HTTPException as error:
            raise OSError(f"it does not answer as a web server does ({type(error).__name__})") from error

    def close(self) -> None:
        """Close nothing: each event has a connection of its own."""


def _read_a_little(answer: Any) -> None:
    """Read the body of an answer if it is there: some servers call it an error if nobody does.

    The event has arrived by then, so nothing that happens here matters, and a slow body keeps no other event waiting.
    """
    end = time.monotonic() + _BODY_SECONDS
    left = _BODY_BYTES
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
        answer.fp.raw._sock.end_by(end)
        while left > 0 and time.monotonic() < end and (content := answer.read1(left)):
            left -= len(content)


class _Timed:
    """A socket whose reads and writes together have one limit of time. Otherwise, each has the whole of it."""

    _end: float | None = None

    def end_by(self, end: float) -> None:
        """Set the end, in seconds of the monotonic clock."""
        self._end = end if self._end is None else min(self._end, end)

    def _hurry(self) -> None:
        if self._end is not None:
            left = self._end - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.settimeout(left)  # type: ignore[attr-defined]

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self._hurry()
        return super().recv_into(*arguments, **options)  # type: ignore[misc,no-any-return]

    def send(self, *arguments: Any, **options: Any) -> int:
        self._hurry()
        return super().send(*arguments, **options)  # type: ignore[misc,no-any-return]

    def sendall(self, *arguments: Any, **options: Any) -> None:
        self._hurry()
        super().sendall(*arguments, **options)  # type: ignore[misc]


class _Socket(_Timed, socket.socket):
    """A socket with one limit of time."""


class _TlsSocket(_Timed, ssl.SSLSocket):
    """A TLS socket with one limit of time."""


def _connector(end: float) -> Callable[..., socket.socket]:
    """Return a function that connects as `socket.create_connection` does, but has one limit of time for everything."""

    def connect(address: tuple[str, int], *arguments: Any) -> socket.socket:
        problem: OSError | None = None
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, 0, socket.SOCK_STREAM):
            left = end - time.monotonic()
            if left <= 0:
                break
            attempt = _Socket(family, kind, protocol)
            attempt.end_by(end)
            attempt.settimeout(left)
            try:
                attempt.connect(place)
                return attempt
            except OSError as error:
                problem = error
                attempt.close()
        raise problem or TimeoutError("timed out")

    return connect


class _Connection(http.client.HTTPConnection):
    """A connection whose timeout is for all that is done with it."""

    def __init__(self, host: str, timeout: float = 60.0, **options: Any) -> None:
        super().__init__(host, timeout=timeout, **options)
        self._end = time.monotonic() + timeout
        self._create_connection = _connector(self._end)

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, _Timed)
        self.sock.end_by(self._end)  # TLS has put another socket in its place


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """A connection with TLS whose timeout is for all that is done with it."""


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    _trusting: ssl.SSLContext | None = None

    def https_open(self, request: urllib.request.Request) -> Any:
        if self._trusting is None:
            self._trusting = ssl.create_default_context()
            self._trusting.sslsocket_class = _TlsSocket
        return self.do_open(_TlsConnection, request, context=self._trusting)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats redirects as errors: a redirected POST would become a GET without the event, or go to somebody else."""

    def http_error_302(self, *arguments: Any, **options: Any) -> None:
        """Follow no redirect."""
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
