"""Recognising a source to its end, with a window, a recording and printed results: what `vmp-edge run` does.

A file is recognised frame by frame, every window of it; a live source, or a file at its own pace, by a capture thread
and the stream's own thread, which drop what they cannot keep up with.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import MissingDependencyError, UsageError
from .events.clips import ClipOptions
from .events.detector import Event, EventRule
from .events.watch import Watch
from .recognizer import Prediction, Recognizer, load
from .sources import USUAL_FPS, Frame, Paced, Source, open_source
from .stream.governor import Budget, Decision, Governor, ladder, worthwhile
from .stream.motion import MotionGate
from .stream.smoothing import DEFAULT_SMOOTHING, Smoothing
from .stream.stream import Stream
from .view import overlay
from .view.display import Display, DisplayError
from .view.recording import Recorder

_TICK = 0.05  # seconds within which a key press or Ctrl-C is noticed while no frames come
_SILENCE = 5.0  # seconds without a frame after which what goes on counts as ended


@dataclass(frozen=True)
class Options:
    """What to recognise and what to do with it.

    Args:
        bundle: The bundle's folder.
        source: As for `open_source`.
        headless: Open no window.
        record: Write the picture with its overlay to this video file.
        hop: Frames from one window to the next.
        stride: As for `Stream`.
        fps: As for `Stream`.
        smoothing: As for `Stream`.
        threads: For the engine.
        duration: Stop after so many seconds of the source.
        max_frames: Stop after so many frames.
        realtime: Play a file at its own pace; None does so when there is a window.
        top: How many bars the overlay has.
        source_fps: The frame rate of a source that has none of its own: a folder of pictures, the standard input.
        events: When an action has started and ended; None looks for no events.
        sinks: Where events go, each as for `open_sink`.
        clips: Which clips of events to record; None records none.
        gallery: File of classes to recognise beside the trained ones.
        threshold: As for `Matcher`.
        sampling: As for `Stream`.
        motion_gate: The threshold of a `MotionGate`; None recognises every window.
        budget: For a governor, of a live source or one at its own pace; None has none.
    """

    bundle: Path
    source: str = "0"
    headless: bool = False
    record: Path | None = None
    hop: int = 4
    stride: int | None = None
    fps: float | None = None
    smoothing: Smoothing | None = DEFAULT_SMOOTHING
    threads: int | None = None
    duration: float | None = None
    max_frames: int | None = None
    realtime: bool | None = None
    top: int = 5
    source_fps: float | None = None
    events: EventRule | None = None
    sinks: tuple[str, ...] = ()
    clips: ClipOptions | None = None
    gallery: Path | None = None
    threshold: float | None = None
    sampling: str = "uniform"
    motion_gate: float | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        if self.duration is not None and not self.duration > 0:
            raise UsageError(f"the duration must be positive, not {self.duration}")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"the number of frames must be at least 1, not {self.max_frames}")
        if self.top < 1:
            raise UsageError(f"at least 1 score must be shown, not {self.top}")
        if self.events is None and (self.sinks or self.clips is not None):
            raise UsageError("sinks and clips are for events: give a rule for them")


@dataclass
class Summary:
    """What a session did; `interrupted` if Ctrl-C ended it."""

    source: str
    seconds: float = 0.0
    frames: int = 0
    windows: int = 0
    dropped: int = 0
    frames_per_second: float = 0.0
    latency_p50: float = 0.0
    latency_p95: float = 0.0
    labels: dict[str, int] = field(default_factory=dict)  # in how many windows each was shown
    recorded: str | None = None
    events: int = 0
    clips: int = 0
    skipped: int = 0  # windows in which nothing moved
    decisions: int = 0  # of the governor
    interrupted: BaseException | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; latencies in milliseconds."""
        return {
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "frames": self.frames,
            "windows": self.windows,
            "dropped": self.dropped,
            "frames_per_second": round(self.frames_per_second, 2),
            "latency_ms": {"p50": round(self.latency_p50 * 1e3, 3), "p95": round(self.latency_p95 * 1e3, 3)},
            "labels": self.labels,
            "recorded": self.recorded,
            "events": self.events,
            "clips": self.clips,
            "skipped": self.skipped,
            "decisions": self.decisions,
            "interrupted": self.interrupted is not None,
        }


def play(
    options: Options,
    on_prediction: Callable[[Prediction, float], None],
    on_message: Callable[[str], None],
    on_event: Callable[[Event], None] = lambda event: None,
    on_decision: Callable[[Decision], None] = lambda decision: None,
) -> Summary:
    """Recognises a source until it ends, its window is closed, or Ctrl-C.

    Args:
        options: What, and what to do with it.
        on_prediction: Called in this thread with each result, and its time in seconds since the first frame.
        on_message: Told what the user should know: no window, a camera that vanished.
        on_event: Called in this thread with each event when it has started and when it has ended.
        on_decision: Called in this thread with each decision of the governor, its time since the first frame.

    Returns:
        The summary, after Ctrl-C too: the recording is finished and events are delivered first.

    Raises:
        UsageError: There is a budget, but no pace to keep up with.
        VmpError: The bundle or the source cannot be opened, or something failed on the way.
    """
    with contextlib.ExitStack() as stack:
        recognizer = stack.enter_context(load(options.bundle, options.threads, options.gallery, options.threshold))
        source = open_source(options.source, on_message, fps=options.source_fps)
        stack.callback(source.close)
        display = _open_display(options, recognizer, on_message)
        if display is not None:
            stack.callback(display.close)
        watch = None
        if options.events is not None:
            hop = options.hop if options.budget is None else max(level.hop for level in ladder(options.hop))
            rule, labels, interval = options.events, recognizer.labels, hop / (source.fps or USUAL_FPS)
            watch = Watch(rule, labels, source, interval, options.sinks, options.clips, on_event, on_message)
            stack.callback(watch.close)
        realtime = options.realtime if options.realtime is not None else display is not None
        if realtime and not source.live:
            source = Paced(source)
        if options.budget is not None and not source.live:
            raise UsageError("a budget is for a live source: play a file at its own pace with --realtime")
        recorder = None
        if options.record is not None:
            recorder = stack.enter_context(Recorder(options.record, source.fps or USUAL_FPS))
        decisions: queue.SimpleQueue[Decision] = queue.SimpleQueue()
        useful = worthwhile(recognizer.manifest.variants) if options.budget is not None else ()
        variants = recognizer.bundle.variants
        others = {name: stack.enter_context(load(variants[name], options.threads)) for name in useful}
        stream = _make_stream(options, recognizer, others, decisions.put)
        wanted = stream.window.fps
        if wanted is not None and source.fps is not None and source.fps < 0.9 * wanted:
            on_message(f"{source.name} has {source.fps:g} frames per second, the window takes {wanted:g}: some repeat")
        view = _View(stream, display, recorder, options.top)
        summary = _Session(options, source, stream, view, watch, on_prediction, decisions, on_decision).run()
        if watch is not None:
            watch.close()
            summary.events, summary.clips = watch.events, watch.clips
        if recorder is not None and (path := recorder.finish()) is not None:
            summary.recorded = str(path)
        return summary


def _make_stream(
    options: Options,
    recognizer: Recognizer,
    variants: dict[str, Recognizer],
    on_decision: Callable[[Decision], None],
) -> Stream:
    levels = ladder(options.hop, (None, *variants))
    return Stream(
        recognizer,
        options.hop,
        options.stride,
        options.fps,
        options.smoothing,
        bgr=True,
        sampling=options.sampling,
        gate=MotionGate(options.motion_gate) if options.motion_gate is not None else None,
        governor=Governor(options.budget, levels) if options.budget is not None else None,
        variants=variants,
        on_decision=on_decision,
    )


def _open_display(options: Options, recognizer: Recognizer, tell: Callable[[str], None]) -> Display | None:
    if options.headless:
        return None
    try:
        return Display(f"vmp-edge: {recognizer.manifest.name}")
    except (DisplayError, MissingDependencyError) as error:
        tell(f"{error}; running headless")
        return None


class _View:
    """The window and the recording: both show the frame with the overlay."""

    def __init__(self, stream: Stream, display: Display | None, recorder: Recorder | None, top: int) -> None:
        self._stream = stream
        self._display = display
        self._recorder = recorder
        self._top = top

    @property
    def closed(self) -> bool:
        return self._display is not None and self._display.closed

    def show(self, frame: Frame) -> None:
        if self._display is None and self._recorder is None:
            return
        picture = overlay.draw(frame.image, self._stream.latest, self._stream.statistics(), self._top)
        if self._recorder is not None:
            self._recorder.write(picture, frame.timestamp)
        if self._display is not None:
            self._display.show(picture)

    def poll(self) -> None:
        if self._display is not None:
            self._display.poll()


class _Session:
    """One run over a source."""

    def __init__(
        self,
        options: Options,
        source: Source,
        stream: Stream,
        view: _View,
        watch: Watch | None,
        on_prediction: Callable[[Prediction, float], None],
        decisions: queue.SimpleQueue[Decision],
        on_decision: Callable[[Decision], None],
    ) -> None:
        self._options = options
        self._source = source
        self._stream = stream
        self._view = view
        self._watch = watch
        self._on_prediction = on_prediction
        self._decisions, self._on_decision = decisions, on_decision
        self._decided = 0
        self._labels: Counter[str] = Counter()
        self._first: float | None = None  # the first frame's timestamp
        self._began = 0.0  # when it came, by the monotonic clock
        self._taken = 0
        self._restarted = False  # and the watch does not know yet

    def run(self) -> Summary:
        start = time.perf_counter()
        interrupted: BaseException | None = None
        try:
            if self._source.live:
                self._run_threaded()
            else:
                self._run_in_order()
        except KeyboardInterrupt as stop:
            interrupted = stop
        seconds = time.perf_counter() - start
        self._tell_decisions()
        found = self._stream.statistics()
        return Summary(
            source=self._source.name,
            seconds=seconds,
            frames=found.frames,
            windows=found.windows,
            dropped=found.dropped,
            frames_per_second=found.frames / seconds if seconds > 0 else 0.0,
            latency_p50=found.latency_p50,
            latency_p95=found.latency_p95,
            labels=dict(self._labels.most_common()),
            skipped=found.skipped,
            decisions=self._decided,
            interrupted=interrupted,
        )

    def _next(self) -> Frame | None:
        """The next frame; None at the end, or when as much was taken as was asked for."""
        options = self._options
        if options.max_frames is not None and self._taken >= options.max_frames:
            return None
        frame = self._source.read()
        if frame is None:
            return None
        if self._first is None:
            self._first, self._began = frame.timestamp, time.monotonic()
            if self._watch is not None:
                self._watch.begin(frame)
        if options.duration is not None and frame.timestamp - self._first >= options.duration:
            return None
        self._taken += 1
        if frame.restarted:
            self._stream.reset()
            self._restarted = True
        return frame

    def _tell(self, prediction: Prediction) -> None:
        self._tell_decisions()
        self._labels[prediction.label] += not prediction.skipped
        assert prediction.timestamp is not None and self._first is not None
        seconds = prediction.timestamp - self._first
        self._on_prediction(prediction, seconds)
        if self._watch is not None:
            self._heed_restart(self._watch)
            self._watch.update(prediction, seconds)

    def _tell_decisions(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                decision = self._decisions.get_nowait()
                self._decided += 1
                self._on_decision(replace(decision, time=decision.time - self._began))

    def _show(self, frame: Frame) -> None:
        self._view.show(frame)
        if self._watch is not None and self._first is not None:
            self._heed_restart(self._watch)
            self._watch.add(frame, frame.timestamp - self._first)

    def _heed_restart(self, watch: Watch) -> None:
        if self._restarted:
            self._restarted = False
            watch.interrupt()

    def _run_in_order(self) -> None:
        while not self._view.closed and (frame := self._next()) is not None:
            prediction = self._stream.push(frame.image, frame.timestamp)
            if prediction is not None:
                self._tell(prediction)
            self._show(frame)

    def _run_threaded(self) -> None:
        predictions: queue.SimpleQueue[Prediction] = queue.SimpleQueue()
        capture = _Capture(self._next, self._stream)

        def hand_over(prediction: Prediction) -> None:
            predictions.put(prediction)
            capture.news.set()

        self._stream.start(hand_over)
        capture.start()
        deadline = None if self._options.duration is None else time.monotonic() + self._options.duration + 1.0
        silent_since = time.monotonic()
        try:
            while not self._view.closed and not capture.ended:
                capture.news.wait(_TICK)
                capture.news.clear()
                self._drain(predictions)
                frame = capture.take()
                if frame is not None:
                    self._show(frame)
                    silent_since = time.monotonic()
                else:
                    self._view.poll()
                if self._watch is not None and time.monotonic() - silent_since > _SILENCE:
                    self._watch.interrupt()
                if deadline is not None and time.monotonic() > deadline:  # the camera is gone, the time is over
                    break
        finally:
            self._source.close()
            capture.join(timeout=5.0)
            self._stream.close()
        self._drain(predictions)
        capture.check()

    def _drain(self, predictions: queue.SimpleQueue[Prediction]) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._tell(predictions.get_nowait())


class _Capture(threading.Thread):
    """Takes frames from the source as they come and feeds them to the stream; keeps the newest one for the view."""

    def __init__(self, next_frame: Callable[[], Frame | None], stream: Stream) -> None:
        super().__init__(name="vmp-edge capture", daemon=True)
        self._next_frame = next_frame
        self._stream = stream
        self._lock = threading.Lock()
        self._newest: Frame | None = None
        self._failure: BaseException | None = None
        self.ended = False
        self.news = threading.Event()

    def run(self) -> None:
        try:
            while (frame := self._next_frame()) is not None:
                self._stream.feed(frame.image, frame.timestamp)
                with self._lock:
                    self._newest = frame
                self.news.set()
        except BaseException as error:  # it is the main thread's to raise
            self._failure = error
        finally:
            self.ended = True
            self.news.set()

    def take(self) -> Frame | None:
        """The newest frame, if it was not taken yet."""
        with self._lock:
            frame, self._newest = self._newest, None
        return frame

    def check(self) -> None:
        """Raises what capturing failed with, if it did."""
        if self._failure is not None:
            raise self._failure
