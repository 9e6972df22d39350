"""`Session`: one live run over a source.

A file is recognised frame by frame, every window of it. A live source, or a file at its own pace, has a capture thread,
and the stream recognises in its own thread. Frames that the stream cannot keep up with are dropped.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from ..events.watch import Watch
from ..recognizer import Prediction
from ..sources import Frame, Source
from ..sources.waiting import close_in_background
from ..stream.governor import Decision
from ..stream.stream import Stream
from .capture import Capture
from .filling import FillingWatch
from .options import Options
from .summary import Summary
from .view import View

_TICK = 0.05  # seconds within which a key press or Ctrl-C is noticed while no frames come
_SILENCE = 5.0  # seconds without a frame after which an event that goes on counts as ended
_JOIN_TIMEOUT = 0.8  # seconds that the end of the capture thread is waited for; if the source hangs, it is left behind


class Session:
    """One live run over a source.

    Args:
        options: When to stop.
        source: Gives the frames.
        stream: Recognises them.
        view: Shows them.
        watch: Looks for events in the results. None looks for no events.
        on_prediction: Called with each result, and its time in seconds since the first frame.
        decisions: The governor's decisions, which the stream puts here.
        on_decision: Called with each decision. Its time counts from the first frame.
        filling: Says that a window is filling up.
    """

    def __init__(
        self,
        options: Options,
        source: Source,
        stream: Stream,
        view: View,
        watch: Watch | None,
        on_prediction: Callable[[Prediction, float], None],
        decisions: queue.SimpleQueue[Decision],
        on_decision: Callable[[Decision], None],
        filling: FillingWatch,
    ) -> None:
        self._options = options
        self._source = source
        self._stream = stream
        self._view = view
        self._watch = watch
        self._on_prediction = on_prediction
        self._decisions, self._on_decision = decisions, on_decision
        self._filling = filling
        self._decision_count = 0
        self._labels: Counter[str] = Counter()
        self._first: float | None = None  # timestamp of the first frame
        self._began = 0.0  # the monotonic clock when the first frame came
        self._taken = 0
        self._restarted = False  # the source has started again, and the watch does not know yet

    def run(self) -> Summary:
        """Recognise the source until it ends or the session is to stop, and return the summary."""
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
        self._report_decisions()
        statistics = self._stream.statistics()
        return Summary(
            source=self._source.name,
            seconds=seconds,
            frames=statistics.frames,
            windows=statistics.windows,
            dropped=statistics.dropped,
            frames_per_second=statistics.frames / seconds if seconds > 0 else 0.0,
            latency_p50=statistics.latency_p50,
            latency_p95=statistics.latency_p95,
            labels=dict(self._labels.most_common()),
            skipped=statistics.skipped,
            decisions=self._decision_count,
            interrupted=interrupted,
        )

    def _next(self) -> Frame | None:
        """Return the next frame. None at the end, or when the options' duration or number of frames is reached."""
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

    def _report(self, prediction: Prediction) -> None:
        self._report_decisions()
        self._labels[prediction.label] += not prediction.skipped
        assert prediction.timestamp is not None and self._first is not None
        seconds = prediction.timestamp - self._first
        self._on_prediction(prediction, seconds)
        if self._watch is not None:
            self._pass_on_restart(self._watch)
            self._watch.update(prediction, seconds)

    def _report_decisions(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                decision = self._decisions.get_nowait()
                self._decision_count += 1
                self._on_decision(replace(decision, time=decision.time - self._began))

    def _show(self, frame: Frame) -> None:
        assert self._first is not None
        self._filling.update(frame.timestamp - self._first)
        self._view.show(frame)
        if self._watch is not None:
            self._pass_on_restart(self._watch)
            self._watch.add(frame, frame.timestamp - self._first)

    def _pass_on_restart(self, watch: Watch) -> None:
        if self._restarted:
            self._restarted = False
            watch.interrupt()

    def _run_in_order(self) -> None:
        while not self._view.closed and (frame := self._next()) is not None:
            prediction = self._stream.push(frame.image, frame.timestamp)
            if prediction is not None:
                self._report(prediction)
            self._show(frame)

    def _run_threaded(self) -> None:
        predictions: queue.SimpleQueue[Prediction] = queue.SimpleQueue()
        capture = Capture(self._next, self._stream)

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
                if deadline is not None and time.monotonic() > deadline:  # the camera is gone, and the time is over
                    break
        finally:
            close_in_background(self._source)
            capture.join(_JOIN_TIMEOUT)
            self._stream.close()
        self._drain(predictions)
        capture.check()

    def _drain(self, predictions: queue.SimpleQueue[Prediction]) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._report(predictions.get_nowait())
