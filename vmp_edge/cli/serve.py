"""`vmp-edge serve`: shows one or many cameras, and what is recognised, as a web page."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..credentials import with_credentials
from ..errors import MissingDependencyError, UsageError
from ..installation import install_command
from ..live.sampling import doubt
from ..recognizer import load
from ..stream.cameras import Camera
from ..stream.variants import load_variants
from .options import add_adaptive_options, add_gallery_options, add_window_options, stream_options
from .output import add_json_option, message, print_json, say
from .stopping import heeded

if TYPE_CHECKING:
    from ..preview.server import Preview

EPILOG = """examples:
  vmp-edge serve build/host --source 0                           http://localhost:8080, for this machine alone
  vmp-edge serve build/host --source 0 --source rtsp://door/1    two cameras, one engine
  vmp-edge serve build/host --source 0 --motion-gate             pass over windows in which nothing moves
  vmp-edge serve build/host --source 0 --host 0.0.0.0            for other machines, too; prints a token for them
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="show what cameras see, and what is recognised, as a web page",
        description="Recognise one or many sources and show them as a web page. Ctrl-C, SIGTERM or SIGHUP ends it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--source", action="append", metavar="S", help="what to look at, as for `run`; may be repeated (default: 0)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="the port; 0 takes any free one (default: 8080)")
    parser.add_argument(
        "--token",
        default=os.environ.get("VMP_EDGE_TOKEN"),
        help="the token that visitors must show (default: VMP_EDGE_TOKEN, or a random token if --host admits other "
        "machines)",
    )
    parser.add_argument("--loop", action="store_true", help="play a file again when it is over")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="number of scores to show (default: 5)")
    add_window_options(parser)
    add_gallery_options(parser)
    add_adaptive_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the address, and serve until the program is stopped."""
    try:
        from ..preview.access import Access
        from ..preview.server import Preview
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "aiohttp":
            raise
        raise MissingDependencyError(f"the preview needs aiohttp; run: {install_command('serve')}") from error
    if not 0 <= args.port <= 65535:
        raise UsageError(f"the port must be 0 to 65535, not {args.port}")
    access = Access.make(args.host, with_credentials(args.token) if args.token else None)
    options = stream_options(args)
    with contextlib.ExitStack() as stack:
        recognizer = stack.enter_context(load(args.bundle, args.threads, args.gallery, args.threshold))
        recognizer.require_classes()
        if (warning := doubt(recognizer.manifest, options)) is not None:
            message(warning)
        preview = Preview(
            recognizer,
            args.source or ["0"],
            access,
            args.top,
            options=options,
            loop=args.loop,
            on_message=_show_message,
            tell=message,
            variants=load_variants(recognizer, options, args.threads, stack),
            on_decision=lambda camera, decision: _show_message(camera, str(decision)),
        )
        stopped_by = asyncio.run(_serve(preview, args.port, args.json))
        if args.json:
            print_json(preview.state())
    signal.raise_signal(stopped_by)  # all is closed: now the signal may end the program in its usual way
    return 0


async def _serve(preview: Preview, port: int, as_json: bool) -> signal.Signals:
    """Serve until Ctrl-C, SIGTERM, SIGHUP or a failure, and return the signal."""
    with _signals() as stopped:
        await preview.start(port)
        try:
            _print_address(preview, as_json)
            watching = asyncio.ensure_future(preview.watch())
            ends: set[asyncio.Future[Any]] = {watching, stopped}
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
            if watching in done:
                watching.result()  # raises the failure
            return stopped.result()
        finally:
            await preview.close()


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Future[signal.Signals]]:
    """Give a future of the first signal that asks the program to end. The old handlers are put back afterwards."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(number: signal.Signals) -> None:
        if not stopped.done():
            stopped.set_result(number)

    numbers = {signal.SIGINT, *heeded()}
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield stopped
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


def _print_address(preview: Preview, as_json: bool) -> None:
    host, token = preview.access.host, preview.access.token
    if host in ("0.0.0.0", "::", ""):
        host = socket.gethostname()
    address = f"http://[{host}]:{preview.port}/" if ":" in host else f"http://{host}:{preview.port}/"
    if token is not None:
        address += f"?token={quote(token)}"
    if as_json:
        print_json({"address": address, "port": preview.port, "token": token})
    else:
        say(f"{preview.cameras.recognizer.manifest.name}: {address}")


def _show_message(camera: Camera, text: str) -> None:
    message(text if camera.name in text else f"{camera.name}: {text}")
