"""The recogniser: a bundle in its engine, from clip to label."""

from __future__ import annotations

import os
import threading
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
from .gallery import Gallery, Matcher, check_fits
from .preprocessing import check_clip_shape, empty_video

_CLOSED = "this recogniser is closed: load the bundle again"


@dataclass(frozen=True, eq=False)  # arrays don't compare to one truth
class Prediction:
    """What was recognised.

    Args:
        label: The label that is shown: the one with the highest score, or, from a stream, the one that holds.
        score: That label's score, 0 to 1.
        scores: float32 (classes,), softmax; from a stream, smoothed.
        labels: The labels, in the order of the scores.
        latency: Seconds from asking to knowing: preparing or gathering the window, and the engine.
        timestamp: From a stream, the window's newest frame's timestamp in seconds.
        frame: From a stream, which frame that is, counted from 0.
        dropped: From a stream, how many frames have been dropped so far.
        features: Of the window, float32 (C,): what the head takes, for a `Gallery`; None if the bundle gives none.
        skipped: From a stream with a motion gate: nothing moved, and this is the last result again, with the time and
            frame of a window that was not recognised.
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
        """The k labels with the highest scores, and the scores, highest first."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.labels[index], float(self.scores[index])) for index in order]


class Outputs(NamedTuple):
    """What a model gives for videos: logits, float32 (B, classes), and features, float32 (B, C), or None."""

    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32] | None


class Recognizer:
    """Recognises clips with a bundle. May be called from several threads; the calls run one after another.

    Args:
        bundle: The bundle.
        engine: Executes it; closed with the recogniser.
        gallery: Classes to recognise beside the trained ones, as they are now.
        threshold: As for `Matcher`.

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
        self._lock = threading.Lock()
        self._video = empty_video(self.frames, self.image_size)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def labels(self) -> tuple[str, ...]:
        """One name per class, in the order of the scores: the trained ones, then those of the gallery."""
        return self.manifest.labels + (self._matcher.names if self._matcher is not None else ())

    @property
    def frames(self) -> int:
        """T, how many frames the model takes."""
        return self.manifest.frames

    @property
    def image_size(self) -> int:
        """S, the side of the square that the model takes, in pixels."""
        return self.manifest.image_size

    def predict(self, clip: npt.NDArray[np.uint8]) -> Prediction:
        """Recognises one clip.

        Args:
            clip: uint8 (T, H, W, 3) RGB, any T, H and W of at least 1: the model's frames are sampled evenly from
                the clip's (the middle of each of as many equal parts; a frame repeats if there are too few).

        Raises:
            UsageError: The clip has another shape or dtype.
            BundleError: The engine failed or gave values that make no sense.
        """
        check_clip_shape(clip)
        start = time.perf_counter()
        with self._lock:
            for index, source in enumerate(sample_evenly(len(clip), self.frames)):
                self.manifest.preprocessing.frame(clip[source], self._video[0, :, index])
            outputs = self._run(self._video)
        return self.interpret(outputs, time.perf_counter() - start)

    def predict_video(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the engine on what is prepared already.

        Args:
            video: float32 (B, 3, T, S, S), normalised; any strides.

        Returns:
            Logits of the trained classes, float32 (B, classes).

        Raises:
            UsageError: The video has another shape or dtype.
            BundleError: The engine failed or gave values that make no sense.
        """
        return self.outputs(video).logits

    def features(self, video: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What the head takes of videos as for `predict_video`: the class token after the final norm.

        Returns:
            float32 (B, C).

        Raises:
            UsageError: As for `predict_video`, or the bundle gives no features.
            BundleError: As for `predict_video`.
        """
        features = self.outputs(video).features
        if features is None:
            raise UsageError(f"{self.bundle.path} gives no features: build it with --features")
        return features

    def outputs(self, video: npt.NDArray[np.float32]) -> Outputs:
        """Logits and features of videos as for `predict_video`, in one run of the engine.

        Raises:
            UsageError, BundleError: As for `predict_video`.
        """
        expected = (3, self.frames, self.image_size, self.image_size)
        if not isinstance(video, np.ndarray) or video.dtype != np.float32 or video.shape[1:] != expected:
            raise UsageError(f"a video for this bundle is float32 (batch, {str(expected)[1:]}, not {_describe(video)}")
        with self._lock:
            return self._run(video)

    @property
    def frame_tokens(self) -> tuple[int, int, int] | None:
        """(P, N, C), what `embed` gives, of a bundle that was built `--per-frame`; None of others."""
        if self.manifest.embedding is None:
            return None
        tokens, channels = self.manifest.frame_tokens
        return tokens, int(self.manifest.model["tubelet_size"]), channels

    def embed(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Embeds one frame, for `predict_tokens`, with a bundle that was built `--per-frame`.

        Args:
            frame: float32 (3, S, S), normalised, C-contiguous.

        Returns:
            Its shares of the tokens at each place in a tubelet of N frames, float32 (P, N, C): the same in whichever
            window it is. The tokens of N frames are the first one's first share plus the second one's second, ...

        Raises:
            UsageError: The frame has another shape or dtype, or the bundle takes frames.
            BundleError: The engine failed or gave another shape.
        """
        shape = self._tokens_of_a_frame()
        _check("a frame", frame, (3, self.image_size, self.image_size))
        with self._lock:
            tokens = np.asarray(self._open_frames().embed(frame), np.float32)
        if tokens.shape != shape:
            raise BundleError(f"{self.bundle.path} made tokens of shape {tokens.shape}, not {shape}: build it again")
        return tokens

    def predict_tokens(self, tokens: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the rest of the model on the tokens of T frames, with a bundle that was built `--per-frame`.

        Args:
            tokens: float32 (1, T / N, P, C), made of what `embed` gave, C-contiguous.

        Returns:
            Logits, float32 (1, classes): those of `predict_video` on the frames.

        Raises:
            UsageError: The tokens have another shape or dtype, or the bundle takes frames.
            BundleError: The engine failed or gave values that make no sense.
        """
        return self.token_outputs(tokens).logits

    def token_outputs(self, tokens: npt.NDArray[np.float32]) -> Outputs:
        """Logits and features of tokens as for `predict_tokens`.

        Raises:
            UsageError, BundleError: As for `predict_tokens`.
        """
        count, tubelet, channels = self._tokens_of_a_frame()
        _check("tokens", tokens, (1, self.frames // tubelet, count, channels))
        with self._lock:
            return self._checked(self._open_frames().run_tokens, tokens)

    def scores(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Scores of all labels, float32 (B, labels), each row adding up to 1: softmax, and what the gallery says."""
        trained = np.stack([softmax(logits) for logits in outputs.logits])
        if self._matcher is None or outputs.features is None:
            return trained
        return self._matcher.combine(trained, outputs.features)

    def interpret(self, outputs: Outputs, latency: float) -> Prediction:
        """What the outputs for one video (B is 1) say."""
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
        """Releases the engine; later predictions raise UsageError."""
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
        return self._checked(self._engine.run, video)

    def _tokens_of_a_frame(self) -> tuple[int, int, int]:
        if self.frame_tokens is None:
            raise UsageError(f"{self.bundle.path} takes frames, not tokens: build it with --per-frame")
        return self.frame_tokens

    def _open_frames(self) -> engines.FrameEngine:
        if self._engine is None:
            raise UsageError(_CLOSED)
        return cast(engines.FrameEngine, self._engine)  # the manifest says so

    def _checked(
        self, run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]], inputs: npt.NDArray[np.float32]
    ) -> Outputs:
        manifest = self.manifest
        given = np.asarray(run(inputs), np.float32)
        if given.shape != (len(inputs), manifest.outputs):
            others = f" and {manifest.features} features" if manifest.features else ""
            raise BundleError(
                f"{self.bundle.path} gave an output of shape {given.shape} for {len(manifest.labels)} "
                f"labels{others}: build it again"
            )
        if not np.isfinite(given).all():
            raise BundleError(
                f"{self.bundle.path} gave values that are not finite: build it again and check its weights"
            )
        logits, features = np.split(given, [len(manifest.labels)], axis=1)
        return Outputs(logits, features if manifest.features else None)


def _check(what: str, array: object, shape: tuple[int, ...]) -> None:
    good = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.shape == shape
    if not good or not array.flags.c_contiguous:  # type: ignore[attr-defined]
        raise UsageError(f"{what} for this bundle: float32 {shape} in one piece, not {_describe(array)}")


def _describe(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    gallery: Gallery | str | os.PathLike[str] | None = None,
    threshold: float | None = None,
) -> Recognizer:
    """Checks a bundle and loads it into the engine that its manifest names.

    Args:
        path: The bundle's folder.
        threads: How many threads the engine uses; None takes the manifest's, or leaves it to the engine.
        gallery: Classes to recognise beside the trained ones, or their file; the bundle must give features.
        threshold: As for `Matcher`.

    Raises:
        BundleError: The bundle is missing, damaged, or not for this version, machine or engine.
        GalleryError: The gallery is missing, damaged, or not for this bundle.
        MissingDependencyError: What the engine needs is not installed.
    """
    bundle = Bundle.open(path)
    if gallery is None and threshold is not None:
        raise UsageError("a threshold is for enrolled classes: give their gallery, too")
    if gallery is not None:
        gallery = gallery if isinstance(gallery, Gallery) else Gallery.load(gallery)
        check_fits(gallery, bundle)  # before an engine takes its time
    return Recognizer(bundle, engines.create(bundle, threads), gallery, threshold)


def sample_evenly(available: int, wanted: int) -> list[int]:
    """Indices of `wanted` frames out of `available`: the middle of each of `wanted` equal parts."""
    return [(2 * index + 1) * available // (2 * wanted) for index in range(wanted)]


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores (classes,) from logits (classes,), float32; computed in float64 about the maximum, so never overflows."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    scores: npt.NDArray[np.float32] = (exponentials / exponentials.sum()).astype(np.float32)
    return scores
