"""Many cameras on one recogniser: each gets its turn and the results that it gets alone, and none disturbs another."""

import itertools
import threading
import time
from collections import defaultdict

import numpy as np
import pytest
from brightness_engine import BrightnessEngine
from bundles import FRAMES, write_bundle
from synthetic_sources import SyntheticCamera, wait_until

from vmp_edge.errors import BundleError, SourceError, UsageError
from vmp_edge.recognizer import load
from vmp_edge.sources import AddressError, Pauses
from vmp_edge.stream.cameras import Cameras
from vmp_edge.stream.governor import Budget
from vmp_edge.stream.stream import Stream
from vmp_edge.stream.turns import Turns


@pytest.fixture(autouse=True)
def open_gate():
    """No test leaves the engine stopped for the next one."""
    yield
    BrightnessEngine.gate.set()


def opener_of(sources):
    """Return an opener of sources by name. A source is a value, or a function that makes a new one at each opening."""
    return lambda text, on_message: sources[text]() if callable(sources[text]) else sources[text]


class Results:
    """Collects the results of cameras."""

    def __init__(self):
        self.order = []
        self.by_camera = defaultdict(list)

    def __call__(self, camera, prediction):
        self.order.append(camera.index)
        self.by_camera[camera.index].append(prediction)


# Turns


def test_turns_go_round_and_pass_over_who_did_not_ask():
    turns = Turns(4)
    for index in (3, 0, 2):
        turns.ask(index)
    turns.ask(2)
    assert [turns.next() for _ in range(3)] == [0, 2, 3]
    turns.ask(1)
    turns.ask(0)
    assert turns.next() == 0, "after the last comes the first"
    for _ in range(3):  # a camera that asks all the time gets every second turn, not every turn
        turns.ask(0)
        turns.ask(1)
        assert [turns.next(), turns.next()] == [1, 0]


def test_turns_wait_and_can_be_closed():
    turns = Turns(2)
    turns_given = []
    waiting = threading.Thread(target=lambda: turns_given.extend([turns.next(), turns.next()]))
    waiting.start()
    turns.ask(1)
    wait_until(lambda: turns_given is not None and not turns._asking)
    turns.close()
    waiting.join(60)
    assert turns_given == [1, None]
    turns.ask(0)
    assert turns.next() is None


# Results


def test_results_are_those_of_each_stream_alone(recognizer):
    """Three cameras with different pictures and rates at once, frame after frame, against `Stream.push` on each."""
    hop, counts = 2, (31, 17, 9)
    rng = np.random.default_rng(3)
    clips = [rng.integers(0, 256, (count, 24, 32, 3), np.uint8) for count in counts]
    expected = []
    for clip in clips:
        stream = Stream(recognizer, hop=hop, bgr=True)
        pushed = (stream.push(frame, index / 30) for index, frame in enumerate(clip))
        expected.append([prediction for prediction in pushed if prediction is not None])
    results = Results()

    def in_step(camera):
        """Wait until the window that is due was recognised, so that nothing is dropped."""
        ends = [prediction.frame for prediction in expected[camera]]
        return lambda number: wait_until(
            lambda: len(results.by_camera[camera]) >= sum(end < number for end in ends),
        )

    sources = {
        str(i): SyntheticCamera(clip, rate=(None, 300, 100)[i], before=in_step(i)) for i, clip in enumerate(clips)
    }
    with Cameras(recognizer, list(sources), hop, on_prediction=results, opener=opener_of(sources)) as cameras:
        cameras.start()
        wait_until(lambda: all(camera.state == "ended" for camera in cameras))
        wait_until(lambda: all(len(results.by_camera[i]) == len(expected[i]) for i in range(3)))
    for camera, alone in zip(cameras, expected, strict=True):
        predictions = results.by_camera[camera.index]
        assert [p.frame for p in predictions] == [p.frame for p in alone]
        assert [p.label for p in predictions] == [p.label for p in alone]
        np.testing.assert_array_equal([p.scores for p in predictions], [p.scores for p in alone])
        statistics = camera.statistics()
        assert (statistics.frames, statistics.windows) == (counts[camera.index], len(alone))
        assert statistics.dropped == 0 and statistics.latency_p50 > 0
        assert camera.latest is predictions[-1]


def test_each_camera_has_a_motion_gate_of_its_own(recognizer):
    still, moving = itertools.repeat(80, 300), itertools.islice(itertools.cycle((10, 200)), 300)
    sources = {"still": SyntheticCamera(still, 1000, hold=True), "moving": SyntheticCamera(moving, 1000, hold=True)}
    with Cameras(recognizer, list(sources), hop=1, opener=opener_of(sources), motion_gate=3.0) as cameras:
        cameras.start()
        wait_until(lambda: all(camera.statistics().frames == 300 for camera in cameras))
        wait_until(lambda: cameras[0].statistics().skipped > 10 and cameras[0].latest.skipped)
        assert cameras[1].statistics().skipped == 0 and not cameras[1].latest.skipped


def test_each_camera_has_a_governor_of_its_own(recognizer, tmp_path):
    by_camera = defaultdict(list)
    sources = {name: SyntheticCamera(itertools.cycle((10, 90)), 500) for name in "ab"}
    with load(write_bundle(tmp_path / "cheap", gain=0.0)) as cheap:
        cameras = Cameras(
            recognizer, list(sources), hop=1, opener=opener_of(sources), budget=Budget(1e-9),
            variants={"cheap": cheap}, on_decision=lambda camera, decision: by_camera[camera.index].append(decision),
        )  # fmt: skip
        with cameras:
            cameras.start()
            wait_until(lambda: all(camera.statistics().level == 4 for camera in cameras))
    for decisions in (by_camera[0], by_camera[1]):
        assert [decision.after for decision in decisions][:4] == [1, 2, 3, 4]
        assert decisions[0].level.variant == "cheap" and decisions[0].cause == "latency"


class RecordedTurns(Turns):
    """Counts the turns of the other cameras between the moment when a camera asks and its own turn."""

    def __init__(self, count):
        super().__init__(count)
        self.count_of_turns = 0
        self.asked_at = {}
        self.waited = defaultdict(list)

    def ask(self, index):
        super().ask(index)
        self.asked_at.setdefault(index, self.count_of_turns)

    def next(self):
        index = super().next()
        self.waited[index].append(self.count_of_turns - self.asked_at.pop(index, self.count_of_turns))
        self.count_of_turns += 1
        return index


def test_no_camera_starves_whatever_the_others_send(recognizer, monkeypatch):
    """Two cameras flood a slow engine. The third is the last in line and slow, and all its windows are recognised."""
    run, results, windows = BrightnessEngine.run, Results(), 12

    def slow(engine, video):
        threading.Event().wait(0.003)
        return run(engine, video)

    def after_its_result(number):
        wait_until(lambda: len(results.by_camera[2]) > number - FRAMES)

    monkeypatch.setattr(BrightnessEngine, "run", slow)
    monkeypatch.setattr("vmp_edge.stream.cameras.Turns", RecordedTurns)
    sources = {
        "flood": SyntheticCamera(itertools.cycle(range(200)), rate=2000),
        "fast": SyntheticCamera(itertools.cycle(range(200)), rate=500),
        "slow": SyntheticCamera([10] * (windows + FRAMES - 1), before=after_its_result, hold=True),
    }
    with Cameras(recognizer, list(sources), 1, on_prediction=results, opener=opener_of(sources)) as cameras:
        cameras.start()
        wait_until(lambda: len(results.by_camera[2]) == windows)
        waited = cameras._turns.waited
    flood, steady = cameras[0].statistics(), cameras[2].statistics()
    assert steady.windows == windows and steady.dropped == 0
    assert flood.dropped > 0 and flood.windows < flood.frames
    assert max(waited[2]) <= 2, "one turn of each other camera at most"
    shares = [results.order.count(index) for index in (0, 1)]
    assert min(shares) > 0.25 * max(shares), "four times the frames are not four times the turns"


# Cameras that fail, are lost, end


def test_the_others_go_on_when_cameras_fail(recognizer):
    def broken():
        raise SourceError("camera 9: there is no /dev/video9")

    def buggy(number):
        if number == 2:
            raise RuntimeError("driver")

    messages = []
    sources = {
        "broken": broken,
        "breaks": SyntheticCamera([10] * 6, error="the cable is out"),
        "buggy": SyntheticCamera([10] * 6, before=buggy),
        "good": SyntheticCamera(itertools.cycle([10, 60, 110]), rate=300),
    }
    on_message = lambda camera, text: messages.append((camera.index, text))  # noqa: E731
    with Cameras(recognizer, list(sources), 1, on_message=on_message, opener=opener_of(sources)) as cameras:
        cameras.start()
        wait_until(lambda: all(camera.state == "failed" for camera in list(cameras)[:3]))
        windows = cameras[3].statistics().windows
        wait_until(lambda: cameras[3].statistics().windows > windows + 5)
        assert cameras[3].state == "running"
        cameras.check()
    assert sorted(messages) == [
        (0, "camera 9: there is no /dev/video9"),
        (1, "the cable is out"),
        (2, "RuntimeError: driver"),
    ]
    assert [camera.message for camera in cameras] == [*(text for _, text in sorted(messages)), ""]
    assert isinstance(cameras[0].error, SourceError) and isinstance(cameras[2].error, RuntimeError)
    assert [camera.state for camera in cameras] == ["failed"] * 3 + ["stopped"]


def test_a_camera_that_is_off_at_the_start_is_tried_again_until_it_is_there(recognizer):
    tries, messages = [], []

    def opener(text, on_message):
        tries.append(text)
        if text == "camera:door" and len(tries) > 4:
            return SyntheticCamera(itertools.cycle([10, 60, 110]), rate=300)
        raise SourceError(f"{text} is off")

    sources = ["camera:door", "clip.mp4"]
    on_message = lambda camera, text: messages.append(text)  # noqa: E731
    pauses = Pauses(0.01, 0.02)
    with Cameras(recognizer, sources, 1, opener=opener, on_message=on_message, pauses=pauses) as cameras:
        cameras.start()
        wait_until(lambda: cameras[0].statistics().windows > 3)
        assert cameras[0].state == "running" and cameras[0].error is None
        assert cameras[0].message == "camera:door is there"
        assert cameras[1].state == "failed" and cameras[1].message == "clip.mp4 is off"
    assert tries.count("clip.mp4") == 1, "it is of no use to try a file again"
    first = [text for text in messages if text.startswith("camera:door is off")]
    assert first[:2] == ["camera:door is off; trying again in 0.01 s", "camera:door is off; trying again in 0.02 s"]


def test_a_camera_that_is_off_fails_at_once_if_asked_and_a_wrong_address_in_any_case(recognizer):
    def off(text, on_message):
        raise SourceError("it is off")

    def wrong(text, on_message):
        raise AddressError("erroneous pipeline")

    for opener, patient, text in ((off, False, "it is off"), (wrong, True, "erroneous pipeline")):
        with Cameras(recognizer, ["0"], opener=opener, patient=patient) as cameras:
            cameras.start()
            wait_until(lambda cameras=cameras: cameras[0].state == "failed")
            assert cameras[0].message == text


def test_the_wait_for_a_camera_that_is_off_can_be_stopped(recognizer):
    with Cameras(recognizer, ["/dev/video4321"], pauses=Pauses(3600.0, 3600.0)) as cameras:
        cameras.start()
        wait_until(lambda: cameras[0].message)
        assert cameras[0].state == "opening" and cameras[0].active
        assert "there is no /dev/video4321" in cameras[0].message and "trying again" in cameras[0].message
        cameras.stop(0)
        assert cameras[0].state == "stopped" and not cameras[0]._run.thread.is_alive()


def test_stopping_does_not_wait_for_cameras_that_hang(recognizer):
    """One hangs while it is opened, one while it is read and closed, whatever the number of cameras."""
    go_on = threading.Event()

    def hang(number):
        if number == 3:
            go_on.wait(60)

    def opener(text, on_message):
        if text == "opens":
            go_on.wait(60)
        source = SyntheticCamera([10] * 10, before=hang)
        source.close = lambda: go_on.wait(60)
        return source

    cameras = Cameras(recognizer, ["opens", *["reads"] * 5], opener=opener)
    cameras.start()
    wait_until(lambda: all(camera.statistics().frames == 3 for camera in list(cameras)[1:]))
    start = time.monotonic()
    cameras.close()
    assert time.monotonic() - start < 30, "it waits once for all of them, and not for ever"
    assert [camera.state for camera in cameras] == ["stopped"] * 6
    go_on.set()


def test_a_lost_camera_says_so_and_no_window_reaches_over_the_gap(recognizer):
    callbacks, results, gap = {}, Results(), threading.Event()

    def lose_camera(number):
        if number == 5:
            callbacks["it"]("gives no more frames; trying again")
            gap.wait(60)

    source = SyntheticCamera([10, 60, 110, 160, 210, 200, 150, 100, 50], before=lose_camera, restarts={5}, hold=True)

    def opener(text, on_message):
        callbacks["it"] = on_message
        return source

    with Cameras(recognizer, ["it"], 1, smoothing=None, on_prediction=results, opener=opener) as cameras:
        cameras.start()
        wait_until(lambda: cameras[0].state == "lost" and results.by_camera[0])
        assert cameras[0].message == "gives no more frames; trying again" and cameras[0].active
        gap.set()
        wait_until(lambda: results.by_camera[0][-1].frame > 4)
        assert cameras[0].state == "running"
    labels = [(p.frame, p.label) for p in results.by_camera[0]]
    assert labels[-1] == (8, "darker") and all(frame <= 4 and label == "brighter" for frame, label in labels[:-1])


def test_a_file_is_played_at_its_own_pace_and_again_with_loop(recognizer, video):
    results = Results()
    with Cameras(recognizer, [str(video)], 4, loop=True, on_prediction=results) as cameras:
        cameras.start()
        wait_until(lambda: cameras[0].statistics().frames > 70)
        assert cameras[0].state == "running"
        timestamps = [p.timestamp for p in results.by_camera[0]]
        assert any(later < earlier for earlier, later in itertools.pairwise(timestamps)), "it began again"
    with Cameras(recognizer, [str(video)]) as cameras:
        cameras.start()
        wait_until(lambda: cameras[0].state == "ended")
        assert cameras[0].statistics().frames == 60 and not cameras[0].active


def test_cameras_stop_and_start_one_by_one(recognizer):
    opened = defaultdict(list)

    def opener(text, on_message):
        opened[text].append(SyntheticCamera(itertools.cycle([10, 60, 110]), rate=300))
        return opened[text][-1]

    with Cameras(recognizer, ["a", "b"], 1, opener=opener) as cameras:
        assert [camera.state for camera in cameras] == ["stopped", "stopped"]
        cameras.start()
        wait_until(lambda: all(camera.statistics().windows > 3 for camera in cameras))
        cameras.stop(0)
        frames, other_frames = cameras[0].statistics().frames, cameras[1].statistics().frames
        wait_until(lambda: cameras[1].statistics().frames > other_frames + 5)
        assert cameras[0].state == "stopped" and cameras[0].statistics().frames == frames
        cameras.start(0)
        cameras.start(1)  # goes on as it is
        wait_until(lambda: cameras[0].statistics().frames > frames + 5)
        assert len(opened["a"]) == 2 and len(opened["b"]) == 1
    assert all(source.closed.is_set() for sources in opened.values() for source in sources)
    with pytest.raises(UsageError, match="closed"):
        cameras.start()


def test_a_camera_stopped_while_it_opens_is_closed_unseen(recognizer):
    go_on, source = threading.Event(), SyntheticCamera(itertools.cycle([10]))

    def opener(text, on_message):
        go_on.wait(60)
        return source

    with Cameras(recognizer, ["slow"], opener=opener) as cameras:
        cameras.start()
        stopping = threading.Thread(target=cameras.stop)
        stopping.start()
        wait_until(lambda: cameras[0]._run.stopped)
        go_on.set()
        stopping.join(60)
        assert source.closed.is_set() and cameras[0].statistics().frames == 0 and cameras[0].state == "stopped"


def test_an_engine_that_fails_ends_all_and_is_reported(tmp_path):
    with load(write_bundle(tmp_path / "b", fails_after=3)) as recognizer:
        sources = {name: SyntheticCamera(itertools.cycle([10]), rate=300) for name in "ab"}
        cameras = Cameras(recognizer, list(sources), 1, opener=opener_of(sources))
        cameras.start()
        wait_until(lambda: all(camera.state == "failed" for camera in cameras))
        assert cameras[1].message == "the engine broke"
        for call in (cameras.check, cameras.start, cameras.close):
            with pytest.raises(BundleError, match="the engine broke"):
                call()
        assert all(source.closed.is_set() for source in sources.values())


def test_wrong_options_are_refused_and_passwords_kept(recognizer):
    with pytest.raises(UsageError, match="source"):
        Cameras(recognizer, [])
    with pytest.raises(UsageError, match="hop"):
        Cameras(recognizer, ["0"], hop=0)
    with Cameras(recognizer, ["rtsp://robot:secret@host/stream"]) as cameras:
        assert len(cameras) == 1 and cameras[0].name == "rtsp://host/stream"
        for change in (cameras.start, cameras.stop):
            with pytest.raises(UsageError, match="no camera 1"):
                change(1)
