"""``vmp-edge targets``: the device kinds, and what was verified on each."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from .output import add_json_option, print_json, say


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "targets",
        help="list the device kinds that bundles are built for",
        description="List the targets with their engines, precisions, and what was verified where.",
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list."""
    from vmp_edge.compile.target import load, names

    targets = [load(name) for name in names()]
    for entry in targets:
        say(f"{entry.name}: {entry.description}")
        say(f"  engines: {', '.join(entry.engines)}; precisions: {', '.join(entry.precisions)}")
        for machine, what in entry.verified.items():
            say(f"  {machine}: {what}")
    if args.json:
        print_json({"targets": [dataclasses.asdict(entry) for entry in targets]})
    return 0
