"""Sending events to a web server."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from .outbox import RefusedError


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
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._url = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()

    def send(self, payload: bytes, timeout: float) -> None:
        """Post one event. See `Carrier.send`."""
        request = urllib.request.Request(self._url, payload, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise RefusedError(f"it answers {error.code} {error.reason}") from error
            raise OSError(f"it answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise OSError(str(getattr(error.reason, "strerror", None) or error.reason)) from error
        except http.client.InvalidURL as error:
            raise RefusedError(str(error)) from error
        except http.client.HTTPException as error:
            raise OSError(f"it does not answer as a web server does ({type(error).__name__})") from error

    def close(self) -> None:
        """Close nothing: each event has a connection of its own."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats redirects as errors: a redirected POST would become a GET without the event."""

    def redirect_request(self, *arguments: Any, **options: Any) -> None:
        """Follow no redirect."""
        return None
