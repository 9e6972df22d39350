"""What is drawn, shown and recorded."""

import os
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from bundles import grey

from vmp_edge.errors import MissingDependencyError, UsageError
from vmp_edge.recognizer import Prediction
from vmp_edge.stream.statistics import Statistics
from vmp_edge.view import overlay, recording
from vmp_edge.view.display import Display, DisplayError
from vmp_edge.view.recording import Recorder, RecordingError

STATISTICS = Statistics(100, 3, 20, 29.97, 0.0123, 0.02)


def prediction(*scores, shown=0, labels=None):
    labels = labels or tuple(f"label-{index}" for index in range(len(scores)))
    return Prediction(labels[shown], scores[shown], np.array(scores, np.float32), labels, 0.0123)


def changed(picture, image):
    """The box (left, top, right, bottom) in which a picture differs from the bare image."""
    rows, columns = np.nonzero((picture != image).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


# Overlay


@pytest.mark.parametrize("shape", [(360, 480), (480, 640), (1080, 1920), (640, 360), (720, 405)])
def test_the_overlay_lies_within_the_picture_and_leaves_most_of_it(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    before = image.copy()
    picture = overlay.draw(image, prediction(0.6, 0.3, 0.1), STATISTICS)
    assert picture.shape == image.shape and np.array_equal(image, before)
    left, top, right, bottom = changed(picture, image)
    assert left > 0 and bottom < shape[0] and top > shape[0] * 0.3 and right < shape[1] * 0.85


def test_small_pictures_are_enlarged():
    assert overlay.draw(grey(80, 64, 64), None, STATISTICS).shape == (384, 384, 3)
    assert overlay.draw(grey(80, 3, 4), None, STATISTICS).shape == (360, 480, 3)


def test_what_adapts_is_said_within_the_panel():
    image = grey(60, 480, 640)
    plain = overlay.draw(image, prediction(0.6, 0.4), STATISTICS)
    for shown, statistics in (
        (replace(prediction(0.6, 0.4), skipped=True), STATISTICS),
        (prediction(0.6, 0.4), replace(STATISTICS, level=3, dropped=123456, frames_per_second=119.9)),
    ):
        picture = overlay.draw(image, shown, statistics)
        assert (picture != plain).any() and changed(picture, image) == changed(plain, image)


def accent_pixels(picture):
    return int((np.abs(picture.astype(int) - overlay._ACCENT).max(axis=2) < 8).sum())


def test_bars_grow_with_their_scores():
    image = grey(60, 480, 640)
    found = [accent_pixels(overlay.draw(image, prediction(s, 0.0), STATISTICS, top=1)) for s in (0.11, 0.51, 0.91)]
    assert found[0] < found[1] < found[2]


def test_as_many_bars_as_asked_for():
    image = grey(60, 480, 640)
    heights = []
    for top in (1, 3, 5):
        _, upper, _, lower = changed(overlay.draw(image, prediction(*[0.1] * 10), STATISTICS, top), image)
        heights.append(lower - upper)
    assert heights[1] - heights[0] == heights[2] - heights[1] > 0


@pytest.mark.parametrize("label", ["", "x", "a very long label that has no room " * 5, "grüßen 挥手", "%s {}"])
def test_any_label_can_be_drawn(label):
    image = grey(60, 480, 640)
    picture = overlay.draw(image, prediction(0.6, 0.4, labels=(label, "other")), STATISTICS)
    reference = overlay.draw(image, prediction(0.6, 0.4, labels=("x", "other")), STATISTICS)
    assert changed(picture, image) == changed(reference, image), "the text stays in its panel"


def test_what_is_shown_changes_the_picture():
    image = grey(60, 480, 640)
    waiting = overlay.draw(image, None, STATISTICS)
    one, other = (overlay.draw(image, prediction(0.6, 0.4, shown=index), STATISTICS) for index in (0, 1))
    assert not np.array_equal(waiting, one) and not np.array_equal(one, other)


# Recording


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (result := capture.read())[0]:
        frames.append(result[1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, rate


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "A.MP4"])
def test_a_recording_has_all_frames_and_appears_only_when_it_is_whole(tmp_path, name):
    path = tmp_path / name
    with Recorder(path, 25.0) as recorder:
        for index in range(40):
            recorder.write(grey(5 * index, 48, 64), 100 + index / 25)
            assert not path.exists()
        assert recorder.finish() == path
    frames, rate = frames_of(path)
    assert len(frames) == 40 and rate == 25.0
    np.testing.assert_allclose([frame.mean() for frame in frames], np.arange(40) * 5, atol=6)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_it_plays_as_fast_as_it_happened(tmp_path):
    """10 frames per second recorded at 30: each three times; 60 at 30: every other one; a pause is a still."""
    for rate, count, expected in ((10, 20, 58), (60, 60, 30)):
        with Recorder(tmp_path / "a.avi", 30.0) as recorder:
            for index in range(count):
                recorder.write(grey(100, 48, 64), index / rate)
            recorder.finish()
        assert abs(len(frames_of(tmp_path / "a.avi")[0]) - expected) <= 1


def test_a_camera_that_was_gone_for_hours_does_not_fill_the_disk(tmp_path):
    with Recorder(tmp_path / "a.avi", 30.0) as recorder:
        for time in (0.0, 0.1, 7200.0, 7200.1):
            recorder.write(grey(100, 48, 64), time)
        recorder.finish()
    assert len(frames_of(tmp_path / "a.avi")[0]) < 20


def test_other_sizes_are_scaled_to_the_first(tmp_path):
    with Recorder(tmp_path / "a.avi", 30.0) as recorder:
        for index, shape in enumerate([(48, 64), (480, 640), (20, 20)]):
            recorder.write(grey(100, *shape), index / 30)
        recorder.finish()
    assert [frame.shape for frame in frames_of(tmp_path / "a.avi")[0]] == [(48, 64, 3)] * 3


def test_what_is_not_finished_leaves_nothing_and_spares_the_old_one(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), Recorder(path, 30.0) as recorder:
        recorder.write(grey(100, 48, 64), 0.0)
        raise KeyboardInterrupt
    with Recorder(path, 30.0) as recorder:
        assert recorder.finish() is None
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_recording_that_cannot_be_read_back_is_an_error(tmp_path, monkeypatch):
    """OpenCV's writer does not say that the disk is full."""
    with Recorder(tmp_path / "a.mp4", 30.0) as recorder:
        for index in range(30):
            recorder.write(grey(100, 48, 64), index / 30)
        release = recording.cv2.VideoWriter.release
        writer = recorder._writer

        def lose_the_end():
            release(writer)
            os.truncate(recorder._partial, 100)

        recorder._writer = type("Writer", (), {"release": staticmethod(lose_the_end)})()
        with pytest.raises(RecordingError, match="is the disk full"):
            recorder.finish()
    assert list(tmp_path.iterdir()) == []


def test_where_one_cannot_record_is_told_at_once(tmp_path):
    with pytest.raises(UsageError, match=r"must end in one of \.mp4"):
        Recorder(tmp_path / "a.gif", 30.0)
    with pytest.raises(RecordingError, match="not a folder"):
        Recorder(tmp_path / "nowhere" / "a.mp4", 30.0)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(RecordingError, match="it is a folder"):
        Recorder(tmp_path / "b.mp4", 30.0)


# Window


@pytest.fixture
def window(monkeypatch):
    pytest.importorskip("pygame", reason="the window needs pygame, the extra `display`")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    display = Display("test")
    yield display
    display.close()


def shown_on(window):
    """The window's pixels, (H, W, 3) RGB."""
    import pygame

    return pygame.surfarray.array3d(window._screen).transpose(1, 0, 2)


def test_the_window_shows_the_picture(window):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    window.show(image)
    np.testing.assert_array_equal(shown_on(window), image[..., ::-1])


def test_a_resized_window_keeps_the_pictures_shape(window):
    import pygame

    window.show(grey(200, 48, 64))
    window._screen = pygame.display.set_mode((200, 48), pygame.RESIZABLE)
    window.show(grey(200, 48, 64))
    rows, columns = np.nonzero(shown_on(window).any(axis=2))
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (68, 132, 0, 48)


@pytest.mark.parametrize("key", ["K_q", "K_ESCAPE", None])
def test_keys_and_the_close_button_close_it(window, key):
    import pygame

    window.show(grey(1))
    assert not window.closed
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_a))
    window.poll()
    assert not window.closed
    event = pygame.event.Event(pygame.QUIT) if key is None else pygame.event.Event(
        pygame.KEYDOWN, key=getattr(pygame, key)
    )  # fmt: skip
    pygame.event.post(event)
    window.poll()
    assert window.closed


def test_no_screen_and_no_pygame_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(MissingDependencyError, match=r"vmp-edge\[display\]"):
        Display("test")
    monkeypatch.undo()
    pytest.importorskip("pygame", reason="the window needs pygame, the extra `display`")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        with pytest.raises(DisplayError, match="no screen"):
            Display("test")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonsense")
    with pytest.raises(DisplayError, match="no screen"):
        Display("test")
