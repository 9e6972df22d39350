"""From a stream of scores to events: an action has started, an action has ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from ..errors import UsageError
from ..recognizer import Prediction

BACKGROUND = ("background", "none", "nothing", "no action", "other", "still")  # labels for nothing worth telling


@dataclass(frozen=True)
class Event:
    """An action, told when it has started and again when it has ended.

    Args:
        number: Counts the events of a run from 1; the same when it starts and when it ends.
        label: The action.
        start: When it began, in seconds since the source's first frame: when its score rose, not when `hold` was over.
        end: When it was last seen, in the same seconds; None while it goes on.
        peak: The highest score so far, 0 to 1.
        mean: The mean score of the windows so far in which it was seen.
        source: The source's name.
        started_at: Unix time of `start`; None for a file, whose frames are of no certain day.
    """

    number: int
    label: str
    start: float
    end: float | None
    peak: float
    mean: float
    source: str
    started_at: float | None = None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.end is not None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: seconds to the millisecond, the time of day in ISO 8601, UTC."""
        started = None if self.started_at is None else datetime.fromtimestamp(self.started_at, timezone.utc)
        return {
            "event": "end" if self.ended else "start",
            "number": self.number,
            "label": self.label,
            "start": round(self.start, 3),
            "end": None if self.end is None else round(self.end, 3),
            "peak": round(self.peak, 4),
            "mean": round(self.mean, 4),
            "source": self.source,
            "started_at": started.isoformat(timespec="milliseconds") if started else None,
        }


@dataclass(frozen=True)
class EventRule:
    """When an action counts as started and as ended.

    Args:
        threshold: It starts when its score is at least this, 0 to 1, ...
        hold: ...in every window for so many seconds.
        gap: It ends when its score was under `release` for so many seconds.
        release: Under which it counts as gone; None takes three quarters of the threshold. That it is lower than the
            threshold keeps a score that wavers about it from making many events of one.
        only: Labels that make events; empty for all.
        ignored: Labels that make none, in upper or lower case.
        background: More of them, by what they are usually called; a label in `only` makes events in spite of this.

    Raises:
        UsageError: A value is out of range.
    """

    threshold: float = 0.6
    hold: float = 0.5
    gap: float = 1.0
    release: float | None = None
    only: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    background: tuple[str, ...] = BACKGROUND

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UsageError(f"the event threshold must be over 0 and at most 1, not {self.threshold:g}")
        for name, seconds in (("hold", self.hold), ("gap", self.gap)):
            if not (math.isfinite(seconds) and seconds >= 0):
                raise UsageError(f"the event {name} must be 0 seconds or more, not {seconds:g}")
        if self.release is not None and not 0 <= self.release <= self.threshold:
            raise UsageError(f"the event release must be from 0 to the threshold, not {self.release:g}")

    @property
    def lower(self) -> float:
        """The release that holds."""
        return 0.75 * self.threshold if self.release is None else self.release

    def watched(self, labels: Sequence[str]) -> list[int]:
        """The indices of the labels that make events.

        Raises:
            UsageError: A label in `only` or `ignored` is none of them.
        """
        unknown = {*self.only, *self.ignored} - set(labels)
        if unknown:
            raise UsageError(f"the bundle has no label {', '.join(sorted(unknown))}: see vmp-edge info")
        quiet = {name.lower() for name in self.background}
        chosen = self.only or [label for label in labels if label.lower() not in quiet]
        return [index for index, label in enumerate(labels) if label in chosen and label not in self.ignored]


class _Track:
    """What is known of one label: that it may be starting, or that its event goes on."""

    def __init__(self, seconds: float) -> None:
        self.start = self.last = seconds
        self.event: Event | None = None
        self.peak = self._sum = 0.0
        self._count = 0

    @property
    def mean(self) -> float:
        return self._sum / self._count

    def see(self, score: float, seconds: float) -> None:
        self.last = seconds
        self.peak = max(self.peak, score)
        self._sum += score
        self._count += 1


class EventDetector:
    """Makes events of predictions. Each label is looked at by itself: with a low threshold, two may go on at once.

    Args:
        rule: When an action has started and ended.
        labels: The recogniser's.
        source: The source's name, for the events.
        on_event: Called with each event when it has started and when it has ended.

    Raises:
        UsageError: The rule names a label that the recogniser has not.
    """

    def __init__(self, rule: EventRule, labels: Sequence[str], source: str, on_event: Callable[[Event], None]) -> None:
        self.rule = rule
        self.origin: float | None = None  # Unix time of the source's first frame, where it is known
        self._labels = labels
        self._watched = np.array(rule.watched(labels), np.intp)
        self._source = source
        self._on_event = on_event
        self._tracks: dict[int, _Track] = {}
        self._count = 0

    @property
    def active(self) -> list[Event]:
        """The events that go on, as they were told."""
        return [track.event for track in self._tracks.values() if track.event is not None]

    def update(self, prediction: Prediction, seconds: float) -> None:
        """Takes a result in.

        Args:
            prediction: From the stream.
            seconds: Of its newest frame, since the source's first frame.
        """
        rising = self._watched[prediction.scores[self._watched] >= self.rule.threshold]
        for index in sorted({*rising.tolist(), *self._tracks}):
            self._follow(index, float(prediction.scores[index]), seconds)

    def end_all(self) -> None:
        """Ends what goes on, where it was last seen: the source is at its end, or was gone."""
        for index in list(self._tracks):
            self._end(self._tracks.pop(index))

    def _follow(self, index: int, score: float, seconds: float) -> None:
        track = self._tracks.setdefault(index, _Track(seconds))
        goes_on = track.event is not None
        if score >= (self.rule.lower if goes_on else self.rule.threshold):
            track.see(score, seconds)
            if not goes_on and seconds - track.start >= self.rule.hold:
                self._begin(index, track)
        elif not goes_on or seconds - track.last >= self.rule.gap:
            del self._tracks[index]
            self._end(track)

    def _begin(self, index: int, track: _Track) -> None:
        self._count += 1
        started_at = None if self.origin is None else self.origin + track.start
        label = self._labels[index]
        track.event = Event(self._count, label, track.start, None, track.peak, track.mean, self._source, started_at)
        self._on_event(track.event)

    def _end(self, track: _Track) -> None:
        if track.event is not None:
            self._on_event(replace(track.event, end=track.last, peak=track.peak, mean=track.mean))
