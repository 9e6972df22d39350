"""Options that commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..stream.governor import Budget
from ..stream.motion import DEFAULT_THRESHOLD
from ..stream.smoothing import DEFAULT_SMOOTHING
from ..stream.window import SAMPLINGS


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


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    """Adds a file of classes of your own, and their threshold."""
    parser.add_argument("--gallery", type=Path, metavar="FILE", help="classes of your own: see vmp-edge enroll")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="least similarity of those, -1 to 1 (default: each class's own)"
    )


def add_adaptive_options(parser: argparse.ArgumentParser) -> None:
    """Adds the motion gate, how a window's frames are sampled, and the budget, which `budget_of` reads."""
    group = parser.add_argument_group("adaptive processing")
    group.add_argument(
        "--motion-gate",
        type=float,
        nargs="?",
        const=DEFAULT_THRESHOLD,
        metavar="THRESHOLD",
        help=f"pass over windows in which nothing moves by so many grey levels (default: {DEFAULT_THRESHOLD:g})",
    )
    group.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default="uniform",
        help="which frames of its span a window takes: more of the recent ones, or more where more moves",
    )
    group.add_argument("--budget-ms", type=float, metavar="MS", help="keep the latency of 95 of 100 windows under this")
    group.add_argument(
        "--max-cpu", type=_share, metavar="P%", help="keep this process under a share of the machine's CPU: 50%% or 0.5"
    )


def budget_of(args: argparse.Namespace) -> Budget | None:
    """The budget that was asked for, if one was."""
    if args.budget_ms is None and args.max_cpu is None:
        return None
    return Budget(None if args.budget_ms is None else args.budget_ms / 1e3, args.max_cpu)


def _share(text: str) -> float:
    """A share as 50% or 0.5."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)
