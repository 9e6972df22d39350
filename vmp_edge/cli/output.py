"""Output that every command prints in the same way: progress and messages to stderr, results to stdout, JSON last."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Any

from ..masking import without_secrets
from ..progress import Bar
from ..text import json_line, printable
from .streams import Output


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def print_json(value: dict[str, Any]) -> None:
    """Print one line of JSON and flush it, so that the reader of a pipe gets each result as soon as it is there."""
    print(json_line(value, getattr(sys.stdout, "encoding", None) or "utf-8"), flush=True)
    if isinstance(sys.stdout, Output):
        sys.stdout.objects += 1


def say(text: str = "") -> None:
    """Print one line of a result and flush it. Characters that a terminal would obey are escaped."""
    print(printable(text), flush=True)


def remark(text: str) -> None:
    """Print one line to stderr that is not the result, with the same characters escaped."""
    # in one write, so that the lines of several processes do not mix
    print(f"{printable(without_secrets(text))}\n", end="", file=sys.stderr, flush=True)


def message(text: str) -> None:
    """Print a message to the user that is not the result."""
    remark(f"vmp-edge: {text}")


class progress:  # noqa: N801 - used as a function: with progress("lowering"): ...
    """Shows the name of a piece of work, and how long it took: `with progress("loading"): ...`."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        if sys.stderr.isatty():
            print(f"{self._name} ...", end="", file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # the command says that it was stopped
            if sys.stderr.isatty():
                print(file=sys.stderr, flush=True)
            return
        start_of_line = "\r" if sys.stderr.isatty() else ""
        ending = "failed" if kind is not None else "done"
        seconds = time.perf_counter() - self._start
        print(f"{start_of_line}{self._name} ... {ending} ({seconds:.2f} s)", file=sys.stderr, flush=True)


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Bar:
    """Show the progress of an iteration on stderr: as a line that is kept up to date, or as a line from time to time.

    Args:
        items: The items to iterate over. None makes a bar that `update` moves on and `close` ends.
        options: `total`, `desc`, `unit` and `initial`, as tqdm has them.

    Returns:
        The items, or the bar.
    """
    return Bar(items, **options)
