"""A small server that speaks the resolve protocol of the Hugging Face hub: ETags, redirects, ranges, error codes."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with files.

    Attributes:
        files: The files' bytes by `OWNER/NAME/FILE`.
        errors: An error code of the hub (`GatedRepo`, ...) by repository.
        breaks: Number of downloads that break off in their middle before one is whole.
        status: A status that answers every request, in place of files, if it is not 0.
        stalls: Whether downloads stop in their middle, and wait until it is false.
        missing: Bytes that the server leaves out at the end of each file, though it tells the whole size.
        commit: The commit of the branch `main`.
        requests: The requests so far: method, path and the range that was asked for.
    """

    files: dict[str, bytes]
    errors: dict[str, str] = field(default_factory=dict)
    breaks: int = 0
    status: int = 0
    stalls: bool = False
    missing: int = 0
    commit: str = COMMIT
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    endpoint: str = ""

    def downloads(self) -> list[str]:
        """Return the ranges of the requests for the files' bytes; an empty text stands for a whole file."""
        return [where for method, path, where in self.requests if method == "GET" and path.startswith("/store/")]


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on this machine."""

    class Handler(_Handler):
        content = hub

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    content: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        self.content.requests.append((self.command, self.path, self.headers.get("Range") or ""))
        if self.content.status:
            return self._begin(self.content.status, 0)
        if self.path.startswith("/store/"):
            return self._store(self.path.removeprefix("/store/"))
        repository, separator, rest = self.path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if code := self.content.errors.get(repository):
            return self._fail(403 if code == "GatedRepo" else 404, code)
        if not separator or not any(key.startswith(f"{repository}/") for key in self.content.files):
            return self._fail(404, "RepoNotFound")
        if revision not in ("main", self.content.commit):
            return self._fail(404, "RevisionNotFound")
        data = self.content.files.get(f"{repository}/{name}")
        if data is None:
            return self._fail(404, "EntryNotFound")
        # Large files lie on another host, to which the hub redirects.
        elsewhere = self.content.endpoint.replace("127.0.0.1", "localhost")
        self._begin(302, 0, Location=f"{elsewhere}/store/{repository}/{name}", X_Repo_Commit=self.content.commit,
                    X_Linked_Etag=f'"{hashlib.sha256(data).hexdigest()}"', X_Linked_Size=str(len(data)))  # fmt: skip
        return None

    def _store(self, key: str) -> None:
        data = self.content.files[key]
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        rest = data[start:]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if start:
            self._begin(206, len(rest), ETag=etag, Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self._begin(200, len(rest), ETag=etag)
        if self.command != "GET":
            return
        if self.content.breaks > 0:
            self.content.breaks -= 1
            rest = rest[: len(rest) // 2]
            self.close_connection = True
        elif self.content.missing:
            rest = rest[: -self.content.missing]
            self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client is gone
            if self.content.stalls:
                self.wfile.write(rest[: len(rest) // 2])
                rest = rest[len(rest) // 2 :]
                while self.content.stalls:
                    time.sleep(0.05)
            self.wfile.write(rest)

    def _fail(self, status: int, code: str) -> None:
        self._begin(status, 0, X_Error_Code=code, X_Error_Message=code)

    def _begin(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
