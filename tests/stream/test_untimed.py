"""Frames without timestamps: counted by their rate, or refused where the clock would tell something wrong."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundles import FRAMES, grey, make_manifest, write_bundle

from vmp_edge.errors import UsageError
from vmp_edge.recognizer import load
from vmp_edge.stream.stream import Stream

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def timed(tmp_path):
    """A recogniser whose bundle says that its windows take 15 frames per second."""
    with load(write_bundle(tmp_path / "build" / "host", make_manifest(frame_rate=15.0))) as recognizer:
        yield recognizer


def frames_of(video):
    """Return the frames of a file, RGB, as fast as they can be decoded."""
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


def python_of(page, word):
    """The first Python example of a page that has a word in it."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if word in block)


@pytest.mark.parametrize("rate", [None, 15.0])
@pytest.mark.parametrize(("page", "word"), [("README.md", "recognizer.stream("), ("docs/streaming.md", "stream.push(")])
def test_the_loops_of_the_pages_give_results_on_a_file(tmp_path, monkeypatch, video, capsys, rate, page, word):
    write_bundle(tmp_path / "build" / "host", make_manifest(frame_rate=rate))
    monkeypatch.chdir(tmp_path)
    shutil.copy(video, "clip.mp4")
    frames = frames_of(video)
    exec(python_of(ROOT / page, word), {"clip": np.stack(frames[:FRAMES]), "frames": frames})
    prediction, *results = capsys.readouterr().out.splitlines()
    assert prediction.startswith("Prediction(label='")
    labels = [line.split()[0] for line in results]
    assert labels[0] == "brighter" and labels[-1] == "darker" and len(labels) >= 10


def test_frames_are_counted_by_the_rate_of_their_source(timed, video):
    frames = frames_of(video)
    counting, told = Stream(timed, hop=4, source_fps=30.0), Stream(timed, hop=4)
    for index, frame in enumerate(frames):
        counted, expected = counting.push(frame), told.push(frame, index / 30)
        assert (counted is None) == (expected is None)
        if expected is not None:
            assert counted.timestamp == expected.timestamp == index / 30
            np.testing.assert_array_equal(counted.scores, expected.scores)
    counting.reset()
    assert counting.push(frames[0]) is None, "after a reset, time starts again"
    assert counting.push(frames[0], 5.0).timestamp == 5.0, "a timestamp counts more than the rate"


def test_frames_without_times_are_refused_where_the_windows_need_them(timed):
    stream = Stream(timed)
    for take in (stream.push, stream.add):
        with pytest.raises(UsageError, match=r"without a timestamp.*15 frames per second.*source_fps=30.*timestamp"):
            take(grey(1))
    assert stream.statistics().frames == 0
    with Stream(timed).start() as started, pytest.raises(UsageError, match="without a timestamp"):
        started.feed(grey(1))
    assert Stream(timed, stride=1).push(grey(1)) is None, "by a stride, frames need no times"


def test_a_rate_that_is_not_positive_is_refused(timed):
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="must be positive"):
            Stream(timed, source_fps=rate)
