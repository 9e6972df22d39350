"""The recogniser: runs a bundle in its engine, and turns a clip into a label with scores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from . import engines
from .bundle.manifest import Manifest
from .bundle.reading import Bundle
from .errors import BundleError, UsageError
from .fair_lock import FairLock
from .gallery import NONE, Gallery, check_fits
from .matcher import Matcher
from .preprocessing import check_clip_shape, describe_array, empty_video

_CLOSED = "this recogniser is closed: load the bundle again"


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

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """Return the k labels with the highest scores, and these scores, highest first."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.labels[index], float(self.scores[index])) for index in order]


class Outputs(NamedTuple):
    """A model's outputs for videos: logits, float32 (B, classes), and features, float32 (B, C), or None."""

    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32] | None


class Recognizer:
    """Recognises clips with a bundle. Several threads may call it; their calls run in the order in which they came.

    Args:
        bundle: The bundle.
        engine: The engine that executes the bundle. It is closed with the recogniser.
        gallery: Classes to recognise beside the trained ones. Later changes of the gallery have no effect.
        threshold: The least similarity for the gallery's classes, as for `Matcher`.

    Raises:
        GalleryError: The gallery is not for this bundle.
        UsageError: The threshold is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: engines.Engine,
        gallery: Gallery | None = None,
        threshold: float | None = None,
    ) -> None:
        self.bundle = bundle
        self._matcher = Matcher(gallery, bundle, threshold) if gallery is not None else None
        self._engine: engines.Engine | None = engine
        self._lock = FairLock()
        self._video = empty_video(self.frames, self.image_size)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class, in the order of the scores: the trained classes, then those of the gallery.

        A model without classes of its own has the label `NONE` instead of them.
        """
        trained = self.manifest.labels or (NONE,)
        return trained + (self._matcher.names if self._matcher is not None else ())

    @property
    def frames(self) -> int:
        """T, the number of frames that the model takes."""
        return self.manifest.frames

    @property
    def image_size(self) -> int:
        """S, the side of the square frames that the model takes, in pixels."""
        return self.manifest.image_size

    def predict(self, clip: npt.NDArray[np.uint8]) -> Prediction:
        """Recognise one clip.

        Args:
            clip: Clip, uint8 (T, H, W, 3) RGB, with any T, H and W of at least 1. The model's frames are sampled from
                it as by `sample_evenly`.

        Raises:
            UsageError: The clip has another shape or dtype.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        check_clip_shape(clip)
        start = time.perf_counter()
        with self._lock:
            for index, source in enumerate(sample_evenly(len(clip), self.frames)):
                self.manifest.preprocessing.frame(clip[source], self._video[0, :, index])
            outputs = self._run(self._video)
        return self.interpret(outputs, time.perf_counter() - start)

    def predict_video(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the engine on videos that are prepared already.

        Args:
            video: Videos, float32 (B, 3, T, S, S), normalised, with any strides.

        Returns:
            Logits of the trained classes, float32 (B, classes).

        Raises:
            UsageError: The video has another shape or dtype.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        return self.outputs(video).logits

    def features(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the features of videos: the class token after the final norm, or what the model's readout gives.

        Args:
            video: Videos as for `predict_video`.

        Returns:
            Features, float32 (B, C).

        Raises:
            UsageError: The videos have another shape or dtype, or the bundle has no features.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        features = self.outputs(video).features
        if features is None:
            raise UsageError(f"{self.bundle.path} gives no features: build it with --features")
        return features

    def outputs(self, video: npt.NDArray[np.float32]) -> Outputs:
        """Return logits and features of videos, from one run of the engine.

        Args:
            video: Videos as for `predict_video`.

        Raises:
            UsageError: The videos have another shape or dtype.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        expected = (3, self.frames, self.image_size, self.image_size)
        if not isinstance(video, np.ndarray) or video.dtype != np.float32 or video.shape[1:] != expected:
            shape = f"(batch, {str(expected)[1:]}"
            raise UsageError(f"a video for this bundle is float32 {shape}, not {describe_array(video)}")
        with self._lock:
            return self._run(video)

    @property
    def can_reject(self) -> bool:
        """Whether a video can be of none of a gallery's classes; False for texts without a threshold."""
        return self._matcher is None or self._matcher.rejects

    def require_classes(self) -> None:
        """Check that there is anything to recognise: classes of the model, or of a gallery.

        Raises:
            UsageError: There is nothing. The features are there all the same.
        """
        if len(self.labels) == 1:
            raise UsageError(
                f"{self.bundle.path} recognises nothing by itself, as its model has no classifier: enroll classes "
                "(vmp-edge enroll) and give their file with --gallery"
            )

    def turn(self) -> FairLock:
        """Return what a thread holds (by `with`) while it makes several calls that no other thread may come between.

        Turns come in the order in which threads ask for them.
        """
        return self._lock

    @property
    def frame_tokens(self) -> tuple[int, int, int] | None:
        """The shape (P, N, C) of what `embed` returns, or None if the bundle was not built with `--per-frame`."""
        if self.manifest.embedding is None:
            return None
        tokens, channels = self.manifest.frame_tokens
        return tokens, self.manifest.tubelet, channels

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embed one frame for `predict_tokens`, with a bundle that was built with `--per-frame`.

        Args:
            frame: Frame, float32 (3, S, S), normalised, C-contiguous.

        Returns:
            The frame's shares of the tokens, float32 (P, N, C), one share for each position in a tubelet of N frames.
            They do not depend on the window. The tokens of a tubelet are the sum of the first frame's first share, the
            second frame's second share, and so on.

        Raises:
            UsageError: The frame has another shape or dtype, or the bundle takes frames.
            BundleError: The engine failed, or returned another shape.
        """
        shape = self._tokens_of_a_frame()
        _check_array("a frame", frame, (3, self.image_size, self.image_size))
        with self._lock:
            tokens = np.asarray(self._frame_engine().embed(frame), np.float32)
        if tokens.shape != shape:
            raise BundleError(f"{self.bundle.path} made tokens of shape {tokens.shape}, not {shape}: build it again")
        return tokens

    def predict_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the rest of the model on the tokens of T frames, with a bundle that was built with `--per-frame`.

        Args:
            tokens: Tokens, float32 (1, T / N, P, C), C-contiguous, summed from what `embed` returned.

        Returns:
            Logits, float32 (1, classes), the same as those of `predict_video` on the frames.

        Raises:
            UsageError: The tokens have another shape or dtype, or the bundle takes frames.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        return self.token_outputs(tokens).logits

    def token_outputs(self, tokens: npt.NDArray[np.float32]) -> Outputs:
        """Return logits and features from tokens.

        Args:
            tokens: Tokens as for `predict_tokens`.

        Raises:
            UsageError: The tokens have another shape or dtype, or the bundle takes frames.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        count, tubelet, channels = self._tokens_of_a_frame()
        _check_array("tokens", tokens, (1, self.frames // tubelet, count, channels))
        with self._lock:
            return self._run_checked(self._frame_engine().run_tokens, tokens)

    def scores(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the scores of all labels, float32 (B, labels), with the gallery's classes. Each row adds up to 1."""
        if self.manifest.labels:
            trained = np.stack([softmax(logits) for logits in outputs.logits])
        else:
            trained = np.ones((len(outputs.logits), 1), np.float32)
        if self._matcher is None or outputs.features is None:
            return trained
        return self._matcher.combine(trained, outputs.features)

    def interpret(self, outputs: Outputs, latency: float) -> Prediction:
        """Make a prediction from the outputs for one video (B is 1). `latency` is in seconds."""
        scores, features = self.scores(outputs)[0], outputs.features
        best = int(np.argmax(scores))
        return Prediction(
            self.labels[best],
            float(scores[best]),
            scores,
            self.labels,
            latency,
            features=None if features is None else features[0],
        )

    def close(self) -> None:
        """Release the engine. Later predictions raise UsageError."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, video: npt.NDArray[np.float32]) -> Outputs:
        if self._engine is None:
            raise UsageError(_CLOSED)
        return self._run_checked(self._engine.run, video)

    def _tokens_of_a_frame(self) -> tuple[int, int, int]:
        """Return `frame_tokens`, or raise UsageError if the bundle takes frames."""
        if self.frame_tokens is None:
            raise UsageError(f"{self.bundle.path} takes frames, not tokens: build it with --per-frame")
        return self.frame_tokens

    def _frame_engine(self) -> engines.FrameEngine:
        if self._engine is None:
            raise UsageError(_CLOSED)
        return cast(engines.FrameEngine, self._engine)  # the manifest has an embedding

    def _run_checked(
        self, run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]], inputs: npt.NDArray[np.float32]
    ) -> Outputs:
        """Run a method of the engine, check the values that it returns, and split them into logits and features."""
        manifest = self.manifest
        values = np.asarray(run(inputs), np.float32)
        if values.shape != (len(inputs), manifest.outputs):
            features_too = f" and {manifest.features} features" if manifest.features else ""
            raise BundleError(
                f"{self.bundle.path} gave an output of shape {values.shape} for {len(manifest.labels)} "
                f"labels{features_too}: build it again"
            )
        if not np.isfinite(values).all():
            raise BundleError(
                f"{self.bundle.path} gave values that are not finite: build it again and check its weights"
            )
        logits, features = np.split(values, [len(manifest.labels)], axis=1)
        return Outputs(logits, features if manifest.features else None)


def _check_array(name: str, array: object, shape: tuple[int, ...]) -> None:
    """Raise UsageError unless an array is float32, has the shape and is C-contiguous."""
    fits = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.shape == shape
    if not fits or not array.flags.c_contiguous:  # type: ignore[attr-defined]
        raise UsageError(f"{name} for this bundle: float32 {shape} in one piece, not {describe_array(array)}")


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    gallery: Gallery | str | os.PathLike[str] | None = None,
    threshold: float | None = None,
) -> Recognizer:
    """Check a bundle, and load it into the engine that its manifest names.

    Args:
        path: The bundle's folder.
        threads: Number of threads that the engine uses. None takes the manifest's number, or leaves it to the engine.
        gallery: Classes to recognise beside the trained ones, or the path of their file. The bundle must have features.
        threshold: The least similarity for the gallery's classes, as for `Matcher`.

    Raises:
        BundleError: The bundle is missing, damaged, or not for this version, machine or engine.
        GalleryError: The gallery is missing, damaged, or not for this bundle.
        MissingDependencyError: A package that the engine needs is not installed.
        UsageError: There is a threshold without a gallery, or the threshold or the threads are out of range.
    """
    bundle = Bundle.open(path)
    if gallery is None and threshold is not None:
        raise UsageError("a threshold is for enrolled classes: give their gallery, too")
    if gallery is not None:
        gallery = gallery if isinstance(gallery, Gallery) else Gallery.load(gallery)
        check_fits(gallery, bundle)  # before the engine loads, which takes time
    return Recognizer(bundle, engines.create(bundle, threads), gallery, threshold)


def sample_evenly(available: int, count: int) -> list[int]:
    """Return the indices of `count` frames out of `available`: the middle frame of each of `count` equal parts.

    Indices repeat if there are fewer frames than parts.
    """
    return [(2 * index + 1) * available // (2 * count) for index in range(count)]


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return scores, float32 (classes,), from logits, float32 (classes,).

    They are computed in float64, relative to the largest logit, so that nothing overflows.
    """
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    scores: npt.NDArray[np.float32] = (exponentials / exponentials.sum()).astype(np.float32)
    return scores
