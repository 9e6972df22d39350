"""Output that every command prints in the same way: progress and messages to stderr, results to stdout, JSON last."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

from ..progress import Bar


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def print_json(value: dict[str, Any]) -> None:
    """Print one line of JSON and flush it, so that the reader of a pipe gets each result as soon as it is there."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def message(text: str) -> None:
    """Print a message to the user that is not the result."""
    print(f"vmp-edge: {text}", file=sys.stderr, flush=True)


class progress:  # noqa: N801 - used as a function: with progress("lowering"): ...
    """Shows the name of a piece of work, and how long it took: `with progress("loading"): ...`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        if sys.stderr.isatty():
            print(f"{self._name} ...", end="", file=sys.stderr, flush=True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
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
