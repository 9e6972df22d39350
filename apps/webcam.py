"""Live recognition from a camera in a window: `python apps/webcam.py --bundle build/host --source 0`.

This is `vmp-edge run` as a program to read and to start your own from.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1] / "vmp_edge"
if _PACKAGE.is_dir() and not __package__:  # run by its path from a checkout, which need not be installed
    runpy.run_path(str(_PACKAGE / "_checkout.py"))["use"](__file__)

from vmp_edge.cli import Parser, program  # noqa: E402


def make_parser() -> Parser:
    """Make the parser of the arguments: the bundle, and the options of `vmp-edge run`."""
    from vmp_edge.cli.run import add_options

    parser = Parser(prog="webcam.py", description="Recognise what a camera shows, live.")
    parser.add_argument("--bundle", type=Path, default=Path("build/host"), help="the bundle's folder")
    add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Recognise the source until it ends, and return the exit code."""
    from vmp_edge.cli import run as command

    return command.run(args)


def main(argv: list[str] | None = None) -> int:
    """Run the program, and return its exit code."""
    return program(make_parser, run, argv)


if __name__ == "__main__":
    sys.exit(main())
