"""`vmp-edge enroll`: adds a user's own classes by a few examples or by texts, kept in a gallery beside the bundle."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.reading import Bundle
from ..errors import SourceError, UsageError
from ..files import check_writable
from ..formatting import percent, quantity
from ..gallery import Features, Gallery, check_fits, check_name, default_path
from ..masking import masked
from ..preprocessing import empty_video
from ..recognizer import Recognizer, load, sample_evenly
from ..separation import LEAST_TAKES, Separation, separate
from ..sources import open_source
from ..stream.stream import Stream
from . import enroll_texts
from .options import DEFAULTS, add_hop_option, add_threads_option
from .output import add_json_option, message, print_json, say

SECONDS = 5.0  # how long a live source is watched from its first window on
_PICTURES = 512  # of a clip that is shorter than a window: 77 MB at 224 pixels
_MOST_NAMED = 3  # classes that a message names before it says "and N more"
EPILOG = """examples:
  vmp-edge build --target host --features                                  a bundle that can enroll
  vmp-edge enroll build/host --name wave --source wave-1.mp4 wave-2.mp4    from clips; each is one take
  vmp-edge enroll build/host --name wave --source 0 --seconds 5            one more take, from the camera
  vmp-edge enroll build/host --negative --source room.mp4                  examples of none of the classes
  vmp-edge enroll build/host --list
  vmp-edge enroll build/mm --text "a person waves" "a dog runs" --checkpoint mm.pth     classes by texts
  vmp-edge run build/host --gallery build/host.gallery.npz --source 0
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "enroll",
        help="add classes of your own by a few examples, or by texts",
        description="Store features of a few examples of a class, or of the text that names it, which `vmp-edge run "
        "--gallery` then recognises beside the trained classes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder, built with --features")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--name", help="the class that the sources show; a class that is enrolled already gets more examples"
    )
    action.add_argument("--negative", action="store_true", help="the sources show examples of none of the classes")
    action.add_argument("--remove", metavar="NAME", help="remove a class")
    action.add_argument("--merge", type=Path, metavar="FILE", help="add the classes of another gallery of this bundle")
    action.add_argument("--list", action="store_true", help="list the classes that are enrolled")
    parser.add_argument(
        "--source", nargs="+", default=[], metavar="SOURCE", help="clips, or any other source that `vmp-edge run` takes"
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="FILE", help="where the classes are kept (default: BUNDLE.gallery.npz)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help=f"seconds of each source to use (default: all of a file, and of a camera {SECONDS:g} from its first "
        "window on)",
    )
    enroll_texts.add_options(parser)
    add_hop_option(parser, "frames from one example to the next")
    add_threads_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Change the gallery, and print what it holds."""
    adds_examples = args.name is not None or args.negative
    adds_texts = enroll_texts.are_given(args)
    others = args.list or args.remove is not None or args.merge is not None
    if adds_texts + (adds_examples or others) != 1:
        raise UsageError("give one of --name, --negative, --text, --text-file, --remove, --merge and --list")
    if adds_examples != bool(args.source):
        raise UsageError("give --source with --name or --negative, and with them only")
    if args.seconds is not None and not args.seconds > 0:
        raise UsageError(f"--seconds must be positive, not {args.seconds}")
    path = args.gallery or default_path(args.bundle)
    bundle = Bundle.open(args.bundle, any_machine=True)
    adds = adds_examples or adds_texts
    gallery = Gallery.load(path) if path.exists() or not adds else Gallery.of(bundle)
    check_fits(gallery, bundle)
    if args.name is not None:
        check_name(args.name, bundle)
    if not args.list:
        check_writable(path, "the gallery")
    if adds_examples:
        _enroll(gallery, args)
    elif adds_texts:
        enroll_texts.enroll(gallery, bundle, args)
    elif args.merge is not None:
        gallery.merge(Gallery.load(args.merge))
    elif args.remove is not None:
        gallery.remove(args.remove)
    if not args.list:
        gallery.save(path)
    _print(gallery, path, args.json)
    return 0


def _enroll(gallery: Gallery, args: argparse.Namespace) -> None:
    with load(args.bundle, args.threads) as recognizer:
        for source in args.source:
            features = examples(recognizer, source, args.hop, args.seconds)
            message(f"{masked(source)}: {quantity(len(features), 'example')}")
            if args.negative:
                gallery.add_negatives(features)
            else:
                gallery.add(args.name, features)


def examples(recognizer: Recognizer, text: str, hop: int = DEFAULTS.hop, seconds: float | None = None) -> Features:
    """Compute the features of a source's windows. A clip shorter than a window gives one example of all its frames.

    Args:
        recognizer: The recogniser of a bundle with features.
        text: The source, as for `open_source`.
        hop: Number of frames from one window to the next.
        seconds: Seconds of the source to use. None takes all of a file, and of a live source the first window and
            `SECONDS` more.

    Returns:
        float32 (N, C), N at least 1.

    Raises:
        SourceError: The source cannot be opened, or has no frames.
        GalleryError: The bundle gives no features.
    """
    Gallery.of(recognizer.bundle)  # refuses a bundle without features
    stream = Stream(recognizer, hop, smoothing=None, bgr=True)
    windows: list[Features] = []
    shorter = _ShortClip(recognizer)  # until the first window
    with contextlib.closing(open_source(text, message)) as source:
        limit = seconds
        if limit is None and source.live:
            limit = SECONDS + (stream.window.reach or 0.0)
        if source.live:
            message(f"{source.name}: show it now, for {limit:.3g} seconds")
        first = None
        while (frame := source.read()) is not None:
            first = frame.timestamp if first is None else first
            if limit is not None and frame.timestamp - first >= limit:
                break
            if frame.restarted:
                stream.reset()
            if not windows:
                shorter.add(frame.image)
            prediction = stream.push(frame.image, frame.timestamp)
            if prediction is not None and prediction.features is not None:
                windows.append(prediction.features)
                shorter.forget()
    if not windows:
        if first is None:
            raise SourceError(f"{masked(text)} has no frames")
        windows.append(shorter.features())
    return np.stack(windows)


class _ShortClip:
    """The frames of a clip that may end before its first window, as resized pictures.

    At most `_PICTURES` are kept (or 4 T): when there are more, every second one goes, and from then on every second
    frame is kept. So the memory is bounded however long a window is.

    Args:
        recognizer: The recogniser of a bundle with features.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._most = max(_PICTURES, 4 * recognizer.frames)
        self._pictures: list[npt.NDArray[np.uint8]] = []
        self._count, self._step = 0, 1

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Keep a frame, uint8 (H, W, 3) BGR."""
        if self._count % self._step == 0:
            self._pictures.append(self._recognizer.manifest.preprocessing.picture(frame).copy())
        self._count += 1
        if len(self._pictures) > self._most:
            self._pictures = self._pictures[::2]
            self._step *= 2

    def forget(self) -> None:
        """Release the memory."""
        self._pictures.clear()

    def features(self) -> Features:
        """Return the features of the whole clip, float32 (C,): its frames are sampled as by `Recognizer.predict`."""
        recognizer = self._recognizer
        video = empty_video(recognizer.frames, recognizer.image_size)
        for index, place in enumerate(sample_evenly(len(self._pictures), recognizer.frames)):
            recognizer.manifest.preprocessing.frame(self._pictures[place], video[0, :, index], bgr=True)
        features: Features = recognizer.features(video)[0]
        return features


def _print(gallery: Gallery, path: Path, as_json: bool) -> None:
    thresholds, separation = gallery.thresholds(), separate(gallery)
    for name, entry in gallery.classes.items():
        if gallery.temperature is not None:
            say(f"{name:>24}  by its text")
            continue
        takes = quantity(len(np.unique(entry.takes)), "take")
        count = quantity(len(entry.features), "example")
        least = f", recognised from a similarity of {thresholds[name]:.3f} on"
        if separation is not None and separation.has_none:
            least = ""
        say(f"{name:>24}  {count} of {takes}{least}")
    _judge(gallery, separation)
    negatives = f", {quantity(len(gallery.negatives), 'negative')}" if len(gallery.negatives) else ""
    scored = ""
    if gallery.temperature is not None:
        scored = f", scored by cosine, temperature {gallery.temperature:g}; give a threshold with --threshold"
    say(f"{path}: {quantity(len(gallery.classes), 'class', 'classes')}{negatives}{scored}")
    if as_json:
        classes = {
            name: {
                "examples": len(entry.features),
                "takes": len(np.unique(entry.takes)),
                "threshold": round(thresholds[name], 4),
            }
            for name, entry in gallery.classes.items()
        }
        texts = {} if gallery.temperature is None else {"temperature": gallery.temperature}
        checked = {} if separation is None else {"left_out": _to_dict(separation)}
        print_json({"gallery": str(path), "classes": classes, "negatives": len(gallery.negatives), **texts, **checked})


def _judge(gallery: Gallery, separation: Separation | None) -> None:
    """Say how well the classes can be told apart, or what is needed to find that out."""
    if separation is None:
        short = [name for name, entry in gallery.classes.items() if len(np.unique(entry.takes)) < LEAST_TAKES]
        several = len(gallery.classes) > 1 or len(gallery.negatives)
        if several and short and gallery.temperature is None:
            message(
                "not checked whether the classes can be told apart: that needs two takes of each, and "
                f"{_listed(short)} {'has' if len(short) == 1 else 'have'} one"
            )
        return
    right, count = separation.right, len(separation.classes)
    say(
        f"each take left out in turn and recognised by the others: {right} of {count} right, {percent(right / count)}; "
        f"guessing would be right in {percent(separation.chance)}"
    )
    if separation.is_guessing:
        message(
            "these classes cannot be told apart, or there are too few takes to see that they can: expect wrong labels"
        )
    elif separation.is_weak:
        message("these classes are often taken for one another: expect wrong labels now and then")
    for name, other, number, takes in separation.confusions():
        taken = "for none of the classes" if other is None else f"for {other!r}"
        message(f"{name!r} is taken {taken} in {number} of its {quantity(takes, 'take')}")
    if separation.is_guessing or separation.is_weak:
        message(
            "what helps: more takes, filmed anew and where the camera will be; actions that differ more; a model that "
            "was trained on actions of people (vmp-edge models), or one trained on your clips (vmp-edge train)"
        )


def _to_dict(separation: Separation) -> dict[str, Any]:
    confusions = [
        {"class": name, "taken_for": other, "takes": number} for name, other, number, _ in separation.confusions()
    ]
    return {
        "takes": len(separation.classes),
        "right": separation.right,
        "chance": round(separation.chance, 4),
        "told_apart": not (separation.is_guessing or separation.is_weak),
        "confusions": confusions,
    }


def _listed(names: list[str]) -> str:
    """List names, and of many the first few."""
    shown = ", ".join(map(repr, names[:_MOST_NAMED]))
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"
