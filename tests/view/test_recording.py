"""Recordings: their frames and times, and what happens if they are not finished."""

import os
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import grey

from vmp_edge.errors import UsageError
from vmp_edge.view.recording import Recorder, RecordingError


def frames_of(path):
    """Return the frames of a video and its frame rate."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (result := capture.read())[0]:
        frames.append(result[1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, rate


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "A.MP4"])
def test_a_recording_has_all_frames_and_appears_only_when_it_is_complete(tmp_path, name):
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


def test_a_recording_plays_in_real_time(tmp_path):
    """Of 10 frames per second recorded at 30, each is repeated twice. Of 60 per second, every other one is left out."""
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


def test_frames_of_other_sizes_are_scaled_to_the_first(tmp_path):
    with Recorder(tmp_path / "a.avi", 30.0) as recorder:
        for index, shape in enumerate([(48, 64), (480, 640), (20, 20)]):
            recorder.write(grey(100, *shape), index / 30)
        recorder.finish()
    assert [frame.shape for frame in frames_of(tmp_path / "a.avi")[0]] == [(48, 64, 3)] * 3


def test_an_unfinished_recording_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), Recorder(path, 30.0) as recorder:
        recorder.write(grey(100, 48, 64), 0.0)
        raise KeyboardInterrupt
    with Recorder(path, 30.0) as recorder:
        assert recorder.finish() is None
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_a_recording_that_cannot_be_read_back_is_an_error(tmp_path, suffix):
    """OpenCV's writer does not report that the disk is full."""
    with Recorder(tmp_path / f"a.{suffix}", 30.0) as recorder:
        for index in range(30):
            recorder.write(grey(100, 48, 64), index / 30)
        close = recorder._encoder.close

        def lose_the_end():
            close()
            os.truncate(recorder._partial, 100)

        recorder._encoder = type("Encoder", (), {"close": staticmethod(lose_the_end)})()
        with pytest.raises(RecordingError, match="is the disk full"):
            recorder.finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["out:1.mp4", "caf\udce9.mp4", "caf\udce9.avi", "-x.mkv", "p%d.mp4", "a b.avi"], ids=ascii
)
def test_a_recording_can_have_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d\udce9:").mkdir()
    for folder in (Path(), Path("d\udce9:")):
        path = folder / name
        with Recorder(path, 30.0) as recorder:
            for index in range(10):
                recorder.write(grey(100, 48, 64), index / 30)
            assert recorder.finish() == path
        plain = tmp_path / f"plain{path.suffix}"
        path.rename(plain)
        assert len(frames_of(plain)[0]) == 10


def test_a_recording_that_no_browser_plays_says_so_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "vmp_edge.video.pyav_encoder", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    messages = []
    with Recorder(tmp_path / "a.mp4", 30.0, messages.append) as recorder:
        for index in range(10):
            recorder.write(grey(100, 48, 64), index / 30)
        recorder.finish()
    assert len(frames_of(tmp_path / "a.mp4")[0]) == 10
    assert len(messages) <= 1 and all("no browser plays" in text for text in messages)


def test_impossible_paths_are_refused_at_once(tmp_path):
    with pytest.raises(UsageError, match=r"must end in one of \.mp4"):
        Recorder(tmp_path / "a.gif", 30.0)
    with pytest.raises(RecordingError, match="not a folder"):
        Recorder(tmp_path / "nowhere" / "a.mp4", 30.0)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(RecordingError, match="it is a folder"):
        Recorder(tmp_path / "b.mp4", 30.0)


def test_an_interrupt_in_the_middle_of_a_picture_loses_nothing(tmp_path):
    """A signal that ends a command comes at any moment; the recording is finished all the same."""

    def interrupt(number, stack):
        raise KeyboardInterrupt

    recorder = Recorder(tmp_path / "a.mp4", 25.0)
    noise = np.random.default_rng(0).integers(0, 256, (8, 240, 320, 3), np.uint8)
    recorder.write(noise[0], 0.0)
    before, interrupted = signal.signal(signal.SIGVTALRM, interrupt), 0
    try:
        for index in range(1, 150):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0.0003 * (index % 9 + 1))
                recorder.write(noise[index % 8], index / 25)
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert interrupted
    recorder.write(noise[0], 6.0)
    assert recorder.finish() == tmp_path / "a.mp4"
    capture, times = cv2.VideoCapture(str(tmp_path / "a.mp4")), []
    while capture.read()[0]:
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
    capture.release()
    assert len(times) >= 151  # a picture whose time was not noted yet is written once more
    np.testing.assert_allclose(times, 40.0 * np.arange(len(times)), atol=0.5)
