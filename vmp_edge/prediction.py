"""What a recogniser gives: `Prediction`, and the outputs of the model that it is made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import linear
from .bundle.reading import Bundle
from .errors import BundleError

Clip = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Prediction:
    """The result of recognising a clip or a window of a stream.

    Args:
        label: The label to show: the one with the highest score, or, from a stream, the one that its smoothing holds.
        score: That label's score, 0 to 1.
        scores: Scores of all labels by softmax, float32 (classes,). From a stream, they are smoothed.
        labels: The labels, in the order of the scores.
        latency: Seconds for preparing the clip or gathering the window, and for the engine.
        timestamp: From a stream, the timestamp of the window's newest frame in seconds.
        frame: From a stream, the number of that frame, counted from 0.
        dropped: From a stream, how many frames have been dropped so far.
        features: The features, float32 (C,), which are the input of the model's head. A `Gallery` compares them. None
            if the bundle has no features.
        skipped: From a stream with a motion gate, whether this window was skipped because nothing moved. The scores are
            then those of the last window that was recognised; the timestamp and the frame are those of this window.
        source: From a file that `Recognizer.predict` has read, its path.
    """

    label: str
    score: float
    scores: npt.NDArray[np.float32] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    latency: float
    timestamp: float | None = None
    frame: int | None = None
    dropped: int = 0
    features: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    skipped: bool = False
    source: str | None = None

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k labels with the highest scores, and these scores, highest first."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.labels[index], float(self.scores[index])) for index in order]


class Outputs(NamedTuple):
    """A model's outputs for videos: logits, float32 (B, classes), and features, float32 (B, C), or None."""

    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32] | None


def sample_evenly(available: int, count: int) -> list[int]:
    """Return the indices of `count` frames out of `available`: the middle frame of each of `count` equal parts.

    Indices repeat if there are fewer frames than parts.
    """
    return [(2 * index + 1) * available // (2 * count) for index in range(count)]


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return scores, float32 (classes,), from logits, float32 (classes,).

    They are computed in float64, relative to the largest logit, so that nothing overflows.
    """
    scores: npt.NDArray[np.float32] = linear.softmax(logits[None].astype(np.float64))[0].astype(np.float32)
    return scores


def split(values: npt.NDArray[np.float32], count: int, bundle: Bundle) -> Outputs:
    """Split what an engine has returned for some videos into logits and features.

    Args:
        values: float32, of any shape.
        count: B, the number of videos.
        bundle: The bundle that the engine executes.

    Raises:
        BundleError: The values have another shape than the bundle says, or are not finite.
    """
    manifest = bundle.manifest
    if values.shape != (count, manifest.outputs):
        features_too = f" and {manifest.features} features" if manifest.features else ""
        raise BundleError(
            f"{bundle.path} gave an output of shape {values.shape} for {len(manifest.labels)} "
            f"labels{features_too}: build it again"
        )
    if not np.isfinite(values).all():
        raise BundleError(f"{bundle.path} gave values that are not finite: build it again and check its weights")
    logits, features = np.split(values, [len(manifest.labels)], axis=1)
    return Outputs(logits, features if manifest.features else None)
