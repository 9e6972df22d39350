"""Live recognition from a camera in a window: `python apps/webcam.py --bundle build/host --source 0`.

This is `vmp-edge run` as a program to read and to start your own from: `main` is all of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vmp_edge.cli import guarded
from vmp_edge.cli.run import add_options, run


def main(argv: list[str] | None = None) -> int:
    """Run the program, and return its exit code."""
    parser = argparse.ArgumentParser(prog="webcam.py", description="Recognise what a camera shows, live.")
    parser.add_argument("--bundle", type=Path, default=Path("build/host"), help="the bundle's folder")
    add_options(parser)
    return guarded(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
