"""`vmp-edge run`: live recognition from a camera, a file, a URL or a GStreamer pipeline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vmp_edge.cli.output import message, print_json
from vmp_edge.live import Options, Summary, play
from vmp_edge.recognizer import Prediction
from vmp_edge.smoothing import DEFAULT_SMOOTHING, Smoothing

EPILOG = """sources:
  0, /dev/video0                        a camera
  clip.mp4                              a file: every window of it, as fast as it goes, or at its own pace in a window
  rtsp://host/stream, http://host/a     a URL
  'v4l2src ! video/x-raw,width=640'     a GStreamer pipeline without its sink
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="recognise what a camera, file, URL or GStreamer pipeline shows",
        description="Recognise a source live: a window with the label, the best scores, frame rate and latency.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds everything but the bundle: shared with `apps/webcam.py`."""
    parser.add_argument("--source", default="0", help="what to look at (default: 0, the first camera)")
    parser.add_argument("--headless", action="store_true", help="open no window")
    parser.add_argument(
        "--json", action="store_true", help="print each result, and at the end a summary, as JSON lines"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the picture with its overlay to a video file"
    )
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
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds of the source")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--realtime",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="play a file at its own pace, dropping what comes too fast (default: only in a window)",
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many scores to show (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Runs, prints results as they come and a summary at the end."""
    options = Options(
        bundle=args.bundle,
        source=args.source,
        headless=args.headless,
        record=args.record,
        hop=args.hop,
        stride=args.stride,
        fps=args.fps,
        smoothing=Smoothing(windows=args.smoothing) if args.smoothing else None,
        threads=args.threads,
        duration=args.duration,
        max_frames=args.max_frames,
        realtime=args.realtime,
        top=args.top,
    )
    printer = _JsonPrinter(args.top) if args.json else _TextPrinter()
    summary = play(options, printer.result, message)
    printer.summary(summary)
    if summary.interrupted is not None:
        raise summary.interrupted
    return 0


class _JsonPrinter:
    def __init__(self, top: int) -> None:
        self._top = top

    def result(self, prediction: Prediction, seconds: float) -> None:
        print_json(
            {
                "time": round(seconds, 3),
                "frame": prediction.frame,
                "label": prediction.label,
                "score": round(prediction.score, 4),
                "top": [[label, round(score, 4)] for label, score in prediction.top(self._top)],
                "latency_ms": round(prediction.latency * 1e3, 3),
                "dropped": prediction.dropped,
            }
        )

    def summary(self, summary: Summary) -> None:
        print_json({"summary": summary.to_dict()})


class _TextPrinter:
    """A line whenever the label changes: a terminal shall not scroll while nothing happens."""

    def __init__(self) -> None:
        self._label: str | None = None

    def result(self, prediction: Prediction, seconds: float) -> None:
        if prediction.label != self._label:
            self._label = prediction.label
            print(f"{seconds:8.2f} s  {prediction.label:<24} {prediction.score:4.0%}", flush=True)

    def summary(self, summary: Summary) -> None:
        if summary.windows == 0:
            print(f"{summary.frames} frames from {summary.source}: too few for a window", flush=True)
            return
        print(
            f"{summary.frames} frames from {summary.source} in {summary.seconds:.1f} s "
            f"({summary.frames_per_second:.1f} per second), {summary.dropped} dropped"
        )
        print(
            f"{summary.windows} windows, latency {summary.latency_p50 * 1e3:.1f} ms median, "
            f"{summary.latency_p95 * 1e3:.1f} ms p95"
        )
        shares = (f"{label} {count / summary.windows:.0%}" for label, count in list(summary.labels.items())[:5])
        print(f"shown: {', '.join(shares)}", flush=True)
        if summary.recorded is not None:
            print(f"recorded: {summary.recorded}", flush=True)
        sys.stdout.flush()
