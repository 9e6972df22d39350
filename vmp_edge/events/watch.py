"""Watch one run for events: detect them, send them to every sink and record clips of them."""

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
    """Handles all events of one run. All methods must be called from one thread.

    Args:
        rule: Decides when an action has started and ended.
        labels: The recogniser's labels.
        source: The source that is recognised.
        interval: Seconds from one window to the next, by the source's frame rate.
        sinks: Where events go, each as for `open_sink`.
        clips: Options of the clips to record, or None to record none.
        on_event: Called with each event when it has started and again when it has ended.
        tell: Called with a message when something could not be delivered or recorded.

    Attributes:
        events: Number of events that have started.

    Raises:
        UsageError: The rule or a sink's address is not valid.
        SinkError: An events file cannot be written to.
        RecordingError: The clips' folder cannot be written to.
        MissingDependencyError: A sink needs a package that is not installed.
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
        self.events = 0
        self._on_event = on_event
        self._live = source.live
        self._detector = EventDetector(rule, labels, source.name, self._handle)
        with contextlib.ExitStack() as stack:
            self._sinks = []
            for text in sinks:
                self._sinks.append(open_sink(text, tell))
                stack.callback(self._sinks[-1].close)
            self._clips: ClipRecorder | None = None
            if clips is not None:
                fps = source.fps or USUAL_FPS
                delay = rule.hold + interval
                self._clips = ClipRecorder(clips, fps, delay, source.name, tell, wait=not source.live)
                stack.callback(self._clips.close)
            self._closing = stack.pop_all()

    @property
    def clips(self) -> int:
        """Number of clips that were written."""
        return self._clips.written if self._clips is not None else 0

    def begin(self, frame: Frame) -> None:
        """Note the source's first frame. If the source is live, the frame's time of day is known."""
        if self._live:
            self._detector.origin = time.time() - (time.monotonic() - frame.timestamp)

    def add(self, frame: Frame, seconds: float) -> None:
        """Keep a frame for clips. `seconds` counts from the first frame."""
        if self._clips is not None:
            self._clips.add(frame.image, seconds)

    def update(self, prediction: Prediction, seconds: float) -> None:
        """Look for events in a prediction. `seconds` counts from the first frame."""
        self._detector.update(prediction, seconds)

    def interrupt(self) -> None:
        """End the events that go on and the open clip, because the source is gone."""
        self._detector.end_all()
        if self._clips is not None:
            self._clips.cut()

    def close(self) -> None:
        """End the events that go on, write the last clip, and deliver the waiting events for a few seconds."""
        with self._closing:
            self._detector.end_all()

    def _handle(self, event: Event) -> None:
        self.events += not event.ended
        for sink in self._sinks:
            sink.put(event)
        if self._clips is not None:
            self._clips.tell(event)
        self._on_event(event)
