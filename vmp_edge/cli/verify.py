"""`vmp-edge verify`: checks that a bundle is whole, and that it computes here what it computed where it was built."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle.check import check_clip
from ..errors import BundleError
from ..formatting import number, plain
from ..recognizer import Recognizer, load
from .options import add_threads_option
from .output import add_json_option, print_json, say

DEFAULT_TOLERANCE = 1e-3  # of logits in fp32, between processors


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "verify",
        help="check a bundle's files, run it, and compare its output with that of the build",
        description="Check a bundle's files, run it once, and compare the output with the one recorded at the build.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add_threads_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify the bundle, and print what was compared."""
    with load(args.bundle, args.threads) as recognizer:
        outcome = verify(recognizer)
    if args.json:
        print_json({"bundle": str(args.bundle), **outcome})
    elif outcome["compared"]:
        say(
            f"{args.bundle} is whole; its output differs by at most {number(outcome['max_difference'], 2)} from the "
            f"recorded one (allowed: {plain(outcome['tolerance'])})"
        )
    else:
        say(f"{args.bundle} is whole and runs; it has no recorded output to compare with")
    return 0


def verify(recognizer: Recognizer) -> dict[str, Any]:
    """Run a bundle on the check clip, and compare with the manifest's `parity.check` if it has one.

    Args:
        recognizer: A loaded bundle. Loading has checked its files.

    Returns:
        `compared`: True if there was an output to compare with. If so, also `max_difference` and `tolerance` of the
        logits, or of the features if the model has no classes.

    Raises:
        BundleError: The output differs by more than the tolerance, or the recorded one is not valid.
    """
    recorded = _recorded(recognizer)
    seed, expected, tolerance = recorded or (0, None, 0.0)
    clip = check_clip(seed, recognizer.frames, recognizer.image_size)
    outputs = recognizer.outputs(recognizer.manifest.preprocessing.clip(clip))
    values = outputs.logits[0] if recognizer.manifest.labels or outputs.features is None else outputs.features[0]
    if expected is None:
        return {"compared": False}
    difference = float(np.abs(values - expected).max())
    if not difference <= tolerance:
        raise BundleError(
            f"{recognizer.bundle.path} is whole, but gives another output here than where it was built (largest "
            f"difference {number(difference, 2)}, allowed {plain(tolerance)}): build it on or for this machine"
        )
    return {"compared": True, "max_difference": difference, "tolerance": tolerance}


def _recorded(recognizer: Recognizer) -> tuple[int, npt.NDArray[np.float64], float] | None:
    """Return the seed, the output and the tolerance of the manifest's `parity.check`, or None if there is none."""
    manifest = recognizer.manifest
    check = manifest.parity.get("check")
    if check is None:
        return None
    kind, count = ("logits", len(manifest.labels)) if manifest.labels else ("features", manifest.features)
    try:
        seed, expected = check["seed"], np.array(check[kind], np.float64)
        tolerance = float(check.get("tolerance", DEFAULT_TOLERANCE))
        if type(seed) is not int or not 0 <= seed < 1 << 32 or expected.shape != (count,):
            raise ValueError(f"{expected.shape} {kind} instead of {count}, seed {seed!r:.40}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{recognizer.bundle.path} has a wrong parity.check entry ({reason:.160}): build it again to record "
            "another output"
        ) from error
    return seed, expected, tolerance
