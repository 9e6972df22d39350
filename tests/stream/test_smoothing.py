"""Smoothed results ignore single odd windows and follow lasting changes."""

import numpy as np
import pytest

from vmp_edge.errors import UsageError
from vmp_edge.stream.smoothing import Smoother, Smoothing

RAW = {"windows": 0.0, "margin": 0.0, "hold": 1}


def labels_shown(smoothing, sequence, step=0.1):
    """Return the labels that are shown for a sequence of scores."""
    smoother = Smoother(smoothing)
    return [smoother.update(np.array(scores, np.float32), index * step)[0] for index, scores in enumerate(sequence)]


A, B, C = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)


def test_without_smoothing_each_window_shows_its_best_label():
    assert labels_shown(Smoothing(**RAW), [A, B, A, C, C]) == [0, 1, 0, 2, 2]


def test_the_first_window_shows_at_once():
    assert labels_shown(Smoothing(windows=50, margin=0.5, hold=10), [B]) == [1]


def test_one_odd_window_does_not_show():
    assert labels_shown(Smoothing(), [A] * 5 + [B] + [A] * 5) == [0] * 11


def test_labels_that_alternate_do_not_flicker():
    assert set(labels_shown(Smoothing(), [A] + [B, A] * 30)) == {0}
    near = [(0.5, 0.48, 0.02), (0.48, 0.5, 0.02)]
    assert set(labels_shown(Smoothing(), near * 30)) == {0}


def test_a_lasting_change_shows_soon_and_once():
    labels = labels_shown(Smoothing(), [A] * 10 + [B] * 10)
    changes = [index for index in range(1, 20) if labels[index] != labels[index - 1]]
    assert len(changes) == 1 and 11 <= changes[0] <= 13


def test_hold_counts_windows_in_a_row():
    smoothing = Smoothing(windows=0, margin=0, hold=3)
    assert labels_shown(smoothing, [A, B, B, A, B, B, B, B]) == [0, 0, 0, 0, 0, 0, 1, 1]
    assert labels_shown(smoothing, [A, B, C, B, C, B, C]) == [0] * 7, "no challenger leads three times in a row"
    assert labels_shown(smoothing, [A, B, C, C, C]) == [0, 0, 0, 0, 2]


def test_a_new_label_must_lead_by_the_margin():
    smoothing = Smoothing(windows=0, margin=0.2, hold=1)
    assert labels_shown(smoothing, [(0.5, 0.5, 0), (0.42, 0.58, 0), (0.39, 0.61, 0), (0.45, 0.55, 0)]) == [0, 0, 1, 1]


def test_the_average_is_exponential_by_windows():
    smoother = Smoother(Smoothing(windows=2.0))
    for index in range(6):
        _, scores = smoother.update(np.array(A if index == 0 else B, np.float32), 99.0)
    left = np.exp(-5 / 2.0)
    np.testing.assert_allclose(scores, left * np.array(A) + (1 - left) * np.array(B), rtol=1e-5)
    assert scores.dtype == np.float32


def test_the_average_by_seconds_does_not_depend_on_how_often_windows_come():
    results = []
    for step in (0.1, 0.5):
        smoother = Smoother(Smoothing(seconds=1.0))
        smoother.update(np.array(A, np.float32), 0.0)
        for index in range(1, round(2.0 / step) + 1):
            _, scores = smoother.update(np.array(B, np.float32), index * step)
        results.append(scores)
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    np.testing.assert_allclose(results[0], np.exp(-2.0) * np.array(A) + (1 - np.exp(-2.0)) * np.array(B), rtol=1e-5)


def test_scores_still_add_up_to_one():
    smoother = Smoother(Smoothing())
    rng = np.random.default_rng(0)
    for index in range(100):
        _, scores = smoother.update(rng.dirichlet(np.ones(5)).astype(np.float32), index)
    assert abs(float(scores.sum()) - 1) < 1e-5


def test_reset_forgets():
    smoother = Smoother(Smoothing(windows=50, hold=10))
    smoother.update(np.array(A, np.float32), 5.0)
    smoother.reset()
    assert smoother.update(np.array(B, np.float32), 0.0)[0] == 1


@pytest.mark.parametrize(
    "options",
    [{"windows": -1}, {"windows": float("nan")}, {"seconds": -1}, {"margin": 1.0}, {"margin": -0.1}, {"hold": 0}],
)
def test_impossible_smoothing_is_refused(options):
    with pytest.raises(UsageError):
        Smoothing(**options)
