"""What a user should know about the frames that a window takes, where they may not be what is expected."""

from __future__ import annotations

from ..bundle.manifest import Manifest
from ..models.options import PRESETS
from ..sources import Source
from ..stream.options import StreamOptions
from ..stream.window import Window


def doubt(manifest: Manifest, options: StreamOptions) -> str | None:
    """Return a warning if nobody says how far apart the frames of a window are, or None.

    There is none for models of single frames, none for presets, whose random weights recognise nothing in any case, and
    none for bundles of other models than this family's, which `vmp-edge build` did not make.

    Args:
        manifest: The bundle's manifest.
        options: The stream's options.
    """
    if manifest.window_rate is not None or options.stride is not None or options.fps is not None:
        return None
    if manifest.frames == 1 or manifest.name in PRESETS or "patch_size" not in manifest.model:
        return None
    return (
        f"{manifest.name} does not say how its frames were sampled in training, so a window takes {manifest.frames} "
        "neighbouring frames, which may be something that the model never saw: build it with --span or --frame-rate, "
        "or give --fps or --stride"
    )


def too_slow(window: Window, source: Source | None) -> str | None:
    """Return a warning if a source has fewer frames per second than its window takes, or None."""
    if window.fps is None or source is None or source.fps is None or source.fps >= 0.9 * window.fps:
        return None
    return f"{source.name} has {source.fps:g} frames per second, the window takes {window.fps:g}: some repeat"


def too_short(window: Window) -> str | None:
    """Return why a source may have ended before its first window, or None if only its number of frames counts."""
    if window.reach is None:
        return None
    return f"a window reaches over {window.reach:.3g} s, and the source ended before: --fps or --stride shortens it"
