"""`vmp-edge info`: says what a bundle is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..bundle.manifest import Manifest
from ..bundle.reading import Bundle
from ..formatting import size as size_of
from ..stream.buffers import ring_memory
from ..stream.options import StreamOptions
from ..stream.ring import slots_for
from .output import add_json_option, print_json, say

_NO_LABELS = "none: it recognises the classes of a gallery (vmp-edge enroll)"


def add_parser(subparsers: Any) -> None:
    """Add the command to the program's commands."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "info", help="say what a bundle is", description="Check a bundle's files and say what it is. Runs nothing."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the bundle's facts."""
    bundle = Bundle.open(args.bundle, any_machine=True)
    if args.json:
        print_json({"path": str(bundle.path), **bundle.manifest.to_dict(), "window": _window(bundle.manifest)})
        return 0
    for key, value in _summary(bundle.manifest):
        say(f"{key:>14}  {value}")
    return 0


def _summary(manifest: Manifest) -> list[tuple[str, str]]:
    size = manifest.image_size
    rate = f", spaced {manifest.frame_rate:g} to the second" if manifest.frame_rate else ""
    if manifest.span:
        rate = f", spread over {manifest.span:g} seconds"
    once = ", each embedded once" if manifest.embedding else ""
    prepared = manifest.preprocessing
    rows = [
        ("name", manifest.name),
        ("target", f"{manifest.target} ({manifest.machine})"),
        ("engine", f"{manifest.engine}, {manifest.precision}"),
        ("input", f"{manifest.frames} frames of {size}x{size}{rate}{once}"),
        ("window", _window_in_words(manifest)),
        ("preprocessing", f"{prepared.resize}, {prepared.interpolation}, mean {prepared.mean}, std {prepared.std}"),
        ("labels", f"{len(manifest.labels)}: {_shortened(manifest.labels)}" if manifest.labels else _NO_LABELS),
    ]
    if manifest.states:
        step = "one frame" if manifest.tubelet == 1 else f"{manifest.tubelet} frames"
        rows.insert(5, ("step", f"{step}; a stream carries a state of {size_of(4 * manifest.state_size)}"))
    if manifest.family is not None:
        rows.insert(1, ("family", f"{manifest.family.name}, {manifest.family.reason}"))
    if manifest.features:
        use = "enroll --text, and embed" if manifest.model.get("readout") == "pooled_frames" else "enroll and embed"
        rows.append(("features", f"{manifest.features}, for vmp-edge {use}"))
    rows += [("file", f"{name}, {size_of(entry.size)}") for name, entry in manifest.files.items()]
    for title, values in (("parity", manifest.parity), ("accuracy", manifest.accuracy), ("tools", manifest.tools)):
        facts = [f"{key} {value}" for key, value in values.items() if not isinstance(value, (dict, list))]
        rows.append((title, ", ".join(facts) or "not recorded"))
    return rows


def _window(manifest: Manifest) -> dict[str, Any]:
    """Return what a stream's windows are without options: the seconds that one reaches over, and the ring's size."""
    window = StreamOptions().window(manifest.frames, manifest.frame_rate, manifest.span)
    reach = None if window.reach is None else round(window.reach, 3)
    return {"reach_s": reach, "slots": slots_for(window), "ring_bytes": ring_memory(manifest, window)}


def _window_in_words(manifest: Manifest) -> str:
    facts = _window(manifest)
    reach = "neighbouring frames" if facts["reach_s"] is None else f"reaches over {facts['reach_s']:.3g} s"
    return f"{reach}; a stream keeps {facts['slots']} frames, {size_of(facts['ring_bytes'])}"


def _shortened(labels: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(labels[:most]) + (", ..." if len(labels) > most else "")
