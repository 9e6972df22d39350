"""`vmp-edge serve`: one or many cameras and what is recognised, as a web page."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError, UsageError
from ..recognizer import load
from ..stream.cameras import Camera
from ..stream.governor import worthwhile
from ..stream.smoothing import Smoothing
from .options import add_adaptive_options, add_gallery_options, add_window_options, budget_of
from .output import add_json_option, message, print_json

if TYPE_CHECKING:
    from ..preview.server import Preview

EPILOG = """examples:
  vmp-edge serve build/host --source 0                           http://localhost:8080, for this machine alone
  vmp-edge serve build/host --source 0 --source rtsp://door/1    two cameras, one engine
  vmp-edge serve build/host --source 0 --motion-gate             windows in which nothing moves are passed over
  vmp-edge serve build/host --source 0 --host 0.0.0.0            for others, too: with a token, which is printed
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="show what cameras see, and what is recognised, as a web page",
        description="Recognise one or many sources and show them as a web page. Ctrl-C or SIGTERM ends it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--source", action="append", metavar="S", help="what to look at, as for `run`; may be repeated (default: 0)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="0 for any that is free (default: 8080)")
    parser.add_argument(
        "--token",
        default=os.environ.get("VMP_EDGE_TOKEN"),
        help="what visitors must show (default: VMP_EDGE_TOKEN's, or made if --host is not this machine alone)",
    )
    parser.add_argument("--loop", action="store_true", help="play a file again when it is over")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many scores to show (default: 5)")
    add_window_options(parser)
    add_gallery_options(parser)
    add_adaptive_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until it is stopped, and says where."""
    try:
        from ..preview.access import Access
        from ..preview.server import Preview
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "aiohttp":
            raise
        raise MissingDependencyError("the preview needs aiohttp: pip install 'vmp-edge[serve]'") from error
    if not 0 <= args.port <= 65535:
        raise UsageError(f"the port must be 0 to 65535, not {args.port}")
    access = Access.make(args.host, args.token)
    budget = budget_of(args)
    with contextlib.ExitStack() as stack:
        recognizer = stack.enter_context(load(args.bundle, args.threads, args.gallery, args.threshold))
        useful = worthwhile(recognizer.manifest.variants) if budget is not None else ()
        bundles = recognizer.bundle.variants
        preview = Preview(
            recognizer,
            args.source or ["0"],
            access,
            args.top,
            hop=args.hop,
            stride=args.stride,
            fps=args.fps,
            smoothing=Smoothing(windows=args.smoothing) if args.smoothing else None,
            loop=args.loop,
            on_message=_tell,
            sampling=args.sampling,
            motion_gate=args.motion_gate,
            budget=budget,
            variants={name: stack.enter_context(load(bundles[name], args.threads)) for name in useful},
            on_decision=lambda camera, decision: _tell(camera, str(decision)),
        )
        stopped_by = asyncio.run(_serve(preview, args.port, args.json))
        if args.json:
            print_json(preview.state())
    signal.raise_signal(stopped_by)  # all is closed: now it may end the program in its usual way
    return 0


async def _serve(preview: Preview, port: int, as_json: bool) -> signal.Signals:
    """Serves until Ctrl-C or SIGTERM, or a failure; returns which signal it was."""
    with _signals() as stopped:
        await preview.start(port)
        try:
            _say_where(preview, as_json)
            watching = asyncio.ensure_future(preview.watch())
            ends: set[asyncio.Future[Any]] = {watching, stopped}
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
            if watching in done:
                watching.result()  # raises
            return stopped.result()
        finally:
            await preview.close()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Future[signal.Signals]]:
    """A future of the first signal that asks to end; handlers are put back afterwards."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopped
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def _say_where(preview: Preview, as_json: bool) -> None:
    host, token = preview.access.host, preview.access.token
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    address = f"http://[{host}]:{preview.port}/" if ":" in host else f"http://{host}:{preview.port}/"
    if token is not None:
        address += f"?token={token}"
    if as_json:
        print_json({"address": address, "port": preview.port, "token": token})
    else:
        print(f"{preview.cameras.recognizer.manifest.name}: {address}", flush=True)
    sys.stdout.flush()


def _tell(camera: Camera, text: str) -> None:
    message(text if camera.name in text else f"{camera.name}: {text}")
