"""`Recognizer.stream`: an iterator over any source, which is closed when the loop is left."""

import gc
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from bundles import FRAMES, SUPPORT, grey, make_manifest, write_bundle
from synthetic_sources import SyntheticCamera, wait_until

from vmp_edge.errors import SourceError, UsageError
from vmp_edge.prediction import Prediction
from vmp_edge.recognizer import load
from vmp_edge.sources import open_source
from vmp_edge.stream.governor import Budget
from vmp_edge.stream.options import StreamOptions
from vmp_edge.stream.stream import Stream


def pushed(recognizer, video, **options):
    """The results of a stream that every frame of a file is pushed to."""
    stream, source = Stream(recognizer, bgr=True, **options), open_source(str(video))
    results = []
    while (frame := source.read()) is not None:
        results.append(stream.push(frame.image, frame.timestamp))
    source.close()
    return [result for result in results if result is not None]


def capture_threads():
    return [thread for thread in threading.enumerate() if thread.name == "vmp-edge capture"]


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: open_source(str(path))])
def test_a_file_gives_every_window(recognizer, video, kind):
    expected = pushed(recognizer, video, hop=3)
    predictions = list(recognizer.stream(kind(video), hop=3))
    assert [one.frame for one in predictions] == [one.frame for one in expected]
    assert all(np.array_equal(one.scores, other.scores) for one, other in zip(predictions, expected, strict=True))
    assert [one.frame for one in recognizer.stream(video, 3)] == [one.frame for one in expected]
    options = StreamOptions(hop=3, stride=2)
    assert [one.frame for one in recognizer.stream(video, options)] == [
        one.frame for one in pushed(recognizer, video, hop=3, stride=2)
    ]


def test_frames_in_an_array_a_list_and_a_generator_are_rgb(recognizer, video):
    expected = [one.label for one in pushed(recognizer, video, smoothing=None)]
    frames = []
    source = open_source(str(video))
    while (frame := source.read()) is not None:
        frames.append(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB))
    for given in (np.stack(frames), frames, (frame for frame in frames)):
        assert [one.label for one in recognizer.stream(given, smoothing=None)] == expected


def test_frames_need_a_rate_where_windows_are_spaced_by_time(tmp_path):
    frames = [grey(value) for value in range(10, 130, 4)]
    with load(write_bundle(tmp_path / "timed", make_manifest(frame_rate=15.0))) as recognizer:
        predictions = list(recognizer.stream(frames, source_fps=30.0))
        assert predictions[-1].timestamp == pytest.approx(predictions[-1].frame / 30)
        with pytest.raises(UsageError, match="source_fps"):
            list(recognizer.stream(frames))


def test_a_pipe_a_folder_and_raw_pixels_are_sources(bundle, tmp_path):
    for number, value in enumerate(range(10, 220, 20)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), grey(value))
    code = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import brightness_engine, vmp_edge
brightness_engine.register()
with vmp_edge.load(sys.argv[1]) as recognizer:
    for source in sys.argv[2:]:
        print([prediction.label for prediction in recognizer.stream(source, hop=1, smoothing=None)])
"""
    command = [sys.executable, "-c", code, str(bundle), str(tmp_path), "raw:32x24:grey:30"]
    raw = b"".join(bytes([value]) * (32 * 24) for value in range(10, 130, 10))
    done = subprocess.run(command, input=raw, capture_output=True, timeout=60, check=False)
    folder, pixels = done.stdout.decode().splitlines()
    assert set(eval(folder)) == {"brighter"} and set(eval(pixels)) == {"brighter"}, done.stderr


@pytest.mark.parametrize("way", ["break", "raise", "end", "close", "with", "forgotten"])
@pytest.mark.parametrize("live", [True, False])
def test_the_source_is_closed_however_the_loop_is_left(recognizer, way, live):
    camera = SyntheticCamera(range(10, 250, 4), hold=live and way != "end")
    camera.live = live
    before = set(capture_threads())
    if way == "break":
        for _ in recognizer.stream(camera):
            break
    elif way == "raise":
        with pytest.raises(KeyError):
            for _ in recognizer.stream(camera):
                raise KeyError
    elif way == "end":
        assert list(recognizer.stream(camera))
    elif way == "close":
        results = recognizer.stream(camera)
        next(results)
        results.close()
        assert list(results) == []
        results.close()
    elif way == "with":
        with recognizer.stream(camera) as results:
            for _ in results:
                break
    else:
        recognizer.stream(camera)
    gc.collect()
    assert camera.closed.wait(10)
    wait_until(lambda: not set(capture_threads()) - before)


def test_a_generator_of_frames_is_closed_too(recognizer):
    left = []

    def frames():
        try:
            while True:
                yield grey(len(left))
        finally:
            left.append(True)

    for _ in recognizer.stream(frames()):
        break
    assert left == [True]


def test_a_slow_loop_gets_the_newest_window(recognizer):
    """The camera goes on while a result is used; what comes in between costs neither memory nor time."""
    given, is_slow = [], threading.Event()

    def before(number):
        if number == 40:
            is_slow.wait(30)
        given.append(number)

    camera = SyntheticCamera([*[10] * 40, *range(10, 250, 3)], before=before, hold=True)
    results = recognizer.stream(camera, hop=1)
    first = next(results)
    is_slow.set()
    wait_until(lambda: len(given) > 100)
    second = next(results)
    assert first.frame < 40 and second.frame >= 99 - FRAMES
    results.close()


def test_every_window_after_a_gap_is_of_new_frames(recognizer):
    camera = SyntheticCamera([10, 20, 30, 200, 190, 180, 170], restarts={3})
    camera.live = False
    assert [one.label for one in recognizer.stream(camera, hop=1, smoothing=None)] == ["darker"]


def test_what_a_live_source_fails_with_is_raised_in_the_loop(recognizer):
    seen = []
    with pytest.raises(SourceError, match="cable"):
        for prediction in recognizer.stream(SyntheticCamera(range(10, 80, 4), error="cable is out"), hop=1):
            seen.append(prediction)
    assert all(isinstance(one, Prediction) for one in seen)


def test_a_file_at_its_own_pace(recognizer, video):
    predictions = list(recognizer.stream(video, realtime=True, budget=Budget(latency=10.0)))
    assert predictions and predictions[-1].frame <= 59


def test_wrong_use_is_refused_at_once(recognizer, video, tmp_path):
    for source, error, message in [
        (tmp_path / "absent.mp4", SourceError, "does not exist"),
        ("", SourceError, "empty"),
        (None, UsageError, "a source is an address, an open source or frames, not a NoneType"),
        (np.zeros((8, 8, 3), np.uint8), UsageError, r"frames in an array: uint8 \(T, H, W, 3\)"),
    ]:
        with pytest.raises(error, match=message):
            recognizer.stream(source)
    with pytest.raises(UsageError, match="realtime=True"):
        recognizer.stream(video, budget=Budget(latency=1.0))
    with pytest.raises(UsageError, match="realtime is for files"):
        recognizer.stream([grey(1)], realtime=True)
    with pytest.raises(UsageError, match="hop"):
        recognizer.stream(video, hop=0)
    with pytest.raises(TypeError, match="hopp"):
        recognizer.stream(video, hopp=1)


def test_the_source_is_closed_if_an_option_is_wrong(recognizer):
    camera = SyntheticCamera([1])
    with pytest.raises(UsageError):
        recognizer.stream(camera, hop=0)
    assert camera.closed.wait(10)


def test_messages_go_to_standard_error_or_where_one_says(tmp_path, capsys):
    manifest = make_manifest(frame_rate=2.0)
    frames = [grey(value) for value in range(20)]
    with load(write_bundle(tmp_path / "slow", manifest)) as recognizer:
        assert list(recognizer.stream(frames, source_fps=30)) == []
        written = capsys.readouterr()
        assert written.err.startswith("vmp-edge: a window reaches over 1.5 s") and not written.out
        messages = []
        assert list(recognizer.stream(frames, source_fps=30, on_message=messages.append)) == []
        assert len(messages) == 1 and not capsys.readouterr().err
