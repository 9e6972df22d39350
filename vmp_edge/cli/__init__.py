"""The command line: `vmp-edge build | run | serve | enroll | evaluate | bench | verify | targets | info | doctor`.

Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C, 143 by a termination signal.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import __version__
from ..errors import UsageError, VmpError
from .output import message, print_json

COMMANDS = ("build", "run", "serve", "enroll", "evaluate", "bench", "verify", "models", "targets", "info", "doctor")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments after the program's name. None takes the arguments of the process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="vmp-edge", description="Streaming action recognition on devices.")
    parser.add_argument("--version", action="version", version=f"vmp-edge {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"vmp_edge.cli.{name}").add_parser(subparsers)
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong, or has printed the help
        return stop.code if isinstance(stop.code, int) else 2
    return guarded(args.run, args)


def guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command so that every expected failure is one line on stderr (and, with `--json`, one object on stdout).

    Args:
        run: The command.
        args: Its arguments.

    Returns:
        The exit code.
    """
    try:
        with _termination_as_interrupt():
            code = run(args)
            sys.stdout.flush()
            return code
    except VmpError as error:
        text = " ".join(str(error).split())
        message(text)
        if getattr(args, "json", False):
            print_json({"error": text})
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        message("stopped")
        return 143 if isinstance(stop, _Terminated) else 130
    except BrokenPipeError:  # for example `vmp-edge ... | head`: nobody reads the output any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Terminated(KeyboardInterrupt):
    """SIGTERM came. The program cleans up in the same way as after Ctrl-C."""


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: Any) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
