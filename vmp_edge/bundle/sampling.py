"""How the frames of a clip lie in time: the manifest's `sampling`, which older versions have in `input`."""

from __future__ import annotations

from typing import Any

from ..errors import BundleError
from .entry import Entry
from .formats import WITH_SAMPLING, WITH_STATES

MOST_FRAMES = 1024
SLOWEST, FASTEST = 0.001, 1000.0  # frames per second
SHORTEST, LONGEST = 0.001, 86400.0  # seconds of a clip


def read_sampling(entry: Entry, video: Entry, version: int) -> dict[str, Any]:
    """Read how the frames of a clip lie in time.

    Args:
        entry: The whole manifest.
        video: Its `input`.
        version: Its format. One with states may have a sampling, and does without one if it is not known.

    Returns:
        The manifest's `frames`, `frame_rate` and `span`.

    Raises:
        BundleError: An entry is missing, is not valid, or is in the wrong place.
    """
    has_sampling = "sampling" in entry.values
    if version == WITH_STATES and not has_sampling:
        return {"frames": video.integer("frames", 1, MOST_FRAMES)}
    if version not in (WITH_SAMPLING, WITH_STATES):
        if has_sampling:
            raise BundleError(f"has 'sampling', which is for format {WITH_SAMPLING}, not {version}")
        rate = video.number("frame_rate", SLOWEST, FASTEST) if "frame_rate" in video.values else None
        return {"frames": video.integer("frames", 1, MOST_FRAMES), "frame_rate": rate}
    sampling = entry.entry("sampling")
    for key in ("frames", "frame_rate"):
        if key in video.values:
            raise BundleError(f"has 'input.{key}', which is in 'sampling' in format {version}")
    if ("span" in sampling.values) == ("rate" in sampling.values):
        raise BundleError("needs one of 'sampling.span' and 'sampling.rate'")
    return {
        "frames": sampling.integer("frames", 1, MOST_FRAMES),
        "frame_rate": sampling.number("rate", SLOWEST, FASTEST) if "rate" in sampling.values else None,
        "span": sampling.number("span", SHORTEST, LONGEST) if "span" in sampling.values else None,
    }
