"""Command line options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UsageError
from ..stream.governor import Budget
from ..stream.motion import DEFAULT_THRESHOLD
from ..stream.options import StreamOptions
from ..stream.smoothing import DEFAULT_SMOOTHING, Smoothing
from ..stream.window import SAMPLINGS

DEFAULTS = StreamOptions()


def add_hop_option(parser: argparse.ArgumentParser, meaning: str = "frames from one window to the next") -> None:
    """Add the option `--hop`.

    Args:
        parser: The command's parser.
        meaning: The option's help text.
    """
    parser.add_argument(
        "--hop", type=int, default=DEFAULTS.hop, metavar="N", help=f"{meaning} (default: {DEFAULTS.hop})"
    )


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--threads`."""
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the engine (default: the bundle's)")


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `--workers`, of commands that decode many videos."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="number of processes that decode; 0 decodes in this process (default: one a core)",
    )


def check_workers(workers: int | None) -> None:
    """Raise UsageError if the number of `--workers` is negative."""
    if workers is not None and workers < 0:
        raise UsageError(f"--workers is {workers}; it must be at least 0")


def add_learning_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the machine to a command that trains: `--workers`, and `--threads` of PyTorch."""
    add_workers_option(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="PyTorch's threads (default: all cores)")


def add_size_options(group: argparse._ArgumentGroup) -> None:
    """Add the options of the sizes of a model that is trained: `--frames` and `--image-size`."""
    group.add_argument("--frames", type=int, metavar="T", help="frames of a clip (default: the start's, ours: 8)")
    group.add_argument("--image-size", type=int, metavar="S", help="pixels of a side (default: the start's, ours: 112)")


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of windows (hop, stride or fps, smoothing) and the engine's threads."""
    add_hop_option(parser)
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
        help="average the scores over about N windows; 0 shows each window's own scores "
        f"(default: {DEFAULT_SMOOTHING.windows:g})",
    )
    add_threads_option(parser)


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a gallery: its file, and the threshold of its classes."""
    parser.add_argument("--gallery", type=Path, metavar="FILE", help="file of your own classes: see vmp-edge enroll")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="least similarity at which your own classes are recognised, -1 to 1 (default: each class's own)",
    )


def add_adaptive_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of adaptive processing: motion gate, sampling and budget."""
    group = parser.add_argument_group("adaptive processing")
    group.add_argument(
        "--motion-gate",
        type=float,
        nargs="?",
        const=DEFAULT_THRESHOLD,
        metavar="THRESHOLD",
        help="pass over windows in which nothing moves by more than this many grey levels "
        f"(without a number: {DEFAULT_THRESHOLD:g})",
    )
    group.add_argument(
        "--sampling",
        choices=SAMPLINGS,
        default=DEFAULTS.sampling,
        help="which frames of its span a window takes: equally spaced frames, more of the recent frames, or more "
        f"frames where more moves (default: {DEFAULTS.sampling})",
    )
    group.add_argument(
        "--budget-ms", type=float, metavar="MS", help="keep the latency of 95 of 100 windows under MS ms"
    )
    group.add_argument(
        "--max-cpu",
        type=_share,
        metavar="P%",
        help="keep this process under this share of the machine's CPU: 50%% or 0.5",
    )


def stream_options(args: argparse.Namespace) -> StreamOptions:
    """Return the stream's options from the arguments of `add_window_options` and `add_adaptive_options`.

    Raises:
        UsageError: The smoothing or the budget is out of range.
    """
    return StreamOptions(
        hop=args.hop,
        stride=args.stride,
        fps=args.fps,
        smoothing=Smoothing(windows=args.smoothing) if args.smoothing else None,
        sampling=args.sampling,
        motion_gate=args.motion_gate,
        budget=_budget(args),
    )


def _budget(args: argparse.Namespace) -> Budget | None:
    if args.budget_ms is None and args.max_cpu is None:
        return None
    return Budget(None if args.budget_ms is None else args.budget_ms / 1e3, args.max_cpu)


def _share(text: str) -> float:
    """Parse a share that is written as 50% or 0.5."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)
