"""Requests that are not as they should be: each gets an answer that says so, and at most one line goes to the log."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from .door import Rarely, waiting

_UTF8 = frozenset(("utf-8", "utf8", "us-ascii", "ascii"))
_VISITORS_FAULTS = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # the system has no room for a connection


def problem(kind: type[web.HTTPException], text: str) -> web.HTTPException:
    """Return the exception that answers a request with a status and `{"error": text}`."""
    return kind(text=json.dumps({"error": text}), content_type="application/json")


async def read_text(request: web.Request, seconds: float, wanted: str) -> str:
    """Read a request's body, which must be UTF-8.

    Args:
        request: The request.
        seconds: How long it may take.
        wanted: What the request should send, for the answer if it does not.

    Raises:
        HTTPException: The body is too slow or too large, is cut off, or is not UTF-8.
    """
    try:
        charset = request.charset
    except Exception:  # whatever the header has in it
        charset = "unknown"
    if (charset or "utf-8").lower() not in _UTF8:
        raise problem(web.HTTPBadRequest, f"send {wanted}, in UTF-8")
    try:
        with waiting():
            body = await asyncio.wait_for(request.read(), seconds)
        return body.decode()
    except asyncio.TimeoutError:
        raise problem(web.HTTPRequestTimeout, f"the body was not whole after {seconds:g} s") from None
    except UnicodeDecodeError:
        raise problem(web.HTTPBadRequest, f"send {wanted}, in UTF-8") from None
    except _VISITORS_FAULTS:
        raise problem(web.HTTPBadRequest, "the body is not what the head says it is") from None


def serve_routes(app: web.Application, get: dict[str, Handler], post: dict[str, Handler]) -> None:
    """Add routes, and one for all other paths.

    aiohttp's own routes would quote an Expect header in their answers, and fail if it is not text.

    Args:
        app: The application.
        get: The handlers of requests with GET, by path.
        post: The handlers of requests with POST, by path.
    """

    async def refuse(request: web.Request) -> web.StreamResponse:
        for allowed, paths in ((["GET", "HEAD"], get), (["POST"], post)):
            if request.path in paths:
                raise web.HTTPMethodNotAllowed(request.method, allowed)
        raise web.HTTPNotFound

    for path, handler in get.items():
        app.router.add_get(path, handler, expect_handler=_expect)
    for path, handler in post.items():
        app.router.add_post(path, handler, expect_handler=_expect)
    app.router.add_route("*", "/{path:.*}", refuse, expect_handler=_expect)


async def _expect(request: web.Request) -> None:
    """Answer the Expect header."""
    if request.version < (1, 1):
        return
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise problem(web.HTTPExpectationFailed, "only 100-continue is understood")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # it is no part of the response


def calm(tell: Rarely) -> Middleware:
    """Make the middleware that answers 500 to a request that makes the server fail, and reports it in one line."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            tell(f"failed {type(error)}", f"a request to the page failed: {type(error).__name__}: {error}")
            return web.json_response({"error": "the server failed"}, status=500)

    return check


def logger_of(tell: Rarely) -> logging.Logger:
    """Make a logger for aiohttp that reports each kind of failure in one line, and malformed requests not at all."""
    logger = logging.Logger("vmp_edge.preview", logging.WARNING)
    logger.addHandler(_OneLine(tell))
    return logger


class _OneLine(logging.Handler):
    def __init__(self, tell: Rarely) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record, without a traceback."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, _VISITORS_FAULTS):
            ending = "" if error is None else f": {type(error).__name__}: {error}"
            self._tell(f"aiohttp {type(error)}", f"the page: {record.getMessage()}{ending}")


def loop_errors(tell: Rarely) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """Make the handler of an event loop's errors, which reports each kind of them in one line."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error, text = context.get("exception"), context.get("message", "")
        if isinstance(error, OSError) and error.errno in _NO_MORE:
            tell("accept", f"new connections to the page have to wait: {error.strerror}")
            return
        ending = "" if error is None else f": {type(error).__name__}: {error}"
        tell(f"loop {type(error)}", f"the page: {text}{ending}")

    return handle
