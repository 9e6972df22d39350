"""From a stream of frames to a stream of results: frame ring, sliding window, engine, smoothing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import empty_video
from vmp_edge.recognizer import Prediction, Recognizer, softmax
from vmp_edge.ring import FrameRing, Window
from vmp_edge.smoothing import DEFAULT_SMOOTHING, Smoother, Smoothing

_RECENT = 512  # latencies and arrivals that the statistics are taken over


@dataclass(frozen=True)
class Statistics:
    """How a stream is doing.

    Args:
        frames: How many frames came in.
        dropped: How many of them no window ever reached over, because the recogniser was too slow.
        windows: How many windows were recognised.
        frames_per_second: At which frames come in, over the last ones; 0 before the second.
        latency_p50: Median seconds from picking a window to its result, over the last ones; 0 before the first.
        latency_p95: The 95th percentile of the same.
    """

    frames: int
    dropped: int
    windows: int
    frames_per_second: float
    latency_p50: float
    latency_p95: float

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, for JSON."""
        return asdict(self)


class Stream:
    """Recognises what a camera sees, window by window.

    Either call `push` and get results from it, or `start` it and `feed` it from a capture thread: then a thread of
    its own recognises the newest window, and frames that it cannot keep up with are dropped, never waited for.

    Args:
        recognizer: Used, not owned: close it yourself.
        hop: How many frames come in between one window and the next.
        stride: A window takes every stride-th frame; or
        fps: so many frames per second by their timestamps, whatever the camera's own rate. With neither, the frame
            rate in the bundle's manifest, or every frame if it has none.
        smoothing: How results are steadied; None shows each window's as it is.
        bgr: Frames have OpenCV's channel order; by default they are RGB, as clips are.

    Raises:
        UsageError: A value is out of range, or both stride and fps are given.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        hop: int = 4,
        stride: int | None = None,
        fps: float | None = None,
        smoothing: Smoothing | None = DEFAULT_SMOOTHING,
        bgr: bool = False,
    ) -> None:
        if stride is None and fps is None:
            fps = recognizer.manifest.frame_rate
            stride = 1 if fps is None else None
        self.recognizer = recognizer
        self.window = Window(recognizer.frames, stride, fps, hop)
        self.bgr = bgr
        self._ring, self._gathered, self._run = _gathering(recognizer, self.window)
        self._smoother = Smoother(smoothing) if smoothing is not None else None
        self._lock = threading.Lock()  # over what follows
        self._epoch = 0  # counts resets: a result from before one is not shown after it
        self._windows = 0
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._arrivals: deque[float] = deque(maxlen=64)
        self._latest: Prediction | None = None
        self._worker: threading.Thread | None = None
        self._failure: BaseException | None = None

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> Prediction | None:
        """Takes a frame in and recognises a window if one is due.

        Args:
            frame: uint8 (H, W, 3), RGB unless the stream was made with `bgr`; any size; not kept.
            timestamp: Seconds, on any clock that does not run backwards; None takes the machine's monotonic clock.

        Returns:
            The result if this frame completed a window that was due, else None.

        Raises:
            UsageError: The frame has another shape or dtype, time runs backwards, or the stream was started.
            BundleError: The engine failed.
        """
        if self._worker is not None:
            raise UsageError("this stream was started: feed it, or make another one to push to")
        self._take(frame, timestamp)
        return self._recognise() if self._ring.due() else None

    def start(self, on_prediction: Callable[[Prediction], None] | None = None) -> Stream:
        """Starts recognising in a thread of its own; `feed` the frames then.

        Args:
            on_prediction: Called with each result, in that thread; `latest` has the newest one anyway.

        Raises:
            UsageError: It was started already.
        """
        if self._worker is not None:
            raise UsageError("this stream was started already")
        self._worker = threading.Thread(target=self._work, args=(on_prediction,), name="vmp-edge stream", daemon=True)
        self._worker.start()
        return self

    def feed(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> None:
        """Takes a frame in, for the stream's own thread to recognise. Never waits for the recogniser.

        Args:
            frame: As for `push`.
            timestamp: As for `push`.

        Raises:
            UsageError: As for `push`, or the stream was not started.
            VmpError: Recognising failed in the meantime; what it failed with.
        """
        self.check()
        if self._worker is None:
            raise UsageError("this stream was not started: start it, or push to it")
        self._take(frame, timestamp)

    def check(self) -> None:
        """Raises what recognising failed with in the stream's own thread, if it did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Recognises the window that is due, if any, and ends the stream's own thread. Stop feeding first.

        Raises:
            VmpError: Recognising failed; what it failed with.
        """
        self._ring.close()
        if self._worker is not None:
            self._worker.join()
        self.check()

    def reset(self) -> None:
        """Forgets the frames and the smoothed scores: for a source that starts again. The statistics go on."""
        with self._lock:
            self._epoch += 1
            self._latest = None
            self._arrivals.clear()
            if self._smoother is not None:
                self._smoother.reset()
        self._ring.clear()

    @property
    def latest(self) -> Prediction | None:
        """The newest result since the last reset."""
        return self._latest

    @property
    def memory(self) -> int:
        """Bytes that the frame ring takes, allocated once."""
        return self._ring.nbytes

    def statistics(self) -> Statistics:
        """How the stream is doing; may be called from any thread."""
        with self._lock:
            arrivals, latencies = list(self._arrivals), np.array(self._latencies or [0.0])
            windows = self._windows
        elapsed = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
        rate = (len(arrivals) - 1) / elapsed if elapsed > 0 else 0.0
        p50, p95 = (float(value) for value in np.percentile(latencies, (50, 95)))
        return Statistics(self._ring.pushed, self._ring.dropped, windows, rate, p50, p95)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, frame: npt.NDArray[np.uint8], timestamp: float | None) -> None:
        self._ring.push(frame, time.monotonic() if timestamp is None else timestamp, self.bgr)
        with self._lock:
            self._arrivals.append(time.monotonic())

    def _work(self, on_prediction: Callable[[Prediction], None] | None) -> None:
        try:
            while self._ring.wait():
                prediction = self._recognise()
                if prediction is not None and on_prediction is not None:
                    on_prediction(prediction)
        except BaseException as error:  # it is the feeding thread's to raise
            self._failure = error

    def _recognise(self) -> Prediction | None:
        start = time.perf_counter()
        with self._lock:
            epoch = self._epoch
        window = self._ring.read(self._gathered)
        if window is None:
            return None
        scores = softmax(self._run()[0])
        with self._lock:
            if epoch != self._epoch:
                return None
            prediction = self._steady(scores, window.timestamps[-1], time.perf_counter() - start)
            prediction = replace(prediction, frame=window.sequences[-1], dropped=self._ring.dropped)
            self._windows += 1
            self._latencies.append(prediction.latency)
            self._latest = prediction
        return prediction

    def _steady(self, scores: npt.NDArray[np.float32], timestamp: float, latency: float) -> Prediction:
        if self._smoother is None:
            return replace(self.recognizer.interpret(scores, latency), timestamp=timestamp)
        shown, scores = self._smoother.update(scores, timestamp)
        labels = self.recognizer.labels
        return Prediction(labels[shown], float(scores[shown]), scores, labels, latency, timestamp)


def _gathering(
    recognizer: Recognizer, window: Window
) -> tuple[FrameRing, npt.NDArray[np.float32], Callable[[], npt.NDArray[np.float32]]]:
    """A ring, the memory that its windows are gathered in, and what gives the logits (1, classes) of what is there.

    Where the bundle embeds frames by themselves, the ring keeps their tokens, else prepared frames.
    """
    preprocessing = recognizer.manifest.preprocessing
    if recognizer.frame_tokens is None:
        video = empty_video(recognizer.frames, recognizer.image_size)
        return FrameRing(preprocessing, window), video[0], lambda: recognizer.predict_video(video)
    count, tubelet, channels = recognizer.frame_tokens
    tokens = np.empty((1, recognizer.frames // tubelet, count, channels), np.float32)
    ring = FrameRing(preprocessing, window, recognizer.embed, recognizer.frame_tokens)
    return ring, tokens[0].swapaxes(0, 1), lambda: recognizer.predict_tokens(tokens)
