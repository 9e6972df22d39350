"""Access to the preview: for this machine, or for visitors with the token, but never for another web site's page."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..errors import UsageError
from .requests import problem, read_text

MIN_TOKEN = 16  # least characters of a user's token; a shorter token could be guessed by trying
_OPEN = ("/static/", "/login")  # paths that need no token: they are no secret, or ask for the token


@dataclass(frozen=True)
class Access:
    """The address that the preview listens on, and the token that visitors need.

    Args:
        host: The address to listen on. Other machines reach it unless it is a loopback address.
        token: The token that visitors must show. None asks for no token, which only a loopback address allows.

    Raises:
        UsageError: A token is missing, or shorter than 16 characters.
    """

    host: str
    token: str | None

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise UsageError(f"{self.host} can be reached from other machines: that needs a token")
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise UsageError(f"the token must have at least {MIN_TOKEN} characters: leave it out to have one made")

    @classmethod
    def make(cls, host: str, token: str | None) -> Access:
        """Make an `Access`, with a random token (128 bits) if the host needs a token and there is none."""
        return cls(host, token or (None if is_loopback(host) else secrets.token_urlsafe(16)))

    def accepts(self, token: str | None) -> bool:
        """Return whether this is the token, or none is needed. Takes the same time however much of it is right."""
        if self.token is None:
            return True
        return token is not None and hmac.compare_digest(_bytes(token), _bytes(self.token))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a header may contain bytes that are not text


def is_loopback(host: str) -> bool:
    """Return whether an address or host name can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def guard(access: Access) -> Middleware:
    """Make the middleware that lets visitors in.

    A page of another web site may make a visitor's browser send requests here, or make its own name lead here (DNS
    rebinding). So a request with another site's `Origin` is refused. Without a token, a request with any `Host` but
    this machine is refused, too.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            host = urlsplit(f"//{_host(request)}").hostname or ""
        except ValueError:
            raise web.HTTPBadRequest(text="the Host header is malformed\n") from None
        origin = request.headers.get("Origin")
        try:
            is_own = origin is None or urlsplit(origin).netloc == _host(request)
        except ValueError:
            raise web.HTTPBadRequest(text="the Origin header is malformed\n") from None
        if not is_own:
            raise web.HTTPForbidden(text="requests from other web sites are refused\n")
        if access.token is None and not is_loopback(host):
            raise web.HTTPForbidden(text=f"call this page http://localhost, not {_host(request)!a}\n")
        if request.path == "/" and "token" in request.query and access.accepts(request.query["token"]):
            return _welcome(request, access)
        if not request.path.startswith(_OPEN) and not access.accepts(_token_of(request)):
            return _refusal(request)
        return await handler(request)

    return check


async def log_in(request: web.Request, access: Access, seconds: float) -> web.Response:
    """Answer the form on the 401 page, which sends the token. Its body may take some seconds."""
    text = await read_text(request, seconds, "the token")
    if request.content_type not in ("application/x-www-form-urlencoded", "application/octet-stream"):
        raise problem(web.HTTPUnsupportedMediaType, "send the token as application/x-www-form-urlencoded")
    try:
        tokens = parse_qs(text, max_num_fields=16).get("token", [])
    except ValueError:
        raise problem(web.HTTPBadRequest, "send the token, and nothing else") from None
    if tokens and access.accepts(tokens[0].strip()):
        return _welcome(request, access)
    return _refusal(request, "That is not the token.")


def _host(request: web.Request) -> str:
    """Return the Host header. Without one, aiohttp would ask the name server."""
    return request.headers.get("Host", "")


def _token_of(request: web.Request) -> str | None:
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    try:
        return request.cookies.get(_cookie(request))
    except Exception:  # whatever the header has in it
        return None


def _cookie(request: web.Request) -> str:
    """Return the cookie's name, with the port: all ports of a host share cookies, and two previews must not collide."""
    port = _host(request).rpartition(":")[2]
    return f"vmp_edge_{port}" if port.isascii() and port.isdecimal() else "vmp_edge"


def _welcome(request: web.Request, access: Access) -> web.Response:
    """Put the token into a cookie, and redirect to the address without the token."""
    response = web.Response(status=303, headers={"Location": "/"})
    if access.token is not None:
        name = _cookie(request)
        response.set_cookie(name, access.token, httponly=True, samesite="Strict", secure=request.secure)
    return response


def _refusal(request: web.Request, text: str = "") -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"}
    if request.path.startswith("/api/"):
        error = "the token is missing or wrong: send it as `Authorization: Bearer TOKEN`"
        return web.json_response({"error": error}, status=401, headers=headers)
    page = resources.files(__package__).joinpath("static/login.html").read_text(encoding="utf-8")
    return web.Response(
        status=401, text=page.replace("<!-- message -->", text), content_type="text/html", headers=headers
    )
