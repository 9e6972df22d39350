"""`Stream`: from a stream of frames to a stream of results."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..preprocessing import check_frame
from ..recognizer import Prediction, Recognizer
from .buffers import make_input, make_ring, ring_serves_both
from .cpu_meter import CpuMeter
from .governor import Decision, Governor, Level
from .levels import Levels
from .motion import MotionGate, MotionMeter
from .options import StreamOptions
from .ring import check_timestamp
from .smoothing import Smoother
from .statistics import Statistics

_RECENT = 512  # latencies that the statistics are taken over
_RECENT_ARRIVALS = 64


class Stream:
    """Recognises what a camera sees, window by window.

    There are two ways to use it. Either call `push`, which returns the results. Or `start` the stream and `feed` it
    from a capture thread: then the stream's own thread recognises the newest window. The capture thread never waits for
    it, and frames that the stream's thread cannot keep up with are dropped.

    Args:
        recognizer: Recognises the windows. The caller closes it.
        options: How windows are chosen and results steadied: `StreamOptions`, or the hop alone. None takes the
            defaults.
        bgr: True if frames have OpenCV's channel order. By default they are RGB, as clips are.
        source_fps: Frames per second of frames that come without timestamps, such as those of a file. None takes the
            clock for them if windows are spaced by a stride, and refuses them if windows are spaced by time.
        gate: A motion gate in place of the one that the options make. It passes over windows in which nothing moves:
            the last result stays, marked as `skipped`. Each stream needs a gate of its own.
        governor: A governor in place of the one that the options make. It keeps the stream within a budget, and the
            hops of its levels count instead of `hop`. Each stream needs a governor of its own.
        variants: Recognisers of the same labels, by the names in the governor's levels. The caller closes them.
        on_decision: Called with each decision of the governor, in the thread that recognises.
        changes: Fields of `StreamOptions` by name, which override those of `options`.

    Raises:
        UsageError: A value is out of range, both `stride` and `fps` are given, or a level's variant is missing.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        options: StreamOptions | int | None = None,
        *,
        bgr: bool = False,
        source_fps: float | None = None,
        gate: MotionGate | None = None,
        governor: Governor | None = None,
        variants: Mapping[str, Recognizer] | None = None,
        on_decision: Callable[[Decision], None] | None = None,
        **changes: Any,
    ) -> None:
        options = StreamOptions.merge(options, changes)
        variants = variants or {}
        self.options = options
        self.bgr = bgr
        if source_fps is not None and not (math.isfinite(source_fps) and source_fps > 0):
            raise UsageError(f"the source's frames per second must be positive, not {source_fps}")
        self._source_fps = source_fps
        self._untimed = 0  # number of frames without timestamps since the last reset
        self.recognizer = recognizer
        self.window = options.window(recognizer.frames, recognizer.manifest.frame_rate, recognizer.manifest.span)
        self._gate = gate or options.make_gate()
        self._governor = governor or options.make_governor(variants)
        self._on_decision = on_decision
        self._meter = MotionMeter() if self._gate is not None or options.sampling == "motion" else None
        self._cpu = CpuMeter()
        self._levels = Levels(self._governor.levels if self._governor else (), recognizer, variants, self.window)
        if self._governor is not None:
            self.recognizer = self._levels.recognizer(self._governor.level)
            self.window = self._levels.window(self._governor.level)
        self._ring = make_ring(self.recognizer, self.window, self._levels.capacity(self.recognizer))
        self._input, self._run = make_input(self.recognizer)
        self._smoother = Smoother(options.smoothing) if options.smoothing is not None else None
        self._lock = threading.Lock()  # guards the attributes from here to `_latest`
        self._epoch = 0  # number of resets: a result from before a reset is not shown after it
        self._windows = self._skipped = 0
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._arrivals: deque[float] = deque(maxlen=_RECENT_ARRIVALS)
        self._latest: Prediction | None = None
        self._worker: threading.Thread | None = None
        self._delivering = threading.Lock()  # held while the stream's own thread calls `on_prediction`
        self._failure: BaseException | None = None
        self._feeding = threading.Lock()  # held while a frame goes into the ring, and while the ring is exchanged
        self._closed = False

    def push(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> Prediction | None:
        """Take a frame, and recognise a window if one is due.

        Args:
            frame: uint8 (H, W, 3) of any size, RGB unless the stream was made with `bgr`. It is not kept.
            timestamp: Seconds, on any clock that does not run backwards: for a camera, `time.monotonic()` will do. None
                counts the frames by the stream's `source_fps`. Without that, it takes the machine's monotonic clock if
                windows are spaced by a stride. By time, such a frame is refused: the frames of a file come faster
                than they were filmed, and the windows would be wrong.

        Returns:
            The result if this frame completed a window that was due, else None.

        Raises:
            UsageError: The frame has another shape or dtype or lacks a timestamp, time runs backwards, or the stream
                was started.
            BundleError: The engine failed.
        """
        return self.recognise() if self.add(frame, timestamp) else None

    def start(self, on_prediction: Callable[[Prediction], None] | None = None) -> Stream:
        """Start recognising in the stream's own thread. Give it frames by `feed` from now on.

        Args:
            on_prediction: Called with each result, in that thread. `latest` has the newest result in any case.

        Raises:
            UsageError: The stream was started already.
        """
        if self._worker is not None:
            raise UsageError("this stream was started already")
        self._worker = threading.Thread(target=self._work, args=(on_prediction,), name="vmp-edge stream", daemon=True)
        self._worker.start()
        return self

    def feed(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> None:
        """Take a frame for the stream's own thread to recognise. Never waits for the recogniser.

        Args:
            frame: See `push`.
            timestamp: See `push`.

        Raises:
            UsageError: As for `push`, or the stream was not started.
            VmpError: Recognising failed since the last call; the error that it failed with.
        """
        self.check()
        if self._worker is None:
            raise UsageError("this stream was not started: start it, or push to it")
        self._take(frame, timestamp)

    def add(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> bool:
        """Take a frame for `recognise`. Never waits for the recogniser.

        `add` and `recognise` are the two halves of `push`, for a caller that chooses when each stream has its turn:
        frames may come from one thread and be recognised in another.

        Args:
            frame: See `push`.
            timestamp: See `push`.

        Returns:
            True if a window is due.

        Raises:
            UsageError: See `push`.
        """
        if self._worker is not None:
            raise UsageError("this stream was started: feed it, or make another one to push to")
        self._take(frame, timestamp)
        return self._ring.due()

    def recognise(self) -> Prediction | None:
        """Recognise the newest window if one is due. Call it from one thread at a time.

        Returns:
            The result, or None if no window was due or the stream was reset in the meantime.

        Raises:
            UsageError: The stream was started.
            BundleError: The engine failed.
        """
        if self._worker is not None:
            raise UsageError("this stream was started: it recognises by itself")
        return self._recognise() if self._ring.due() else None

    def check(self) -> None:
        """Raise the error that the stream's own thread failed with, if it failed."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Recognise the window that is due, if any, and end the stream's own thread. Stop feeding first.

        Raises:
            VmpError: Recognising failed; the error that it failed with.
        """
        with self._feeding:
            self._closed = True
            self._ring.close()
        if self._worker is not None:
            self._worker.join()
        self.check()

    def reset(self) -> None:
        """Forget the frames and the smoothed scores, for a source that starts again. The statistics count on.

        No result of earlier frames is given any more after this. If the stream's own thread is calling `on_prediction`,
        this method waits until that returns, unless it is called from there.
        """
        with self._feeding:
            self._untimed = 0
            self._ring.clear()  # before the epoch changes, so that no window of the new epoch has an old frame
            if self._meter is not None:
                self._meter.reset()
        with self._lock:
            self._epoch += 1
            self._latest = None
            self._arrivals.clear()
            if self._smoother is not None:
                self._smoother.reset()
        if self._worker is not threading.current_thread():
            with self._delivering:
                pass

    @property
    def latest(self) -> Prediction | None:
        """The newest result since the last reset."""
        return self._latest

    @property
    def filled(self) -> float:
        """How much of the first window is there, from 0 to 1. Before 1 there can be no result, and after a reset again.

        A window of ten seconds needs nearly as long.
        """
        return self._ring.filled

    @property
    def memory(self) -> int:
        """Bytes that the frame ring takes, allocated once.

        That is room for `window.capacity` frames that are kept, for the T of a window that is being gathered, and for
        one that is being prepared: 2 T + 3 frames where the bundle states a span, however long it is.
        """
        return self._ring.nbytes

    def statistics(self) -> Statistics:
        """Return how the stream is doing. May be called from any thread."""
        with self._lock:
            arrivals, latencies = list(self._arrivals), np.array(self._latencies or [0.0])
            windows, skipped = self._windows, self._skipped
        elapsed = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
        rate = (len(arrivals) - 1) / elapsed if elapsed > 0 else 0.0
        p50, p95 = (float(value) for value in np.percentile(latencies, (50, 95)))
        level = self._governor.number if self._governor is not None else 0
        return Statistics(self._ring.pushed, self._ring.dropped, windows, rate, p50, p95, skipped, level, self.filled)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, frame: npt.NDArray[np.uint8], timestamp: float | None) -> None:
        with self._feeding:
            if timestamp is None:
                timestamp = self._time_of_next()
            check_timestamp(timestamp)
            change = 0.0
            if self._meter is not None:
                check_frame(frame)
                change = self._meter.measure(frame, timestamp)
            self._ring.push(frame, timestamp, self.bgr, change)
        with self._lock:
            self._arrivals.append(time.monotonic())

    def _time_of_next(self) -> float:
        """Return the seconds of a frame that came without a timestamp.

        Raises:
            UsageError: The windows are spaced by time, and nobody said how many frames there are per second.
        """
        if self._source_fps is not None:
            self._untimed += 1
            return (self._untimed - 1) / self._source_fps
        if self.window.fps is None:
            return time.monotonic()
        raise UsageError(
            f"a frame came without a timestamp, but windows take {self.window.fps:g} frames per second by timestamps: "
            "make the stream with source_fps=30 if there are 30 frames per second, or push(frame, timestamp) with the "
            "seconds of each frame, time.monotonic() for a camera"
        )

    def _work(self, on_prediction: Callable[[Prediction], None] | None) -> None:
        try:
            while self._ring.wait():
                prediction = self._recognise()
                with self._delivering:
                    # A reset since then has removed `_latest`.
                    if prediction is not None and on_prediction is not None and prediction is self._latest:
                        on_prediction(prediction)
        except BaseException as error:  # `check` raises it in the feeding thread
            self._failure = error

    def _recognise(self) -> Prediction | None:
        start = time.perf_counter()
        with self._lock:
            epoch = self._epoch
        if self._gate is not None and (repeated := self._skip(self._gate, epoch, start)) is not None:
            self._govern(None)
            return repeated
        with self.recognizer.turn():  # the window is read when its turn has come: newer frames may have come in
            window = self._ring.read(self._input)
            if window is None:
                return None
            outputs = self._run()
        with self._lock:
            if epoch != self._epoch:
                return None
            prediction = self.recognizer.interpret(outputs, time.perf_counter() - start)
            prediction = self._steady(prediction, window.timestamps[-1])
            prediction = replace(prediction, frame=window.sequences[-1], dropped=self._ring.dropped)
            self._windows += 1
            self._latencies.append(prediction.latency)
            self._latest = prediction
        self._govern(prediction.latency)
        return prediction

    def _skip(self, gate: MotionGate, epoch: int, start: float) -> Prediction | None:
        """Repeat the last result if nothing moves in the newest window. None if the window is to be recognised."""
        if self._latest is None:
            gate.reset()
            return None
        window = self._ring.skip(gate.skips)
        if window is None:
            return None
        with self._lock:
            if epoch != self._epoch or self._latest is None:
                return None
            self._skipped += 1
            self._latest = replace(
                self._latest,
                latency=time.perf_counter() - start,
                timestamp=window.timestamps[-1],
                frame=window.sequences[-1],
                dropped=self._ring.dropped,
                skipped=True,
            )
            return self._latest

    def _govern(self, latency: float | None) -> None:
        """Give the governor the measurements, and carry out its decision.

        Args:
            latency: Seconds that the window took, or None if it was skipped.
        """
        if self._governor is None:
            return
        decision = self._governor.update(time.monotonic(), latency, self._cpu.sample())
        if decision is None:
            return
        if decision.before != decision.after:
            self._change(decision.level)
        if self._on_decision is not None:
            self._on_decision(decision)

    def _change(self, level: Level) -> None:
        """Go on at another level. A variant that takes other frames gets a new ring, which fills up first."""
        previous, recognizer = self.recognizer, self._levels.recognizer(level)
        self.recognizer, self.window = recognizer, self._levels.window(level)
        self._input, self._run = make_input(recognizer)
        if ring_serves_both(previous, recognizer):
            self._ring.change(self.window)
            return
        ring = make_ring(recognizer, self.window, self._levels.capacity(recognizer))
        with self._feeding:
            self._ring = self._ring.successor(ring)
            if self._closed:
                self._ring.close()

    def _steady(self, prediction: Prediction, timestamp: float) -> Prediction:
        if self._smoother is None:
            return replace(prediction, timestamp=timestamp)
        index, scores = self._smoother.update(prediction.scores, timestamp)
        label = prediction.labels[index]
        return replace(prediction, label=label, score=float(scores[index]), scores=scores, timestamp=timestamp)
