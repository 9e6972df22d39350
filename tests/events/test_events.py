"""Detecting events: when an action has started and when it has ended."""

import math

import numpy as np
import pytest

from vmp_edge.errors import UsageError
from vmp_edge.events.detector import EventDetector, EventRule
from vmp_edge.recognizer import Prediction

LABELS = ("still", "wave", "jump")


def detect(rule, scores, step=0.25, labels=LABELS, finish=True):
    """Feed a score of `wave`, or a row of scores, every `step` seconds. Return the reported events."""
    events = []
    detector = EventDetector(rule, labels, "camera", events.append)
    for index, score in enumerate(scores):
        row = (0.0, score, 0.0) if np.isscalar(score) else score
        row = np.array(row, np.float32)
        best = int(row.argmax())
        detector.update(Prediction(labels[best], float(row[best]), row, labels, 0.0), index * step)
    if finish:
        detector.end_all()
    return events


RULE = EventRule(threshold=0.6, hold=0.5, gap=1.0)


def test_an_event_starts_after_its_hold_and_ends_after_its_gap_with_the_times_of_both():
    start, end = detect(RULE, [0, 0.7, 0.8, 0.9, 0.7, 0, 0, 0, 0, 0], finish=False)
    assert (start.number, start.label, start.start, start.end) == (1, "wave", 0.25, None)
    assert not start.ended and start.source == "camera"
    assert start.peak == pytest.approx(0.9) and start.mean == pytest.approx(0.8)
    assert (end.number, end.start, end.end) == (1, 0.25, 1.0)
    assert end.peak == pytest.approx(0.9) and end.mean == pytest.approx(0.775)


def test_a_score_that_does_not_stay_high_for_the_hold_makes_no_event():
    assert detect(RULE, [0.9, 0.9, 0.5, 0.9, 0.9, 0.5]) == []
    assert len(detect(RULE, [0.6, 0.6, 0.6])) == 2, "the threshold itself counts, and so does the hold"
    assert detect(RULE, [0.599] * 20) == []


def test_a_short_loss_does_not_end_an_event_and_a_long_one_does():
    assert [event.end for event in detect(RULE, [0.9] * 4 + [0] * 3 + [0.9] * 4)] == [None, 2.5]
    events = detect(RULE, [0.9] * 4 + [0] * 4 + [0.9] * 4)
    assert [(event.number, event.start, event.end) for event in events] == [
        (1, 0, None),
        (1, 0, 0.75),
        (2, 2.0, None),
        (2, 2.0, 2.75),
    ]


def test_a_score_that_wavers_about_the_threshold_is_one_event():
    wavering = [0.62, 0.62, 0.62] + [0.55, 0.65] * 20
    assert len(detect(EventRule(threshold=0.6, hold=0.5, gap=0), wavering)) == 2
    assert len(detect(EventRule(threshold=0.6, release=0.6, hold=0, gap=0), wavering)) > 20


def test_without_hold_and_gap_every_window_counts():
    events = detect(EventRule(threshold=0.5, hold=0, gap=0), [0.9, 0, 0.9, 0])
    assert [(event.start, event.end) for event in events] == [(0, None), (0, 0), (0.5, None), (0.5, 0.5)]


def test_each_label_is_followed_independently():
    rows = [(0, 0.5, 0.5)] * 4 + [(0, 0.9, 0.1)] * 8
    events = detect(EventRule(threshold=0.4, hold=0.5, gap=0.5), rows)
    assert [(event.label, event.ended) for event in events] == [
        ("wave", False),
        ("jump", False),
        ("jump", True),
        ("wave", True),
    ]
    assert [event.number for event in events] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, ["wave", "jump"]),
        ({"only": ("wave",)}, ["wave"]),
        ({"only": ("still",)}, ["still"]),
        ({"ignored": ("wave",)}, ["jump"]),
        ({"only": ("wave", "jump"), "ignored": ("wave",)}, ["jump"]),
        ({"background": ()}, list(LABELS)),
        ({"background": ("WAVE",)}, ["still", "jump"]),
    ],
)
def test_the_rule_chooses_the_labels(rule, expected):
    assert [LABELS[index] for index in EventRule(**rule).watched(LABELS)] == expected


def test_a_label_that_the_bundle_lacks_is_refused():
    for name in ("only", "ignored"):
        with pytest.raises(UsageError, match="no label hop"):
            EventRule(**{name: ("hop", "wave")}).watched(LABELS)


@pytest.mark.parametrize(
    "values",
    [
        {"threshold": 0},
        {"threshold": 1.1},
        {"threshold": math.nan},
        {"hold": -1},
        {"hold": math.inf},
        {"gap": math.nan},
        {"release": 0.7},
        {"release": -0.1},
    ],
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UsageError):
        EventRule(**values)


def test_end_all_ends_events_when_they_were_last_seen_and_drops_those_about_to_start():
    events = []
    detector = EventDetector(RULE, LABELS, "camera", events.append)
    for index in range(4):
        detector.update(Prediction("wave", 0.9, np.array([0, 0.9, 0], np.float32), LABELS, 0.0), index / 4)
    detector.update(Prediction("jump", 0.9, np.array([0, 0, 0.9], np.float32), LABELS, 0.0), 1.0)
    assert [event.label for event in detector.active] == ["wave"]
    detector.end_all()
    detector.end_all()
    assert [(event.label, event.end) for event in events] == [("wave", None), ("wave", 0.75)] and detector.active == []


def test_json_has_the_time_of_day_only_if_it_is_known():
    events = []
    detector = EventDetector(EventRule(hold=0), LABELS, "camera", events.append)
    detector.origin = 1_800_000_000.0
    detector.update(Prediction("wave", 0.9, np.array([0, 0.9, 0], np.float32), LABELS, 0.0), 1.25)
    assert events[0].to_dict() == {
        "event": "start",
        "number": 1,
        "label": "wave",
        "start": 1.25,
        "end": None,
        "peak": 0.9,
        "mean": 0.9,
        "source": "camera",
        "started_at": "2027-01-15T08:00:01.250+00:00",
    }
    assert detect(RULE, [0.9] * 4)[1].to_dict()["started_at"] is None
