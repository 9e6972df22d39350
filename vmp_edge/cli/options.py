"""Options that commands share."""

from __future__ import annotations

import argparse

from vmp_edge.smoothing import DEFAULT_SMOOTHING


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """Adds how windows are chosen and steadied: hop, stride or fps, smoothing; and the engine's threads."""
    parser.add_argument("--hop", type=int, default=4, metavar="N", help="frames between results (default: 4)")
    spacing = parser.add_mutually_exclusive_group()
    spacing.add_argument("--stride", type=int, metavar="N", help="a window takes every N-th frame")
    spacing.add_argument(
        "--fps", type=float, metavar="F", help="a window takes F frames per second (default: the bundle's)"
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        default=DEFAULT_SMOOTHING.windows,
        metavar="N",
        help=f"average the scores over about N windows; 0 shows each as it is (default: {DEFAULT_SMOOTHING.windows:g})",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the engine (default: the bundle's)")
