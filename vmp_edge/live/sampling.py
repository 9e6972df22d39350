"""What a user should know about a bundle that does not say how its frames are sampled."""

from __future__ import annotations

from ..bundle.manifest import Manifest
from ..models.options import PRESETS
from ..stream.options import StreamOptions


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
