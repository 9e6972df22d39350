"""Comparing a bundle with the source model that it was made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge.bundle.check import check_clip
from vmp_edge.bundle.manifest import Manifest
from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration.decoding import Video
from vmp_edge.engines import Engine
from vmp_edge.errors import BuildError

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba

Logits = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]

TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}  # largest difference of any logit
WIDER = {"openvino": 1e-3}  # of fp32, by engine
OF_SPREAD = ("fp16",)  # the difference is a share of the logits' spread, the largest less the smallest of the clip
# least, over the logits of all clips
COSINE = {"int8": 0.97, "int8-dynamic": 0.98, "int8-weight-only": 0.99, "16a8w": 0.99}
VERIFIED = 0.1  # share of the logits' spread that a rounding elsewhere may change in int8 between two machines
# Least, over the clips, of the features' cosine with the source model's: recognising by prototypes is by cosine.
FEATURES = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.9, "int8-dynamic": 0.95, "int8-weight-only": 0.95, "16a8w": 0.95}
CLIPS = 3  # of each kind
CHECK_SEED = 1
MOST_DECIBELS = 200.0  # more than float32 can tell


def measure(
    bundle: Bundle, engine: Engine, model: VideoMamba, clips: int = CLIPS, videos: Sequence[Video] = ()
) -> dict[str, Any]:
    """Run a bundle beside its source model: in int8 on clips of the calibration, else on random and real-looking ones.

    Args:
        bundle: the bundle.
        engine: runs it, and is closed afterwards.
        model: the source model.
        clips: of each kind; in int8 eight times as many of those given.
        videos: of the calibration, float32 (3, T, S, S) each; without any, int8 takes the real-looking ones.

    Returns:
        The manifest's ``parity`` entry: how far the logits are from the source model's, what is allowed, the number of
        clips, and a check for `vmp-edge verify` to repeat. How far is the largest difference (in fp16 as a share of the
        logits' spread), in int8 the cosine between the logits of all clips; besides, how often both recognise the same
        (``agreement``, 0 to 1), and the signal-to-noise ratio of the logits in decibels (``snr``). ``features``, if the
        bundle gives any: the least cosine of a clip's with the source model's, and what is asked for.

    Raises:
        BuildError: it is further than what is allowed, or not a number.
    """
    manifest = bundle.manifest
    inexact = manifest.precision in COSINE
    shown = [manifest.preprocessing.clip(moving_scene(seed, bundle)) for seed in range(clips)]
    if not inexact:
        shown += [_random_video(seed, bundle) for seed in range(clips)]
    elif len(videos):
        shown = [np.ascontiguousarray(video[None]) for video in videos[: 8 * clips]]
    classes = len(manifest.labels)
    try:
        expected, features = _run_source(model, shown)
        got = np.concatenate([engine.run(video) for video in shown])
        check = engine.run(manifest.preprocessing.clip(check_clip(CHECK_SEED, manifest.frames, manifest.image_size)))[0]
    finally:
        engine.close()
    told = {"features": _by_clip(got[:, classes:], features, manifest.precision)} if manifest.features else {}
    got, check = got[:, :classes], check[:classes]
    if inexact:
        measured, allowed = _by_cosine(got, expected, manifest.precision)
    else:
        measured, allowed = _by_difference(got, expected, manifest.precision, _tolerance(manifest))
    if inexact or manifest.precision in OF_SPREAD:
        allowed *= float(np.ptp(check))
    logits = [float(value) for value in check]
    checked = {"seed": CHECK_SEED, "logits": logits, "tolerance": allowed}
    return {**measured, **told, "clips": len(shown), "check": checked}


def _run_source(model: VideoMamba, videos: Sequence[Video]) -> tuple[Logits, Features]:
    import torch

    with torch.no_grad():
        features = torch.cat([model.forward_features(torch.from_numpy(video)) for video in videos])
        return model.head(features).numpy(), features.numpy()


def _tolerance(manifest: Manifest) -> float:
    tolerance = TOLERANCE[manifest.precision]
    return WIDER.get(manifest.engine, tolerance) if manifest.precision == "fp32" else tolerance


def _by_difference(got: Logits, expected: Logits, precision: str, tolerance: float) -> tuple[dict[str, Any], float]:
    """Parity of (N, classes), and the tolerance of a check on another machine."""
    scale = np.ptp(expected, axis=1, keepdims=True) if precision in OF_SPREAD else 1.0
    largest = float((np.abs(got - expected) / scale).max())
    if not largest <= tolerance:
        raise BuildError(
            f"the bundle's logits differ from the source model's by {largest:.2g}{_of_spread(precision)}, "
            f"more than the {tolerance:g} that {precision} allows; nothing was written"
        )
    return {"max_difference": float(f"{largest:.3g}"), "tolerance": tolerance, **alike(got, expected)}, 10 * tolerance


def _by_cosine(got: Logits, expected: Logits, precision: str) -> tuple[dict[str, Any], float]:
    """Likewise where single logits tell little."""
    cosine = float((got * expected).sum() / np.sqrt(np.square(got).sum() * np.square(expected).sum()))
    if not cosine >= COSINE[precision]:
        raise BuildError(
            f"the cosine between the bundle's logits and the source model's is {cosine:.4f}, less than the "
            f"{COSINE[precision]:g} that {precision} asks for: calibrate on clips like those that it will see, or take "
            "another --precision; nothing was written"
        )
    return {"cosine": round(cosine, 5), "least_cosine": COSINE[precision], **alike(got, expected)}, VERIFIED


def _by_clip(got: Features, expected: Features, precision: str) -> dict[str, float]:
    """Parity of features (N, C): the least cosine of a clip's."""
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)
    cosine, least = float(((got * expected).sum(1) / lengths).min()), FEATURES[precision]
    if not cosine >= least:
        raise BuildError(
            f"the cosine between the bundle's features and the source model's is {cosine:.4f} for a clip, less than "
            f"the {least:g} that {precision} asks for: take another --precision, or leave out --features; nothing was "
            "written"
        )
    return {"cosine": round(cosine, 5), "least_cosine": least}


def alike(got: Logits, expected: Logits) -> dict[str, float]:
    """How often both recognise the same, and the signal-to-noise ratio of the logits of all clips in decibels."""
    noise = float(np.square(got - expected, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    ratio = 10 * math.log10(signal / noise) if noise else MOST_DECIBELS
    agreement = float((got.argmax(1) == expected.argmax(1)).mean())
    return {"agreement": round(agreement, 4), "snr": round(min(ratio, MOST_DECIBELS), 1)}


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
