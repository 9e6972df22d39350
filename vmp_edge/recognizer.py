"""The recogniser: runs a bundle in its engine, and turns a clip into a label with scores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import numpy.typing as npt

from . import engines
from .bundle.manifest import Manifest
from .bundle.reading import Bundle
from .errors import BundleError, UsageError
from .fair_lock import FairLock
from .gallery import NONE, Gallery, check_fits
from .matcher import Matcher
from .prediction import Clip, Outputs, Prediction, sample_evenly, softmax, split
from .preprocessing import check_array, check_clip_shape, describe_array, empty_video

if TYPE_CHECKING:
    from .results import Results
    from .sources.base import Source
    from .stream.options import StreamOptions

__all__ = ["Outputs", "Prediction", "Recognizer", "load", "open_bundle", "sample_evenly", "softmax"]

_CLOSED = "this recogniser is closed: load the bundle again"


class Recognizer:
    """Recognises clips with a bundle. Several threads may call it; their calls run in the order in which they came.

    Args:
        bundle: The bundle.
        engine: The engine that executes the bundle. It is closed with the recogniser.
        gallery: Classes to recognise beside the trained ones. Later changes of the gallery have no effect.
        threshold: The least similarity for the gallery's classes, as for `Matcher`.
        threads: The number of threads that the user asked for, which variants of the bundle take, too.

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
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.threads = threads
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

    @overload
    def predict(self, clip: Clip | os.PathLike[str]) -> Prediction: ...

    @overload
    def predict(self, clip: str) -> Prediction | Any: ...  # type: ignore[overload-overlap] # a text is no list of paths

    @overload
    def predict(self, clip: Sequence[Clip | str | os.PathLike[str]]) -> list[Prediction]: ...

    def predict(
        self, clip: Clip | str | os.PathLike[str] | Sequence[Clip | str | os.PathLike[str]]
    ) -> Prediction | list[Prediction]:
        """Recognise a clip, a video file or several of them. The model's frames are sampled as by `sample_evenly`.

        Args:
            clip: Clip, uint8 (T, H, W, 3) RGB, with any T, H and W of at least 1. Or the path of a video file or of a
                folder of pictures, whose frames are spread over the whole video. Or several: a list of clips and
                paths, or a pattern such as `"clips/*.mp4"`, in which `**` stands for folders in folders.

        Returns:
            The prediction. For a list or a pattern, a list: in the order of the list, or of the sorted paths. Type
            checkers take a text for one path; for them, give the paths of a pattern as a list.

        Raises:
            UsageError: The clip has another shape or dtype, or no file is like the pattern.
            SourceError: A file does not exist, or cannot be decoded.
            BundleError: The engine failed, or returned values of a wrong shape or that are not finite.
        """
        if isinstance(clip, np.ndarray):
            return self._predict(clip)
        from . import inputs  # which decodes videos

        if inputs.is_path(clip):
            return self._predict_file(clip)
        several = inputs.several(clip)
        return [self._predict(one) if isinstance(one, np.ndarray) else self._predict_file(one) for one in several]

    def stream(
        self,
        source: Source | str | int | os.PathLike[str] | Iterable[Clip],
        options: StreamOptions | int | None = None,
        *,
        source_fps: float | None = None,
        realtime: bool = False,
        on_message: Callable[[str], None] | None = None,
        **changes: Any,
    ) -> Results:
        """Recognise a source window by window: `for prediction in recognizer.stream("clip.mp4"): ...`.

        Each window of a file is recognised, one after another. A live source goes on while a result is used, and the
        next result is of its newest window. The source is closed when the loop is left in any way. If what this returns
        gets a name, a `with` of it does the same.

        Args:
            source: What `vmp-edge run` takes: a camera's number or name, a file, a folder of pictures, a URL, a
                pipeline; see `open_source`. Or an open source, or frames: an array (T, H, W, 3), or any iterable of
                uint8 (H, W, 3), RGB. It is closed, too, if it can be.
            options: See `Stream`.
            source_fps: Frames per second of a source that has none of its own, which frames need if the bundle's
                windows are spaced by time.
            realtime: Play a file at its own pace, and drop frames that come too fast.
            on_message: Called with what the user should know, such as that a camera vanished. None writes it to
                standard error.
            changes: Fields of `StreamOptions` by name, such as `hop=8`.

        Returns:
            An iterator over predictions, with `close`.

        Raises:
            UsageError: An option is out of range, or there is a budget, but the source has no pace to keep up with.
            SourceError: The source cannot be opened. Iterating raises it, too, if the source cannot be read on.
        """
        from .live.iterating import iterate

        return iterate(self, source, options, source_fps, realtime, on_message, changes)

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
        check_array("a frame", frame, (3, self.image_size, self.image_size))
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
        check_array("tokens", tokens, (1, self.frames // tubelet, count, channels))
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

    def _predict(self, clip: Clip) -> Prediction:
        check_clip_shape(clip)
        start = time.perf_counter()
        with self._lock:
            for index, source in enumerate(sample_evenly(len(clip), self.frames)):
                self.manifest.preprocessing.frame(clip[source], self._video[0, :, index])
            outputs = self._run(self._video)
        return self.interpret(outputs, time.perf_counter() - start)

    def _predict_file(self, path: str | os.PathLike[str]) -> Prediction:
        from .inputs import read

        return replace(self._predict(read(path, self.frames)), source=os.fspath(path))

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
        return split(np.asarray(run(inputs), np.float32), len(inputs), self.bundle)


def load(
    path: str | os.PathLike[str],
    threads: int | None = None,
    gallery: Gallery | str | os.PathLike[str] | None = None,
    threshold: float | None = None,
) -> Recognizer:
    """Check a bundle, and load it into its engine. `vmp_edge.load` describes the arguments and errors."""
    return open_bundle(Bundle.open(path), threads, gallery, threshold)


def open_bundle(
    bundle: Bundle,
    threads: int | None = None,
    gallery: Gallery | str | os.PathLike[str] | None = None,
    threshold: float | None = None,
) -> Recognizer:
    """Load a bundle that was opened into its engine."""
    if gallery is None and threshold is not None:
        raise UsageError("a threshold is for enrolled classes: give their gallery, too")
    if gallery is not None:
        gallery = gallery if isinstance(gallery, Gallery) else Gallery.load(gallery)
        check_fits(gallery, bundle)  # before the engine loads, which takes time
    return Recognizer(bundle, engines.create(bundle, threads), gallery, threshold, threads)
