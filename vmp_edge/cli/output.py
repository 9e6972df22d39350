"""What every command prints the same way: progress and messages to stderr, results to stdout, JSON last."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def print_json(value: dict[str, Any]) -> None:
    """Prints one line of JSON, at once: whoever reads a pipe wants each result when it is there."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False), flush=True)


def message(text: str) -> None:
    """Tells the user something that is not the result."""
    print(f"vmp-edge: {text}", file=sys.stderr, flush=True)


class progress:  # noqa: N801 - used as a function: with progress("lowering"): ...
    """Shows what is being done, and how long it took: `with progress("loading"): ...`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        if sys.stderr.isatty():
            print(f"{self._what} ...", end="", file=sys.stderr, flush=True)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        start_of_line = "\r" if sys.stderr.isatty() else ""
        ending = "failed" if kind is not None else "done"
        seconds = time.perf_counter() - self._start
        print(f"{start_of_line}{self._what} ... {ending} ({seconds:.2f} s)", file=sys.stderr, flush=True)


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """Shows how far an iteration is, on a terminal and where tqdm is installed.

    Args:
        items: What is iterated over; None for a bar that is told by `update` and ended by `close`.
        options: tqdm's: `total`, `desc`, `unit`.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return items if items is not None else _NoBar()
    return tqdm(items, disable=None, **options)


class _NoBar:
    """Stands in for a bar where there is none."""

    def update(self, count: int = 1) -> None:
        """Takes note of nothing."""

    def close(self) -> None:
        """Has nothing to end."""
