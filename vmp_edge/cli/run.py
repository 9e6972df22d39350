"""`vmp-edge run`: recognises what a camera, a file, a URL, a pipe or a GStreamer pipeline shows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..events.clips import ClipOptions
from ..events.detector import Event, EventRule
from ..live import Filling, Options, Summary, play
from ..recognizer import Prediction
from ..stream.governor import Decision
from ..text import printable
from .options import add_adaptive_options, add_gallery_options, add_window_options, stream_options
from .output import message, print_json, say

EPILOG = """sources:
  0, /dev/video0, camera:NAME           a camera by number, device, or name (or a part of it) as v4l2 lists it
  clip.mp4                              a file: all of it, as fast as possible, or in a window at its own pace
  pictures/                             a folder of pictures: 2.png comes before 10.png; --source-fps gives the rate
  rtsp://host/stream, http://host/a     a URL
  'v4l2src ! video/x-raw,width=640'     a GStreamer pipeline without its sink
  -                                     YUV4MPEG2 on the standard input, as FFmpeg (-f yuv4mpegpipe -) writes it
  raw:640x480:bgr:30                    raw pixels on the standard input: bgr, rgb, grey, yuyv, nv12 or i420

events (printed when any of the options for events is given):
  --events events.jsonl                 lines of JSON, appended to a file
  --events http://host/hook             each event is posted as JSON; https:// too; user:password@ before the host
  --events mqtt://host/topic            each event is published (extra `mqtt`); mqtts://, port and user:password@, too
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "run",
        help="recognise what a camera, file, URL or GStreamer pipeline shows",
        description="Recognise a source live, in a window with the label, the best scores, frame rate and latency.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add_options(parser)
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options but the bundle. `apps/webcam.py` uses this, too."""
    parser.add_argument("--source", default="0", help="what to look at (default: 0, the first camera)")
    parser.add_argument(
        "--source-fps",
        type=float,
        metavar="F",
        help="frame rate of pictures, and of pipes that do not give theirs (default: 30)",
    )
    parser.add_argument("--headless", action="store_true", help="open no window")
    parser.add_argument(
        "--json", action="store_true", help="print each result, and at the end a summary, as JSON lines"
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the picture with its overlay to a video file"
    )
    add_window_options(parser)
    add_gallery_options(parser)
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds of the source")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--realtime",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="play a file at its own pace, and drop frames that come too fast (default: only if there is a window)",
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="number of scores to show (default: 5)")
    add_adaptive_options(parser)
    _add_event_options(parser.add_argument_group("events"))


def _add_event_options(group: Any) -> None:
    rule = EventRule()
    group.add_argument("--events", action="append", default=[], metavar="TO", help="where events go; may be repeated")
    group.add_argument(
        "--event-threshold",
        type=float,
        metavar="P",
        help=f"score at which an event starts, 0 to 1 (default: {rule.threshold:g})",
    )
    group.add_argument(
        "--event-hold", type=float, metavar="S", help=f"seconds for which the score must hold (default: {rule.hold:g})"
    )
    group.add_argument(
        "--event-gap",
        type=float,
        metavar="S",
        help=f"seconds without the label after which an event ends (default: {rule.gap:g})",
    )
    group.add_argument(
        "--event-only", action="append", metavar="LABEL", help="only events of this label; may be repeated"
    )
    group.add_argument(
        "--event-ignore", action="append", metavar="LABEL", help="no events of this label; may be repeated"
    )
    group.add_argument("--clips", type=Path, metavar="DIR", help="record a video clip of each event in this folder")
    group.add_argument("--pre-roll", type=float, metavar="S", help="seconds of a clip before the event (default: 3)")
    group.add_argument("--post-roll", type=float, metavar="S", help="seconds of a clip after the event (default: 2)")
    group.add_argument("--clips-keep", type=int, metavar="N", help="keep the newest N clips (default: all)")


def run(args: argparse.Namespace) -> int:
    """Recognise the source, and print results as they come and a summary at the end."""
    options = Options(
        bundle=args.bundle,
        source=args.source,
        headless=args.headless,
        record=args.record,
        stream=stream_options(args),
        threads=args.threads,
        duration=args.duration,
        max_frames=args.max_frames,
        realtime=args.realtime,
        top=args.top,
        source_fps=args.source_fps,
        events=_rule(args),
        sinks=tuple(args.events),
        clips=_clips(args),
        gallery=args.gallery,
        threshold=args.threshold,
    )
    printer = _JsonPrinter(args.top) if args.json else _TextPrinter()
    summary = play(options, printer.result, message, printer.event, printer.decision, printer.filling)
    printer.summary(summary)
    if summary.interrupted is not None:
        raise summary.interrupted
    return 0


def _rule(args: argparse.Namespace) -> EventRule | None:
    """Return the rule for events if any option for events was used, else None."""
    values = {
        "threshold": args.event_threshold,
        "hold": args.event_hold,
        "gap": args.event_gap,
        "only": tuple(args.event_only) if args.event_only else None,
        "ignored": tuple(args.event_ignore) if args.event_ignore else None,
    }
    options = {name: value for name, value in values.items() if value is not None}
    return EventRule(**options) if options or args.events or args.clips is not None else None


def _clips(args: argparse.Namespace) -> ClipOptions | None:
    values = {"pre_roll": args.pre_roll, "post_roll": args.post_roll, "keep": args.clips_keep}
    options = {name: value for name, value in values.items() if value is not None}
    if args.clips is None:
        if options:
            raise UsageError("--pre-roll, --post-roll and --clips-keep are for clips: give a folder with --clips")
        return None
    return ClipOptions(args.clips, **options)


class _JsonPrinter:
    """Prints each result, event, decision and share of a filling window, and at the end the summary, as JSON lines."""

    def __init__(self, top: int) -> None:
        self._top = top

    def result(self, prediction: Prediction, seconds: float) -> None:
        line = {
            "time": round(seconds, 3),
            "frame": prediction.frame,
            "label": prediction.label,
            "score": round(prediction.score, 4),
            "top": [[label, round(score, 4)] for label, score in prediction.top(self._top)],
            "latency_ms": round(prediction.latency * 1e3, 3),
            "dropped": prediction.dropped,
        }
        print_json({**line, "skipped": True} if prediction.skipped else line)

    def event(self, event: Event) -> None:
        print_json(event.to_dict())

    def decision(self, decision: Decision) -> None:
        print_json(decision.to_dict())

    def filling(self, filling: Filling) -> None:
        print_json(filling.to_dict())

    def summary(self, summary: Summary) -> None:
        print_json({"summary": summary.to_dict()})


class _TextPrinter:
    """Prints a line when the label changes, so that a terminal does not scroll while nothing happens."""

    def __init__(self) -> None:
        self._label: str | None = None

    def result(self, prediction: Prediction, seconds: float) -> None:
        if prediction.label != self._label:
            self._label = prediction.label
            say(f"{seconds:8.2f} s  {printable(prediction.label):<24} {prediction.score:4.0%}")

    def event(self, event: Event) -> None:
        if event.end is None:
            say(f"{event.start:8.2f} s  event {event.number}: {event.label} starts")
        else:
            lasted = f"{event.end - event.start:.1f} s, peak {event.peak:.0%}, mean {event.mean:.0%}"
            say(f"{event.end:8.2f} s  event {event.number}: {event.label} ends after {lasted}")

    def decision(self, decision: Decision) -> None:
        message(f"{decision.time:.2f} s  {decision}")

    def filling(self, filling: Filling) -> None:
        message(f"{filling.time:.2f} s  {filling}")

    def summary(self, summary: Summary) -> None:
        if summary.windows == 0:
            say(f"{summary.frames} frames from {summary.source}: too few for a window")
            return
        say(
            f"{summary.frames} frames from {summary.source} in {summary.seconds:.1f} s "
            f"({summary.frames_per_second:.1f} per second), {summary.dropped} dropped"
        )
        if summary.skipped:
            say(f"{summary.skipped} windows skipped: nothing moved")
        say(
            f"{summary.windows} windows, latency {summary.latency_p50 * 1e3:.1f} ms median, "
            f"{summary.latency_p95 * 1e3:.1f} ms p95"
        )
        shares = (f"{label} {count / summary.windows:.0%}" for label, count in list(summary.labels.items())[:5])
        say(f"shown: {', '.join(shares)}")
        if summary.recorded is not None:
            say(f"recorded: {summary.recorded}")
        if summary.events:
            say(f"{summary.events} events" + (f", {summary.clips} clips" if summary.clips else ""))
