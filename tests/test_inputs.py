"""`Recognizer.predict` with paths, patterns and lists."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import FRAMES, grey

from vmp_edge.errors import SourceError, UsageError
from vmp_edge.prediction import sample_evenly
from vmp_edge.sources import open_source


def write_video(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for value in values:
        writer.write(grey(value, 48, 64))
    writer.release()
    return path


@pytest.fixture
def clips(tmp_path):
    """A folder with three videos, one of them in a folder of its own."""
    write_video(tmp_path / "clips" / "up.avi", range(10, 220, 7))
    write_video(tmp_path / "clips" / "down.avi", range(220, 10, -7))
    write_video(tmp_path / "clips" / "more" / "flat.avi", [100] * 30)
    return tmp_path / "clips"


def frames_of(path):
    source = open_source(str(path))
    frames = []
    while (frame := source.read()) is not None:
        frames.append(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB))
    source.close()
    return np.stack(frames)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_what_its_whole_clip_is(recognizer, clips, kind):
    whole = recognizer.predict(frames_of(clips / "up.avi"))
    prediction = recognizer.predict(kind(clips / "up.avi"))
    assert np.array_equal(prediction.scores, whole.scores) and prediction.label == "brighter"
    assert prediction.source == str(clips / "up.avi") and whole.source is None


def test_a_short_file_gives_frames_twice(recognizer, tmp_path):
    path = write_video(tmp_path / "short.avi", [10, 200])
    frames = frames_of(path)[sample_evenly(2, FRAMES)]
    assert np.array_equal(recognizer.predict(path).scores, recognizer.predict(frames).scores)


def test_a_folder_of_pictures_is_a_video(recognizer, tmp_path):
    for number, value in enumerate(range(10, 220, 20)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey(value))
    assert recognizer.predict(tmp_path).label == "brighter"


def test_a_pattern_gives_a_list_sorted_by_path(recognizer, clips):
    predictions = recognizer.predict(f"{clips}/*.avi")
    assert [(Path(one.source).name, one.label) for one in predictions] == [
        ("down.avi", "darker"),
        ("up.avi", "brighter"),
    ]
    assert len(recognizer.predict(str(clips / "**" / "*.avi"))) == 3
    assert len(recognizer.predict(str(clips / "u?.avi"))) == 1, "a pattern gives a list, even if one file is like it"


def test_a_relative_pattern(recognizer, clips, monkeypatch):
    monkeypatch.chdir(clips)
    assert [one.source for one in recognizer.predict("*.avi")] == ["down.avi", "up.avi"]


def test_a_name_that_looks_like_a_pattern_is_a_file(recognizer, tmp_path):
    path = write_video(tmp_path / "take [1].avi", range(10, 220, 7))
    assert recognizer.predict(str(path)).label == "brighter"


def test_a_list_may_hold_paths_and_clips(recognizer, clips):
    paths = [clips / "up.avi", str(clips / "down.avi"), frames_of(clips / "up.avi")]
    assert [one.label for one in recognizer.predict(paths)] == ["brighter", "darker", "brighter"]
    assert recognizer.predict([]) == []


def test_what_cannot_be_read_is_named_in_one_line(recognizer, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    for path, reason in [
        (tmp_path / "absent.mp4", "there is no such file"),
        (tmp_path / "text.mp4", "cannot be decoded as a video"),
        (tmp_path / "empty.mp4", "the file has no bytes"),
        ("rtsp://user:secret@host/stream", "Recognizer.stream"),
    ]:
        with pytest.raises(SourceError, match=reason) as caught:
            recognizer.predict(path)
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    with pytest.raises(SourceError, match=r"text\.mp4: cannot be decoded"):
        recognizer.predict(f"{tmp_path}/t*.mp4")


def test_what_is_no_clip_is_refused(recognizer, tmp_path):
    with pytest.raises(UsageError, match="no file is like"):
        recognizer.predict(f"{tmp_path}/*.mp4")
    for value in (None, 3, [None], [[1, 2]], {"a": 1}, b"clip.mp4"):
        with pytest.raises(UsageError, match="the path of a video, or a list of these, not"):
            recognizer.predict(value)
    with pytest.raises(UsageError, match="a clip is a uint8 array"):
        recognizer.predict(np.zeros((4, 8, 8), np.uint8))
