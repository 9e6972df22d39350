"""From a stream of frames to a stream of results: frame ring, sliding window, engine, smoothing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..preprocessing import check_frame, empty_video
from ..recognizer import Outputs, Prediction, Recognizer
from .governor import CpuMeter, Decision, Governor, Level
from .motion import MotionGate, MotionMeter
from .ring import FrameRing
from .smoothing import DEFAULT_SMOOTHING, Smoother, Smoothing
from .statistics import Statistics
from .window import Window

_RECENT = 512  # latencies and arrivals that the statistics are taken over


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
        sampling: Which frames a window takes from its span of time, as for `Window`.
        gate: Passes over windows in which nothing moves: the last result stays, marked as `skipped`. Not to be shared.
        governor: Keeps the stream within a budget: its levels' hops count instead of `hop`. Not to be shared.
        variants: Recognisers of the same labels by the names in the governor's levels; used, not owned.
        on_decision: Told what the governor decides, in the thread that recognises.

    Raises:
        UsageError: A value is out of range, both stride and fps are given, or a level's variant is missing.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        hop: int = 4,
        stride: int | None = None,
        fps: float | None = None,
        smoothing: Smoothing | None = DEFAULT_SMOOTHING,
        bgr: bool = False,
        sampling: str = "uniform",
        gate: MotionGate | None = None,
        governor: Governor | None = None,
        variants: Mapping[str, Recognizer] | None = None,
        on_decision: Callable[[Decision], None] | None = None,
    ) -> None:
        if stride is None and fps is None:
            fps = recognizer.manifest.frame_rate
            stride = 1 if fps is None else None
        self.recognizer = recognizer
        self.window = Window(recognizer.frames, stride, fps, hop, sampling)
        self.bgr = bgr
        self._meter = MotionMeter() if gate is not None or sampling == "motion" else None
        self._gate = gate
        self._governor, self._on_decision = governor, on_decision
        self._variants: dict[str | None, Recognizer] = {None: recognizer}
        self._variants.update(variants or {})
        self._cpu = CpuMeter()
        self._pace = self.window  # as asked for; the governor's levels are relative to it
        if governor is not None:
            _check_variants(governor, self._variants)
            self.recognizer = self._variants[governor.level.variant]
            self.window = self._window(governor.level)
        gathering = _gathering(self.recognizer, self.window, self._capacity(self.recognizer))
        self._ring, self._gathered, self._run = gathering
        self._smoother = Smoother(smoothing) if smoothing is not None else None
        self._lock = threading.Lock()  # over what follows
        self._epoch = 0  # counts resets: a result from before one is not shown after it
        self._windows = self._skipped = 0
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._arrivals: deque[float] = deque(maxlen=64)
        self._latest: Prediction | None = None
        self._worker: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._feeding = threading.Lock()  # held while a frame goes into the ring, and while the ring is exchanged
        self._closed = False

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
        return self.recognise() if self.add(frame, timestamp) else None

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

    def add(self, frame: npt.NDArray[np.uint8], timestamp: float | None = None) -> bool:
        """Takes a frame in for `recognise`. Never waits for the recogniser.

        With `recognise` this is `push` in two halves, for a caller that chooses when each stream has its turn: frames
        may come from one thread and be recognised in another.

        Args:
            frame: As for `push`.
            timestamp: As for `push`.

        Returns:
            Whether a window is due.

        Raises:
            UsageError: As for `push`.
        """
        if self._worker is not None:
            raise UsageError("this stream was started: feed it, or make another one to push to")
        self._take(frame, timestamp)
        return self._ring.due()

    def recognise(self) -> Prediction | None:
        """Recognises the newest window if one is due; for one thread at a time.

        Returns:
            The result; None if no window was due, or the stream was reset in the meantime.

        Raises:
            UsageError: The stream was started.
            BundleError: The engine failed.
        """
        if self._worker is not None:
            raise UsageError("this stream was started: it recognises by itself")
        return self._recognise() if self._ring.due() else None

    def check(self) -> None:
        """Raises what recognising failed with in the stream's own thread, if it did."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Recognises the window that is due, if any, and ends the stream's own thread. Stop feeding first.

        Raises:
            VmpError: Recognising failed; what it failed with.
        """
        with self._feeding:
            self._closed = True
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
        with self._feeding:
            self._ring.clear()
            if self._meter is not None:
                self._meter.reset()

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
            windows, skipped = self._windows, self._skipped
        elapsed = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
        rate = (len(arrivals) - 1) / elapsed if elapsed > 0 else 0.0
        p50, p95 = (float(value) for value in np.percentile(latencies, (50, 95)))
        level = self._governor.number if self._governor is not None else 0
        return Statistics(self._ring.pushed, self._ring.dropped, windows, rate, p50, p95, skipped, level)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, frame: npt.NDArray[np.uint8], timestamp: float | None) -> None:
        timestamp = time.monotonic() if timestamp is None else timestamp
        with self._feeding:
            change = 0.0
            if self._meter is not None:
                check_frame(frame)
                change = self._meter.measure(frame, timestamp)
            self._ring.push(frame, timestamp, self.bgr, change)
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
        if self._gate is not None and (held := self._skip(self._gate, epoch, start)) is not None:
            self._govern(None)
            return held
        window = self._ring.read(self._gathered)
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
        """The last result again if nothing moves in the newest window; None if that is to be recognised."""
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
        """Tells the governor what a window took and, from time to time, what the process takes; does what it says."""
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
        """Goes on as a level says; another variant that takes other frames fills a ring of its own first."""
        recognizer, previous = self._variants[level.variant], self.recognizer
        self.recognizer, self.window = recognizer, self._window(level)
        ring, gathered, run = _gathering(recognizer, self.window, self._capacity(recognizer))
        taken, before = recognizer.manifest, previous.manifest
        whole = recognizer.frame_tokens is None and previous.frame_tokens is None  # tokens are each model's own
        if whole and (taken.frames, taken.preprocessing) == (before.frames, before.preprocessing):
            self._gathered, self._run = gathered, run
            self._ring.change(self.window)
            return
        with self._feeding:
            self._ring, self._gathered, self._run = self._ring.successor(ring), gathered, run
            if self._closed:
                self._ring.close()

    def _window(self, level: Level) -> Window:
        frames = self._variants[level.variant].frames  # a variant's fewer ones span the same time
        apart = level.slower * self._pace.frames / frames
        return replace(self._pace, frames=frames, hop=level.hop).slower(apart)

    def _capacity(self, recognizer: Recognizer) -> int:
        """How many frames the windows of all levels with this recogniser's frames need."""
        levels = self._governor.levels if self._governor is not None else ()
        windows = [self._window(level) for level in levels]
        return max((window.capacity for window in windows if window.frames == recognizer.frames), default=0)

    def _steady(self, prediction: Prediction, timestamp: float) -> Prediction:
        if self._smoother is None:
            return replace(prediction, timestamp=timestamp)
        shown, scores = self._smoother.update(prediction.scores, timestamp)
        label = prediction.labels[shown]
        return replace(prediction, label=label, score=float(scores[shown]), scores=scores, timestamp=timestamp)


def _check_variants(governor: Governor, recognizers: Mapping[str | None, Recognizer]) -> None:
    for level in governor.levels:
        if level.variant not in recognizers:
            raise UsageError(f"the governor's levels want the variant {level.variant!r}, which was not given")
    if len({recognizer.labels for recognizer in recognizers.values()}) > 1:
        raise UsageError("the variants recognise other labels: build them of one model")


def _gathering(
    recognizer: Recognizer, window: Window, capacity: int
) -> tuple[FrameRing, npt.NDArray[np.float32], Callable[[], Outputs]]:
    """A ring, the memory that its windows are gathered in, and what recognises what is there.

    Where the bundle embeds frames by themselves, the ring keeps their tokens, else prepared frames.
    """
    preprocessing = recognizer.manifest.preprocessing
    if recognizer.frame_tokens is None:
        video = empty_video(recognizer.frames, recognizer.image_size)
        return FrameRing(preprocessing, window, capacity), video[0], lambda: recognizer.outputs(video)
    count, tubelet, channels = recognizer.frame_tokens
    tokens = np.empty((1, recognizer.frames // tubelet, count, channels), np.float32)
    ring = FrameRing(preprocessing, window, capacity, recognizer.embed, recognizer.frame_tokens)
    return ring, tokens[0].swapaxes(0, 1), lambda: recognizer.token_outputs(tokens)
