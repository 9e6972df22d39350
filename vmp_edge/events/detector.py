"""Detect events in a stream of scores: an action has started, or an action has ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from ..errors import UsageError
from ..recognizer import Prediction

BACKGROUND = ("background", "none", "nothing", "no action", "other", "still")  # usual labels for "no action"


@dataclass(frozen=True)
class Event:
    """An action. It is reported once when it has started, and again when it has ended.

    Args:
        number: The event's number in the run, from 1. It is the same in both reports.
        label: The action.
        start: When the action began, in seconds since the source's first frame. This is when its score rose, not when
            `hold` was over.
        end: When the action was last seen, in the same seconds. None while it goes on.
        peak: The highest score so far, 0 to 1.
        mean: The mean score of the windows so far in which the action was seen.
        source: The source's name.
        started_at: Unix time of `start`. None for a file, because nobody knows when its frames were taken.
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
        """True if the action is over."""
        return self.end is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the event for JSON, with seconds rounded to milliseconds and `started_at` in ISO 8601, UTC."""
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

    def to_json(self) -> bytes:
        """Return the event as one line of JSON in UTF-8, without a line break."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False).encode()


@dataclass(frozen=True)
class EventRule:
    """The rule that decides when an action has started and when it has ended.

    Args:
        threshold: An action starts when its score is at least this, 0 to 1, in every window for `hold` seconds.
        hold: Seconds for which the score must stay at or above the threshold.
        gap: Seconds for which the score must stay under `release` before the action ends.
        release: Score under which an action counts as gone. None takes three quarters of the threshold. It is lower
            than the threshold so that a score that wavers about the threshold makes one event, not many.
        only: Labels that make events. Empty for all labels.
        ignored: Labels that make no events. Upper and lower case matter.
        background: Usual names of labels for no action, which make no events unless they are in `only`. Upper and
            lower case do not matter.

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
        """The score under which an action counts as gone: `release`, or three quarters of the threshold."""
        return 0.75 * self.threshold if self.release is None else self.release

    def watched(self, labels: Sequence[str]) -> list[int]:
        """Return the indices of the labels that make events.

        Raises:
            UsageError: A label in `only` or `ignored` is not among the labels.
        """
        unknown = {*self.only, *self.ignored} - set(labels)
        if unknown:
            raise UsageError(f"the bundle has no label {', '.join(sorted(unknown))}: see vmp-edge info")
        background = {name.lower() for name in self.background}
        chosen = self.only or [label for label in labels if label.lower() not in background]
        return [index for index, label in enumerate(labels) if label in chosen and label not in self.ignored]


class _Track:
    """The state of one label while its action may be starting or goes on.

    Attributes:
        start: Seconds at which the score rose.
        last: Seconds at which the action was last seen.
        event: The event, once it has started.
        peak: The highest score so far.
    """

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
    """Makes events from predictions.

    Each label is followed independently: with a low threshold, several actions may go on at once.

    Args:
        rule: Decides when an action has started and ended.
        labels: The recogniser's labels.
        source: The source's name, for the events.
        on_event: Called with each event when it has started and again when it has ended.

    Attributes:
        origin: Unix time of the source's first frame, or None if it is not known. The caller sets it.

    Raises:
        UsageError: The rule names a label that the recogniser does not have.
    """

    def __init__(self, rule: EventRule, labels: Sequence[str], source: str, on_event: Callable[[Event], None]) -> None:
        self.rule = rule
        self.origin: float | None = None
        self._labels = labels
        self._watched = np.array(rule.watched(labels), np.intp)
        self._source = source
        self._on_event = on_event
        self._tracks: dict[int, _Track] = {}
        self._count = 0

    @property
    def active(self) -> list[Event]:
        """The events that go on, as they were reported at their start."""
        return [track.event for track in self._tracks.values() if track.event is not None]

    def update(self, prediction: Prediction, seconds: float) -> None:
        """Process one prediction.

        Args:
            prediction: The stream's prediction for a window.
            seconds: Time of the window's newest frame, since the source's first frame.
        """
        rising = self._watched[prediction.scores[self._watched] >= self.rule.threshold]
        for index in sorted({*rising.tolist(), *self._tracks}):
            self._follow(index, float(prediction.scores[index]), seconds)

    def end_all(self) -> None:
        """End the events that go on, each when it was last seen: the source has ended or was interrupted."""
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
