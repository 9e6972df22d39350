"""Comparing a bundle with the source model that it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge.bundle import Bundle, check_clip
from vmp_edge.engines import Engine
from vmp_edge.errors import BuildError

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba

TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}  # largest difference of any logit
OF_SPREAD = ("fp16",)  # the difference is a share of the logits' spread, the largest less the smallest of the clip
CLIPS = 3  # of each kind
CHECK_SEED = 1


def measure(bundle: Bundle, engine: Engine, model: VideoMamba, clips: int = CLIPS) -> dict[str, Any]:
    """Run a bundle beside its source model on random and on real-looking clips.

    Args:
        bundle: the bundle.
        engine: runs it, and is closed afterwards.
        model: the source model.
        clips: of each kind.

    Returns:
        The manifest's ``parity`` entry: the largest difference of any logit (in fp16 as a share of the logits' spread),
        its tolerance, the number of clips, and a check for `vmp-edge verify` to repeat.

    Raises:
        BuildError: the largest difference is over the tolerance, or not a number.
    """
    import torch

    manifest = bundle.manifest
    largest = 0.0
    try:
        for seed in range(clips):
            for video in (_random_video(seed, bundle), manifest.preprocessing.clip(moving_scene(seed, bundle))):
                with torch.no_grad():
                    expected = model(torch.from_numpy(video)).numpy()
                scale = np.ptp(expected) if manifest.precision in OF_SPREAD else 1.0
                difference = float(np.abs(engine.run(video) - expected).max() / scale)
                largest = max(largest, difference) if np.isfinite(difference) else float("inf")
        check = manifest.preprocessing.clip(check_clip(CHECK_SEED, manifest.frames, manifest.image_size))
        logits = engine.run(check)[0]
    finally:
        engine.close()
    tolerance = TOLERANCE[manifest.precision]
    if not largest <= tolerance:
        raise BuildError(
            f"the bundle's logits differ from the source model's by {largest:.2g}{_of_spread(manifest.precision)}, "
            f"more than the {tolerance:g} that {manifest.precision} allows; nothing was written"
        )
    return {
        "max_difference": float(f"{largest:.3g}"),
        "tolerance": tolerance,
        "clips": 2 * clips,
        "check": {
            "seed": CHECK_SEED,
            "logits": [float(value) for value in logits],
            "tolerance": 10 * tolerance * (float(np.ptp(logits)) if manifest.precision in OF_SPREAD else 1.0),
        },
    }


def _of_spread(precision: str) -> str:
    return " of their spread" if precision in OF_SPREAD else ""


def _random_video(seed: int, bundle: Bundle) -> npt.NDArray[np.float32]:
    side = bundle.manifest.image_size
    shape = (1, 3, bundle.manifest.frames, side, side)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def moving_scene(seed: int, bundle: Bundle) -> npt.NDArray[np.uint8]:
    """A clip with the statistics of pictures: shaded blobs under a camera that pans, uint8 (T, H, W, 3) RGB."""
    frames, side = bundle.manifest.frames, bundle.manifest.image_size
    rng = np.random.default_rng(seed)
    scene = np.zeros((2 * side, 2 * side, 3), np.float32)
    for octave in range(2, 7):
        noise = rng.random((2**octave, 2**octave, 3), dtype=np.float32)
        scene += cv2.resize(noise, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC) / octave
    scene = cv2.normalize(scene, np.empty_like(scene), 0, 255, cv2.NORM_MINMAX)
    starts = np.linspace((0, 0), rng.uniform(0, side, 2), frames).astype(int)
    return np.stack([scene[y : y + side, x : x + side] for y, x in starts]).astype(np.uint8)
