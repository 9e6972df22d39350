"""`Preview`: the server of the page, its WebSocket and its JSON interface."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

from aiohttp import web

from ..errors import UsageError, VmpError
from ..recognizer import Prediction, Recognizer
from ..sources import Frame, Message
from ..stream.cameras import Camera, Cameras
from .access import Access, guard, log_in
from .door import BACKLOG, Door, Limits, Rarely
from .pictures import Pictures
from .requests import calm, logger_of, loop_errors, problem, read_text, serve_routes
from .viewer import Viewer

_STATIC = Path(str(resources.files(__package__).joinpath("static")))
_FILES = frozenset(path.name for path in _STATIC.iterdir())
_WANTED = '{"camera": 0}, or nothing for all'  # in a request to start or to stop
_TICK = 0.5  # seconds between states
_RESULTS, _STATES = 600, 130  # how many of the past, about a minute, a new page gets
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class PreviewError(VmpError):
    """The preview cannot listen on its address and port."""


class Preview:
    """Shows cameras, and what is recognised, to its viewers.

    No viewer slows recognition down. The scheduler's thread and the capture threads only hand over. Pictures are
    encoded in a thread of their own, once for all viewers and only if there are viewers. Each viewer gets as much as it
    can take.

    Args:
        recognizer: Recognises the windows. The caller closes it.
        sources: The sources, as for `Cameras`.
        access: The address to listen on, and the token that visitors need.
        top: Number of scores to show.
        heartbeat: Seconds after which a viewer that gives no sign of life is asked for one. After half as many more
            seconds it is given up.
        limits: How much visitors may take. None leaves cameras and engines enough files of those that this process may
            open.
        tell: Called with a message when visitors take too much, or when the server fails. Each kind of message comes
            once a minute at most.
        cameras: The other arguments of `Cameras`, except `on_prediction` and `on_frame`.

    Raises:
        UsageError: An option is out of range.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        sources: Sequence[str],
        access: Access,
        top: int = 5,
        heartbeat: float = 20.0,
        limits: Limits | None = None,
        tell: Message = lambda text: None,
        **cameras: Any,
    ) -> None:
        if top < 1:
            raise UsageError(f"at least 1 score must be shown, not {top}")
        self.cameras = Cameras(
            recognizer, sources, on_prediction=self._on_prediction, on_frame=self._on_frame, **cameras
        )
        self.access = access
        self.port = 0
        self._manifest = recognizer.manifest
        self._top = top
        self._heartbeat = heartbeat
        self._limits = limits or Limits.of_process()
        self._tell = Rarely(tell)
        self._began = time.monotonic()
        self._viewers: set[Viewer] = set()
        self._results: list[deque[dict[str, Any]]] = [deque(maxlen=_RESULTS) for _ in sources]
        self._drops: list[deque[tuple[float, int]]] = [deque(maxlen=_STATES) for _ in sources]
        self._executor = ThreadPoolExecutor(1, "vmp-edge pictures")
        self._pictures: list[Pictures] = []

    async def start(self, port: int) -> None:
        """Start to listen, and start the cameras.

        Args:
            port: The port to listen on. 0 takes any free one, which the attribute `port` has then.

        Raises:
            PreviewError: The address is not this machine's, or the port is in use or not allowed.
        """
        self._loop = asyncio.get_running_loop()
        self._pictures = [Pictures(self._loop, self._executor) for _ in self.cameras]
        self._loop_handler = self._loop.get_exception_handler()
        self._loop.set_exception_handler(loop_errors(self._tell))
        self._door = Door(self._protocol, self._limits, self._tell)
        logger = logger_of(self._tell)
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=1.0, lingering_time=2.0, logger=logger
        )
        await self._runner.setup()
        try:
            self._server = await self._loop.create_server(self._door, self.access.host, port, backlog=BACKLOG)
        except (OSError, OverflowError, ValueError) as error:
            await self._stop_serving()
            reason = getattr(error, "strerror", None) or error
            raise PreviewError(f"cannot listen on {self.access.host} port {port}: {reason}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        self.cameras.start()

    def _protocol(self) -> asyncio.Protocol:
        """Make aiohttp's protocol of a connection."""
        assert self._runner.server is not None
        return self._runner.server()

    async def watch(self) -> None:
        """Send the cameras' states to the viewers, for ever.

        Raises:
            VmpError: The engine failed, or no camera could be opened at all: nothing would ever be shown.
        """
        while True:
            self.cameras.check()
            errors = [camera.error for camera in self.cameras if camera.error is not None and camera.frame is None]
            if len(errors) == len(self.cameras):
                raise errors[0]
            for camera, drops in zip(self.cameras, self._drops, strict=True):
                drops.append((self._now(), camera.statistics().dropped))
            self._send_state()
            await asyncio.sleep(_TICK)

    async def close(self) -> None:
        """Close the viewers' sockets, stop listening, and close the cameras.

        Raises:
            BundleError: The engine failed.
        """
        await asyncio.gather(*(viewer.end() for viewer in self._viewers))
        self._server.close()
        await self._stop_serving()
        try:
            await asyncio.to_thread(self.cameras.close)
        finally:
            self._executor.shutdown()

    async def _stop_serving(self) -> None:
        await self._runner.cleanup()
        self._door.close()
        self._loop.set_exception_handler(self._loop_handler)

    def state(self) -> dict[str, Any]:
        """Return the answer of `/api/state`."""
        manifest = self._manifest
        bundle = {
            "name": manifest.name,
            "target": manifest.target,
            "engine": manifest.engine,
            "precision": manifest.precision,
            "frames": manifest.frames,
            "labels": list(self.cameras.recognizer.labels),
        }
        return {"bundle": bundle, "viewers": len(self._viewers), **self._changing_state()}

    def _changing_state(self) -> dict[str, Any]:
        return {"now": self._now(), "cameras": [self._describe(camera) for camera in self.cameras]}

    def _describe(self, camera: Camera) -> dict[str, Any]:
        statistics, results = camera.statistics(), self._results[camera.index]
        return {
            "index": camera.index,
            "name": camera.name,
            "state": camera.state,
            "message": camera.message,
            "frames": statistics.frames,
            "windows": statistics.windows,
            "dropped": statistics.dropped,
            "skipped": statistics.skipped,
            "level": statistics.level,
            "filled": round(statistics.filled, 3),
            "window_s": camera.stream.window.reach,
            "frames_per_second": round(statistics.frames_per_second, 2) if camera.state == "running" else 0.0,
            "latency_ms": {
                "p50": round(statistics.latency_p50 * 1e3, 3),
                "p95": round(statistics.latency_p95 * 1e3, 3),
            },
            "result": results[-1] if results and camera.latest is not None else None,
        }

    def _now(self) -> float:
        """Return the page's time: seconds since this object was made."""
        return round(time.monotonic() - self._began, 3)

    # Called in the cameras' threads

    def _on_frame(self, camera: Camera, frame: Frame) -> None:
        self._pictures[camera.index].put(frame.image)

    def _on_prediction(self, camera: Camera, prediction: Prediction) -> None:
        result = {
            "time": self._now(),
            "label": prediction.label,
            "score": round(prediction.score, 4),
            "top": [[label, round(score, 4)] for label, score in prediction.top(self._top)],
            "latency_ms": round(prediction.latency * 1e3, 3),
            "dropped": prediction.dropped,
            "skipped": prediction.skipped,
        }
        self._loop.call_soon_threadsafe(self._send_result, camera.index, result)

    # Called in the event loop

    def _send_result(self, camera: int, result: dict[str, Any]) -> None:
        self._results[camera].append(result)
        if self._viewers:
            text = json.dumps({"type": "result", "camera": camera, **result})
            for viewer in self._viewers:
                viewer.result(text)

    def _send_state(self) -> None:
        if self._viewers:
            text = json.dumps({"type": "state", **self._changing_state()})
            for viewer in self._viewers:
                viewer.state(text)

    def _application(self) -> web.Application:
        middlewares = [self._door.attend, calm(self._tell), guard(self.access)]
        app = web.Application(middlewares=middlewares, client_max_size=4096)
        serve_routes(
            app,
            get={
                "/": self._page,
                "/static/{name}": self._file,
                "/api/state": self._get_state,
                "/api/events": self._events,
            },
            post={"/login": self._log_in, "/api/start": self._start, "/api/stop": self._stop},
        )
        app.on_response_prepare.append(_add_headers)
        return app

    async def _page(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(_STATIC / "index.html")

    async def _file(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return web.FileResponse(_STATIC / name)

    async def _get_state(self, request: web.Request) -> web.Response:
        return web.json_response(self.state())

    async def _log_in(self, request: web.Request) -> web.Response:
        return await log_in(request, self.access, self._limits.request)

    async def _start(self, request: web.Request) -> web.Response:
        return await self._change(request, self.cameras.start)

    async def _stop(self, request: web.Request) -> web.Response:
        return await self._change(request, self.cameras.stop)

    async def _change(self, request: web.Request, change: Callable[[int | None], None]) -> web.Response:
        """Start or stop the camera of `{"camera": 0}`, or all cameras without it. Answer with the new state."""
        text = await read_text(request, self._limits.request, _WANTED)
        try:
            message = json.loads(text or "{}")
            camera = message.get("camera")
            if camera is not None and type(camera) is not int:
                raise ValueError(camera)
        except (ValueError, AttributeError, RecursionError):
            raise problem(web.HTTPBadRequest, f"send {_WANTED}") from None
        try:
            await asyncio.to_thread(change, camera)
        except UsageError as error:
            return web.json_response({"error": str(error)}, status=404)
        self._send_state()
        return web.json_response(self.state())

    async def _events(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._viewers) >= self._limits.viewers:
            self._tell("viewers", f"too many pages are open ({len(self._viewers)}): more are refused")
            raise problem(web.HTTPServiceUnavailable, "too many pages are open")
        socket = web.WebSocketResponse(heartbeat=self._heartbeat, max_msg_size=1024, compress=False)
        await socket.prepare(request)
        history = [
            {"results": list(results), "drops": list(drops)}
            for results, drops in zip(self._results, self._drops, strict=True)
        ]
        viewer = Viewer(socket, self._pictures)
        viewer.result(json.dumps({"type": "hello", **self.state(), "history": history}))
        self._viewers.add(viewer)
        try:
            await viewer.serve()
        finally:
            self._viewers.discard(viewer)
            if request.transport is not None:
                request.transport.abort()  # else data that a viewer has not read would be kept for it
        return socket


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
