"""Compare a bundle with the source model that it was made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from vmp_edge import engines
from vmp_edge.bundle.check import check_clip
from vmp_edge.bundle.manifest import Manifest
from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration.decoding import Video
from vmp_edge.engines import Engine
from vmp_edge.errors import BuildError
from vmp_edge.formatting import number, plain
from vmp_edge.progress import Step, part

from . import stepping
from .precision import Cosine, Difference, Precision, find

if TYPE_CHECKING:
    from vmp_edge.models import VideoMamba

Logits = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]
States = npt.NDArray[np.float32]
T = TypeVar("T")

# How far a quantised bundle's logits may differ on another machine, where sums round differently, as a share of their
# spread.
VERIFIED = 0.1
CLIPS = 3  # clips of each kind, unless the user says otherwise
CHECK_SEED = 1
MOST_DECIBELS = 200.0  # more than float32 can resolve


def measure(
    bundle: Bundle, engine: Engine, model: VideoMamba, clips: int = CLIPS, videos: Sequence[Video] = ()
) -> dict[str, Any]:
    """Run a bundle beside its source model.

    A floating-point bundle is compared on random and on real-looking clips, a quantised one on clips of its
    calibration. That of a causal model steps through longer clips: the outputs are compared after each step, and the
    states after the last.

    Args:
        bundle: The bundle.
        engine: Runs the bundle, and is closed afterwards.
        model: The source model.
        clips: Number of clips of each kind; of the calibration's clips eight times as many are used.
        videos: Clips of the calibration, float32 (3, T, S, S) each. Without any, a quantised bundle is compared on
            real-looking clips.

    Returns:
        The manifest's ``parity`` entry:

        * ``max_difference`` and ``tolerance``, or ``cosine`` and ``least_cosine``: the distance from the source model
          and what is accepted (`vmp_edge.compile.precision`);
        * ``agreement``: how often both recognise the same, 0 to 1; ``snr``: the signal-to-noise ratio of the logits
          in decibels. Of a model without classes, the features stand for the logits, and there is no agreement;
        * ``features``, if the bundle gives any: the smallest cosine of a clip's features with the source model's, and
          what is accepted;
        * ``states``, of a causal model: the largest difference of its states, and what is accepted (`stepping`);
        * ``clips``: the number of clips; ``check``: an output for `vmp-edge verify` to repeat.

    Raises:
        BuildError: The distance is larger than what is accepted, or not a number.
    """
    manifest = bundle.manifest
    precision = find(manifest.precision)
    compared = _clips(bundle, precision, clips, videos)
    classes = len(manifest.labels)
    try:
        with part("the source model", len(compared), "clips") as step:
            expected, expected_features, expected_states = _run_source(model, compared, step)
        with part("the bundle", len(compared) + 1, "clips") as step:
            results = [_counted(stepping.run(engine, video, manifest), step) for video in compared]
            outputs, states = (np.concatenate(parts) for parts in zip(*results, strict=True))
        check = engine.run(manifest.preprocessing.clip(check_clip(CHECK_SEED, manifest.frames, manifest.image_size)))[0]
    finally:
        engine.close()
    more = {}
    if manifest.states:
        more["states"] = stepping.compare(states, expected_states, manifest)
    if manifest.features:
        more["features"] = _compare_features(outputs[:, classes:], expected_features, precision)
    kind = "logits" if classes else "features"
    if classes:
        outputs, check = outputs[:, :classes], check[:classes]
    else:
        expected = expected_features
    distance, allowed = _compare_logits(outputs, expected, manifest, precision)
    if isinstance(precision.parity, Cosine) or precision.parity.of_spread:
        allowed *= float(np.ptp(check))
    return {
        **distance,
        **(alike(outputs, expected) if classes else {"snr": _signal_to_noise(outputs, expected)}),
        **more,
        "clips": len(compared),
        "check": {"seed": CHECK_SEED, kind: [float(value) for value in check], "tolerance": allowed},
    }


def _clips(bundle: Bundle, precision: Precision, clips: int, videos: Sequence[Video]) -> list[Video]:
    """The clips that a bundle is compared on, float32 (1, 3, T, S, S) each."""
    if precision.is_quantised and len(videos):
        return [np.ascontiguousarray(video[None]) for video in videos[: 8 * clips]]
    manifest = bundle.manifest
    frames = stepping.frames_of(manifest)
    scenes = [manifest.preprocessing.clip(moving_scene(seed, bundle, frames)) for seed in range(clips)]
    return scenes if precision.is_quantised else scenes + [_random_video(seed, bundle, frames) for seed in range(clips)]


def _counted(result: T, step: Step) -> T:
    """Count a clip that was run, and return its result."""
    step.advance()
    return result


def _run_source(model: VideoMamba, videos: Sequence[Video], step: Step) -> tuple[Logits, Features, States]:
    """Return the source model's logits and features of clips, or of a causal model's steps, and its last states."""
    import torch

    def run(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not model.options.causal:
            return model.forward_features(video), torch.zeros(1, 0)
        _, features, state = model.forward_steps(video)
        return features[0], state

    with torch.no_grad():
        results = [_counted(run(torch.from_numpy(video)), step) for video in videos]
        features, states = (torch.cat(parts) for parts in zip(*results, strict=True))
        return model.head(features).numpy(), features.numpy(), states.numpy()  # without a head, logits are features


def _compare_logits(
    logits: Logits, expected: Logits, manifest: Manifest, precision: Precision
) -> tuple[dict[str, float], float]:
    """The distance between logits (N, classes), and the tolerance of a check on another machine.

    The tolerance is a share of the logits' spread if the distance is a cosine or such a share itself.
    """
    if isinstance(precision.parity, Cosine):
        return _by_cosine(logits, expected, precision, precision.parity), VERIFIED
    accepted = precision.parity
    tolerance = engines.record(manifest.engine).tolerance
    if precision.name == "fp32" and tolerance is not None:
        accepted = replace(accepted, tolerance=tolerance)
    return _by_difference(logits, expected, precision, accepted), 10 * accepted.tolerance


def _by_difference(logits: Logits, expected: Logits, precision: Precision, accepted: Difference) -> dict[str, float]:
    scale = np.ptp(expected, axis=1, keepdims=True) if accepted.of_spread else 1.0
    largest = float((np.abs(logits - expected) / scale).max())
    if not largest <= accepted.tolerance:
        unit = " of their spread" if accepted.of_spread else ""
        raise BuildError(
            f"the bundle's outputs differ from the source model's by {number(largest, 2)}{unit}, "
            f"more than the {plain(accepted.tolerance)} that {precision.name} allows; nothing was written"
        )
    return {"max_difference": float(f"{largest:.3g}"), "tolerance": accepted.tolerance}


def _by_cosine(logits: Logits, expected: Logits, precision: Precision, accepted: Cosine) -> dict[str, float]:
    cosine = float((logits * expected).sum() / np.sqrt(np.square(logits).sum() * np.square(expected).sum()))
    if not cosine >= accepted.least:
        raise BuildError(
            f"the cosine between the bundle's outputs and the source model's is {cosine:.4f}, less than the "
            f"{plain(accepted.least)} that {precision.name} asks for: calibrate on clips like those that it will see, "
            "or take another --precision; nothing was written"
        )
    return {"cosine": round(cosine, 5), "least_cosine": accepted.least}


def _compare_features(features: Features, expected: Features, precision: Precision) -> dict[str, float]:
    """The smallest cosine between the features (N, C) of a clip and the source model's."""
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    cosine, least = float(((features * expected).sum(1) / lengths).min()), precision.least_feature_cosine
    if not cosine >= least:
        raise BuildError(
            f"the cosine between the bundle's features and the source model's is {cosine:.4f} for a clip, less than "
            f"the {plain(least)} that {precision.name} asks for: take another --precision, or leave out --features; "
            "nothing was written"
        )
    return {"cosine": round(cosine, 5), "least_cosine": least}


def alike(got: Logits, expected: Logits) -> dict[str, float]:
    """Return how often both recognise the same, and the signal-to-noise ratio of all logits in decibels."""
    agreement = float((got.argmax(1) == expected.argmax(1)).mean())
    return {"agreement": round(agreement, 4), "snr": _signal_to_noise(got, expected)}


def _signal_to_noise(got: Logits, expected: Logits) -> float:
    noise = float(np.square(got - expected, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    ratio = 10 * math.log10(signal / noise) if noise else MOST_DECIBELS
    return round(min(ratio, MOST_DECIBELS), 1)


def _random_video(seed: int, bundle: Bundle, frames: int) -> npt.NDArray[np.float32]:
    side = bundle.manifest.image_size
    shape = (1, 3, frames, side, side)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def moving_scene(seed: int, bundle: Bundle, frames: int | None = None) -> npt.NDArray[np.uint8]:
    """Draw a clip with the statistics of pictures: shaded blobs under a camera that pans, uint8 (T, H, W, 3) RGB.

    T is `frames`, or else the bundle's.
    """
    frames, side = frames or bundle.manifest.frames, bundle.manifest.image_size
    rng = np.random.default_rng(seed)
    scene = np.zeros((2 * side, 2 * side, 3), np.float32)
    for octave in range(2, 7):
        noise = rng.random((2**octave, 2**octave, 3), dtype=np.float32)
        scene += cv2.resize(noise, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC) / octave
    scene = cv2.normalize(scene, np.empty_like(scene), 0, 255, cv2.NORM_MINMAX)
    starts = np.linspace((0, 0), rng.uniform(0, side, 2), frames).astype(int)
    return np.stack([scene[y : y + side, x : x + side] for y, x in starts]).astype(np.uint8)
