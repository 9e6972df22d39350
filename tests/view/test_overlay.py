"""The overlay: its place in the picture, its bars and its texts."""

from dataclasses import replace

import numpy as np
import pytest
from bundles import grey

from vmp_edge.recognizer import Prediction
from vmp_edge.stream.statistics import Statistics
from vmp_edge.view import overlay

STATISTICS = Statistics(100, 3, 20, 29.97, 0.0123, 0.02)


def prediction(*scores, best=0, labels=None):
    """Return a prediction with these scores, whose label is the one at index `best`."""
    labels = labels or tuple(f"label-{index}" for index in range(len(scores)))
    return Prediction(labels[best], scores[best], np.array(scores, np.float32), labels, 0.0123)


def changed_box(picture, image):
    """Return the box (left, top, right, bottom) in which a picture differs from the image without an overlay."""
    rows, columns = np.nonzero((picture != image).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("shape", [(360, 480), (480, 640), (1080, 1920), (640, 360), (720, 405)])
def test_the_overlay_lies_within_the_picture_and_leaves_most_of_the_picture_free(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    before = image.copy()
    picture = overlay.draw(image, prediction(0.6, 0.3, 0.1), STATISTICS)
    assert picture.shape == image.shape and np.array_equal(image, before)
    left, top, right, bottom = changed_box(picture, image)
    assert left > 0 and bottom < shape[0] and top > shape[0] * 0.3 and right < shape[1] * 0.85


def test_small_pictures_are_enlarged():
    assert overlay.draw(grey(80, 64, 64), None, STATISTICS).shape == (384, 384, 3)
    assert overlay.draw(grey(80, 3, 4), None, STATISTICS).shape == (360, 480, 3)


def test_skipped_windows_and_the_level_are_shown_within_the_panel():
    image = grey(60, 480, 640)
    plain = overlay.draw(image, prediction(0.6, 0.4), STATISTICS)
    for result, statistics in (
        (replace(prediction(0.6, 0.4), skipped=True), STATISTICS),
        (prediction(0.6, 0.4), replace(STATISTICS, level=3, dropped=123456, frames_per_second=119.9)),
    ):
        picture = overlay.draw(image, result, statistics)
        assert (picture != plain).any() and changed_box(picture, image) == changed_box(plain, image)


def accent_pixels(picture):
    """Count the pixels in the colour of the best label's bar."""
    return int((np.abs(picture.astype(int) - overlay._ACCENT).max(axis=2) < 8).sum())


def test_bars_grow_with_their_scores():
    image = grey(60, 480, 640)
    counts = [accent_pixels(overlay.draw(image, prediction(s, 0.0), STATISTICS, top=1)) for s in (0.11, 0.51, 0.91)]
    assert counts[0] < counts[1] < counts[2]


def test_the_panel_has_the_requested_number_of_bars():
    image = grey(60, 480, 640)
    heights = []
    for top in (1, 3, 5):
        _, upper, _, lower = changed_box(overlay.draw(image, prediction(*[0.1] * 10), STATISTICS, top), image)
        heights.append(lower - upper)
    assert heights[1] - heights[0] == heights[2] - heights[1] > 0


@pytest.mark.parametrize("label", ["", "x", "a very long label that has no room " * 5, "grüßen 挥手", "%s {}"])
def test_any_label_can_be_drawn(label):
    image = grey(60, 480, 640)
    picture = overlay.draw(image, prediction(0.6, 0.4, labels=(label, "other")), STATISTICS)
    reference = overlay.draw(image, prediction(0.6, 0.4, labels=("x", "other")), STATISTICS)
    assert changed_box(picture, image) == changed_box(reference, image), "the text stays in its panel"


def test_different_labels_give_different_pictures():
    image = grey(60, 480, 640)
    waiting = overlay.draw(image, None, STATISTICS)
    first, second = (overlay.draw(image, prediction(0.6, 0.4, best=index), STATISTICS) for index in (0, 1))
    assert not np.array_equal(waiting, first) and not np.array_equal(first, second)
