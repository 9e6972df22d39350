"""Ask a server whether it answers at all, before OpenCV connects to it and holds up everybody else."""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import urlsplit

from ..errors import SourceError
from . import decoder as limits

_CONNECT_TIMEOUT = 2.0  # seconds
_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}
_HEAD_BYTES = 1 << 16  # that the head of an answer may have
_LISTS = ("mpegurl", "dash+xml", "multipart/")  # types of content whose own length says nothing


def probe(url: str, name: str) -> bool:
    """Connect to a server, and wait for the head of its answer.

    Args:
        url: The address.
        name: The address for messages, without secrets.

    Returns:
        Whether the answer says that a file of a known length follows.

    Raises:
        SourceError: There is no connection, or no answer in time.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        return False  # such as UDP, which does not connect
    try:
        port = parts.port or _PORTS[scheme]
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((parts.hostname, port), _CONNECT_TIMEOUT))
            connection.settimeout(limits.OPEN_TIMEOUT)
            if scheme in ("https", "rtsps"):
                context = ssl._create_unverified_context()  # FFmpeg does not verify either, and sends the password
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=parts.hostname))
            return _ask(connection, scheme, parts.path or "/", parts.query, f"{parts.hostname}:{port}")
    except TimeoutError:
        raise SourceError(f"{name} cannot be opened: no answer within {limits.OPEN_TIMEOUT:g} s") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "there is no connection"
        raise SourceError(f"{name} cannot be opened: {reason}") from None


def _ask(connection: socket.socket, scheme: str, path: str, query: str, host: str) -> bool:
    """Ask without a password, since any answer will do. Return whether a file of a known length would follow."""
    path += f"?{query}" if query else ""
    if scheme.startswith("rtsp"):
        connection.sendall(f"OPTIONS rtsp://{host}{path} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
    elif scheme.startswith("http"):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    else:
        return False
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
        received = connection.recv(4096)
        if not received:
            break
        head += received
    if not head:
        raise OSError(0, "the server hangs up")
    lines = head.split(b"\r\n\r\n")[0].decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(":", 1) for line in lines[1:] if ":" in line)
    is_list = any(kind in fields.get("content-type", "") for kind in _LISTS)
    return lines[0].split()[1:2] == ["200"] and "content-length" in fields and not is_list
