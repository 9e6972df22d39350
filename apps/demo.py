"""The first program to run: recognises the camera's motion in the sample clip, and compares with the truth.

`python -m vmp_edge.apps.demo --bundle build/host` streams the clip through the bundle, frame by frame, as a camera
would. It prints what was recognised beside what the camera did.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1] / "vmp_edge"
if _PACKAGE.is_dir() and not __package__:  # run by its path from a checkout, which need not be installed
    runpy.run_path(str(_PACKAGE / "_checkout.py"))["use"](__file__)

import vmp_edge  # noqa: E402
from vmp_edge.cli import Parser, program  # noqa: E402
from vmp_edge.cli.output import print_json, say  # noqa: E402
from vmp_edge.errors import SourceError, UsageError  # noqa: E402
from vmp_edge.formatting import milliseconds  # noqa: E402
from vmp_edge.text import printable  # noqa: E402

SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "egomotion-sample.yaml"


@dataclass
class Segment:
    """A stretch of the clip in which the camera does one thing.

    Attributes:
        label: What the camera really does.
        start: Start in seconds.
        end: End in seconds.
        recognised: Number of windows within the stretch, by the label that they were recognised as.
    """

    label: str
    start: float
    end: float
    recognised: Counter[str] = field(default_factory=Counter)

    @property
    def majority(self) -> str:
        """The label that most windows were recognised as, or `-` without windows."""
        return self.recognised.most_common(1)[0][0] if self.recognised else "-"


def read_truth(path: Path) -> tuple[Path, list[Segment]]:
    """Read a truth file.

    Returns:
        The path of the video beside the file, and the video's segments.

    Raises:
        UsageError: The file is missing or is not a truth file.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        segments = [Segment(str(s["label"]), float(s["start"]), float(s["end"])) for s in content["segments"]]
        return path.parent / content["video"], segments
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist: run from a checkout, or give --truth a clip's .yaml file") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} does not say which video and which segments: {error}") from error


def recognise(stream: vmp_edge.Stream, video: Path, segments: Sequence[Segment], quiet: bool = False) -> None:
    """Stream the video, fill in what was recognised, and print each segment when it is over.

    Only windows within one segment count, because the truth of a window over two segments is not defined.

    Raises:
        SourceError: The video cannot be read.
    """
    source = vmp_edge.open_source(str(video))
    waiting = list(segments)
    try:
        while (frame := source.read()) is not None:
            prediction = stream.push(frame.image, frame.timestamp)
            while waiting and frame.timestamp >= waiting[0].end:
                _print(waiting.pop(0), quiet)
            if prediction is None:
                continue
            first = frame.timestamp - _span(stream)
            if waiting and first >= waiting[0].start - 1e-6:
                waiting[0].recognised[prediction.label] += 1
    finally:
        source.close()
    for segment in waiting:
        _print(segment, quiet)


def _span(stream: vmp_edge.Stream) -> float:
    """Return the seconds from a window's first frame to its last."""
    manifest = stream.recognizer.manifest
    return (manifest.frames - 1) / (manifest.window_rate or 30.0)


def _print(segment: Segment, quiet: bool) -> None:
    if not quiet:
        share = segment.recognised[segment.label] / max(1, segment.recognised.total())
        mark = "yes" if segment.majority == segment.label else "NO"
        time = f"{segment.start:5.1f} - {segment.end:4.1f} s"
        names = f"{printable(segment.label):24}{printable(segment.majority):24}"
        say(f"{time}  {names}{mark:>3}  {100 * share:3.0f}% of windows")


def report(segments: Sequence[Segment]) -> dict[str, Any]:
    """Return the accuracy over segments, over windows, and by label, for JSON."""
    windows: dict[str, list[int]] = {}
    for segment in segments:
        right, total = windows.setdefault(segment.label, [0, 0])
        windows[segment.label] = [
            right + segment.recognised[segment.label],
            total + segment.recognised.total(),
        ]
    right, total = (sum(counts[k] for counts in windows.values()) for k in (0, 1))
    return {
        "segments": len(segments),
        "segments_right": sum(segment.majority == segment.label for segment in segments),
        "windows": total,
        "windows_right": right,
        "by_label": {label: {"windows": t, "right": r} for label, (r, t) in windows.items()},
    }


def run(args: argparse.Namespace) -> int:
    """Run the demo, and return its exit code: 1 if most segments were recognised wrongly."""
    video, segments = read_truth(args.truth)
    if not video.is_file():
        raise SourceError(f"the video {video} does not exist: it belongs beside {args.truth}")
    with vmp_edge.load(args.bundle) as recognizer:
        stream = vmp_edge.Stream(recognizer, hop=1, bgr=True)
        if not args.json:
            manifest = recognizer.manifest
            say(f"{video.name} through {args.bundle} ({manifest.engine}), {manifest.frames} frames a window")
            say()
            say(f"{'time':14}  {'the camera did':24}{'recognised':24}")
        recognise(stream, video, segments, args.json)
        result = report(segments)
        latency = stream.statistics().latency_p50
    if args.json:
        print_json({**result, "latency_p50": latency})
    else:
        _summarise(result, latency, args.bundle)
    return 0 if 2 * result["segments_right"] > result["segments"] else 1


def _summarise(result: dict[str, Any], latency: float, bundle: Path) -> None:
    say()
    say("label                     windows   right")
    for label, counts in result["by_label"].items():
        say(f"{printable(label):24}{counts['windows']:9}{100 * counts['right'] / max(1, counts['windows']):7.0f}%")
    share = 100 * result["windows_right"] / max(1, result["windows"])
    say(f"{'all':24}{result['windows']:9}{share:7.0f}%")
    right, motions = result["segments_right"], result["segments"]
    say()
    say(f"{right} of {motions} motions recognised; {milliseconds(1000 * latency)} a window.")
    say("Now move a camera of your own:")
    say(f"  vmp-edge run {bundle} --source 0            a webcam, in a window")
    say(f"  vmp-edge run {bundle} --source video.mp4    any video")


def main(argv: list[str] | None = None) -> int:
    """Run the program, and return its exit code."""
    return program(make_parser, run, argv)


def make_parser() -> Parser:
    """Make the parser of the arguments."""
    parser = Parser(prog="python -m vmp_edge.apps.demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("build/host"), help="the bundle's folder")
    parser.add_argument("--truth", type=Path, default=SAMPLE, help="a clip's .yaml file (default: the sample's)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
