"""Output that every command prints in the same way: progress and messages to stderr, results to stdout, JSON last."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from typing import Any


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


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """Show the progress of an iteration, if the output is a terminal and tqdm is installed.

    Args:
        items: The items to iterate over. None makes a bar that `update` moves on and `close` ends.
        options: Options of tqdm: `total`, `desc`, `unit`.

    Returns:
        The items, or the bar.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return items if items is not None else _NoBar()
    return tqdm(items, disable=None, **options)


class _NoBar:
    """Takes the place of tqdm's bar if tqdm is not installed."""

    def update(self, count: int = 1) -> None:
        """Do nothing: there is no bar to move on."""

    def close(self) -> None:
        """Do nothing: there is no bar to end."""
