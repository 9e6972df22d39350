"""The events of a run: detected, told to every sink, recorded as clips."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from ..recognizer import Prediction
from ..sources import USUAL_FPS, Frame, Message, Source
from .clips import ClipOptions, ClipRecorder
from .detector import Event, EventDetector, EventRule
from .sinks import open_sink


class Watch:
    """Everything that happens with events in one run. For one thread.

    Args:
        rule: When an action has started and ended.
        labels: The recogniser's.
        source: What is recognised.
        interval: Seconds from one window to the next, by the source's rate.
        sinks: Where events go, as for `open_sink`.
        clips: Which clips to record, if any.
        on_event: Called with each event when it has started and when it has ended.
        tell: Told what could not be delivered or recorded.

    Raises:
        UsageError: The rule or a sink's address makes no sense.
        SinkError: An events file cannot be written to.
        RecordingError: The clips' folder cannot be written to.
        MissingDependencyError: A sink needs what is not installed.
    """

    def __init__(
        self,
        rule: EventRule,
        labels: Sequence[str],
        source: Source,
        interval: float,
        sinks: Sequence[str],
        clips: ClipOptions | None,
        on_event: Callable[[Event], None],
        tell: Message,
    ) -> None:
        self.events = 0  # that have started
        self._on_event = on_event
        self._live = source.live
        self._detector = EventDetector(rule, labels, source.name, self._take)
        with contextlib.ExitStack() as stack:
            self._sinks = []
            for text in sinks:
                self._sinks.append(open_sink(text, tell))
                stack.callback(self._sinks[-1].close)
            self._clips: ClipRecorder | None = None
            if clips is not None:
                fps = source.fps or USUAL_FPS
                late = rule.hold + interval
                self._clips = ClipRecorder(clips, fps, late, source.name, tell, wait=not source.live)
                stack.callback(self._clips.close)
            self._closing = stack.pop_all()

    @property
    def clips(self) -> int:
        """How many clips were written."""
        return self._clips.written if self._clips is not None else 0

    def begin(self, frame: Frame) -> None:
        """Takes note of the source's first frame: the time of a live one's is known."""
        if self._live:
            self._detector.origin = time.time() - (time.monotonic() - frame.timestamp)

    def add(self, frame: Frame, seconds: float) -> None:
        """Takes a frame in, for clips; `seconds` since the first frame."""
        if self._clips is not None:
            self._clips.add(frame.image, seconds)

    def update(self, prediction: Prediction, seconds: float) -> None:
        """Takes a result in; `seconds` since the first frame."""
        self._detector.update(prediction, seconds)

    def interrupt(self) -> None:
        """The source is gone: ends the events that go on, and the clip."""
        self._detector.end_all()
        if self._clips is not None:
            self._clips.cut()

    def close(self) -> None:
        """Ends the events that go on, writes the last clip, and delivers what can be delivered in a few seconds."""
        with self._closing:
            self._detector.end_all()

    def _take(self, event: Event) -> None:
        self.events += not event.ended
        for sink in self._sinks:
            sink.put(event)
        if self._clips is not None:
            self._clips.tell(event)
        self._on_event(event)
