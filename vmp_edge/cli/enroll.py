"""`vmp-edge enroll`: classes of a user's own from a few examples, kept beside a bundle."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..bundle.reading import Bundle
from ..errors import SourceError, UsageError
from ..gallery import Features, Gallery, check_fits, check_name, default_path
from ..recognizer import Recognizer, load
from ..sources import open_source
from ..stream.stream import Stream
from .output import add_json_option, message, print_json

SECONDS = 5.0  # of a live source
EPILOG = """examples:
  vmp-edge build --target host --features                                  a bundle that can
  vmp-edge enroll build/host --name wave --source wave-1.mp4 wave-2.mp4    from clips, each of them one take
  vmp-edge enroll build/host --name wave --source 0 --seconds 5            one more take, from the camera
  vmp-edge enroll build/host --negative --source room.mp4                  what is none of the classes
  vmp-edge enroll build/host --list
  vmp-edge run build/host --gallery build/host.gallery.npz --source 0
"""


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "enroll",
        help="add classes of your own from a few examples",
        description="Store features of a few examples of a class, which `vmp-edge run --gallery` then recognises "
        "beside the trained classes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder, built with --features")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--name", help="the class that the sources show; a known one gets more examples")
    what.add_argument("--negative", action="store_true", help="the sources show what is none of the classes")
    what.add_argument("--remove", metavar="NAME", help="forget a class")
    what.add_argument("--merge", type=Path, metavar="FILE", help="add the classes of another gallery of this bundle")
    what.add_argument("--list", action="store_true", help="say what is enrolled")
    parser.add_argument(
        "--source", nargs="+", default=[], metavar="SOURCE", help="clips, or anything that `vmp-edge run` takes"
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="FILE", help="where the classes are kept (default: BUNDLE.gallery.npz)"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"of each source (default: all of a file, {SECONDS:g} of a camera)"
    )
    parser.add_argument("--hop", type=int, default=4, metavar="N", help="frames between two examples (default: 4)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the engine (default: the bundle's)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Changes the gallery, and says what it holds."""
    shows = args.name is not None or args.negative
    if shows != bool(args.source):
        raise UsageError("give --source with --name or --negative, and with them only")
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError(f"--seconds must be positive, not {args.seconds}")
    path = args.gallery or default_path(args.bundle)
    bundle = Bundle.open(args.bundle, any_machine=True)
    gallery = Gallery.load(path) if path.exists() or not shows else Gallery.of(bundle)
    check_fits(gallery, bundle)
    if args.name is not None:
        check_name(args.name, bundle)
    if shows:
        _enroll(gallery, args)
    elif args.merge is not None:
        gallery.merge(Gallery.load(args.merge))
    elif args.remove is not None:
        gallery.remove(args.remove)
    if not args.list:
        gallery.save(path)
    _say(gallery, path, args.json)
    return 0


def _enroll(gallery: Gallery, args: argparse.Namespace) -> None:
    with load(args.bundle, args.threads) as recognizer:
        for source in args.source:
            features = examples(recognizer, source, args.hop, args.seconds)
            message(f"{source}: {len(features)} examples")
            if args.negative:
                gallery.add_negatives(features)
            else:
                gallery.add(args.name, features)


def examples(recognizer: Recognizer, text: str, hop: int = 4, seconds: float | None = None) -> Features:
    """Features of a source's windows, as a stream would see them; of a clip shorter than a window, of all its frames.

    Args:
        recognizer: Of a bundle with features.
        text: As for `open_source`.
        hop: Frames from one window to the next.
        seconds: Of the source; None takes all of a file, and `SECONDS` of what is live.

    Returns:
        float32 (N, C), N at least 1.

    Raises:
        SourceError: The source cannot be opened, or has no frames.
        GalleryError: The bundle gives no features.
    """
    Gallery.of(recognizer.bundle)  # refuses a bundle without features
    stream = Stream(recognizer, hop, smoothing=None, bgr=True)
    found: list[Features] = []
    short: list[np.ndarray[Any, Any]] = []  # frames of what may turn out to be shorter than a window
    with contextlib.closing(open_source(text, message)) as source:
        limit = seconds if seconds is not None else SECONDS if source.live else None
        if source.live:
            message(f"{source.name}: show it now, for {limit:g} seconds")
        first = None
        while (frame := source.read()) is not None:
            first = frame.timestamp if first is None else first
            if limit is not None and frame.timestamp - first >= limit:
                break
            if frame.restarted:
                stream.reset()
            if not found:
                short.append(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB))
            prediction = stream.push(frame.image, frame.timestamp)
            if prediction is not None and prediction.features is not None:
                found.append(prediction.features)
                short.clear()
    if not found:
        if not short:
            raise SourceError(f"{text} has no frames")
        alone = recognizer.predict(np.stack(short)).features
        assert alone is not None
        found.append(alone)
    return np.stack(found)


def _say(gallery: Gallery, path: Path, as_json: bool) -> None:
    thresholds = gallery.thresholds()
    for name, one in gallery.classes.items():
        takes = len(np.unique(one.takes))
        print(f"{name:>24}  {len(one.features)} examples of {takes} takes, recognised from {thresholds[name]:.3f} on")
    negatives = f", {len(gallery.negatives)} negatives" if len(gallery.negatives) else ""
    print(f"{path}: {len(gallery.classes)} classes{negatives}", flush=True)
    if as_json:
        classes = {
            name: {
                "examples": len(one.features),
                "takes": len(np.unique(one.takes)),
                "threshold": round(thresholds[name], 4),
            }
            for name, one in gallery.classes.items()
        }
        print_json({"gallery": str(path), "classes": classes, "negatives": len(gallery.negatives)})
