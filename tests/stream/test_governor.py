"""The governor goes down when a stream is over its budget and up when it is well under, and says why."""

import json
import multiprocessing
import threading
import time

import numpy as np
import pytest
from brightness_engine import BrightnessEngine
from bundles import FRAMES, grey, make_manifest, write_bundle

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import load
from vmp_edge.stream import stream as streams
from vmp_edge.stream.governor import Budget, CpuMeter, Governor, Level, ladder, worthwhile
from vmp_edge.stream.stream import Stream

MS = 1e-3


class Load:
    """A stream's windows in simulated time. Functions of the level say what each window takes."""

    def __init__(self, governor, latency=lambda level: 10 * MS, cpu=None, period=0.1):
        self.governor, self.latency, self.cpu, self.period = governor, latency, cpu, period
        self.now, self.decisions = 0.0, []

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            level = self.governor.level
            self.now += self.period
            share = self.cpu(level) if self.cpu is not None else None
            decision = self.governor.update(self.now, self.latency(level), share)
            if decision is not None:
                self.decisions.append(decision)
        return [(decision.before, decision.after, decision.cause) for decision in self.decisions]


def make(latency=50 * MS, cpu=None, levels=None):
    return Governor(Budget(latency, cpu), levels or ladder(4))


def test_the_ladder_takes_variants_first_then_rarer_windows_then_another_spacing():
    assert ladder(4) == (Level(4), Level(8), Level(16), Level(16, 2))
    levels = ladder(2, ("full", "small"))
    assert levels[:3] == (Level(2, 1, "full"), Level(2, 1, "small"), Level(4, 1, "small"))
    assert levels[-1] == Level(8, 2, "small")


def test_variants_that_a_cheaper_one_outdoes_are_left_out():
    tops = {"a": 0.92, "b": 0.74, "c": 0.8, "d": 0.8, "e": 0.5}
    assert worthwhile({name: {"top1": top1} for name, top1 in tops.items()}) == ["a", "d", "e"]
    assert worthwhile({"a": {}, "b": {}}) == ["a", "b"] and worthwhile({}) == []


def test_within_the_budget_nothing_is_decided():
    assert Load(make(), lambda level: 49 * MS).run(600) == []


def test_over_the_latency_it_steps_down_until_it_fits():
    load = Load(make(), lambda level: 400 * MS / level.hop)
    assert load.run(10) == [(0, 1, "latency")]
    decision = load.decisions[0]
    assert decision.time <= 0.5, "within a few windows"
    assert decision.latency == pytest.approx(0.1) and decision.level == Level(8)


def test_one_late_window_is_an_accident():
    governor = make()
    for index in range(100):
        assert governor.update(index, 500 * MS if index in (0, 40) else 10 * MS) is None


def test_load_that_comes_and_goes_takes_the_level_down_and_up_again():
    load = Load(make(), lambda level: 20 * MS)
    load.run(20)
    load.latency = lambda level: 80 * MS * 4 / level.hop
    load.run(20)
    assert load.governor.number == 1
    load.latency = lambda level: 20 * MS
    assert load.run(30) == [(0, 1, "latency"), (1, 0, "relief")]
    assert 5.0 <= load.decisions[1].time - 40 <= 10.0, "slowly"


def test_it_does_not_go_up_when_only_a_little_under():
    load = Load(make(), lambda level: 80 * MS if level.hop == 4 else 45 * MS)
    assert load.run(600) == [(0, 1, "latency")]


def test_each_try_that_fails_makes_the_next_one_wait_longer():
    load = Load(make(), lambda level: 80 * MS if level.hop == 4 else 20 * MS, period=0.3)
    load.run(3600)
    tries = [decision.time for decision in load.decisions if decision.cause == "relief"]
    waits = np.diff(tries)
    assert (np.diff(waits) >= -0.4).all() and waits[0] >= 10 and waits[-1] >= 300
    late = sum(decision.after == 0 for decision in load.decisions)
    assert late <= 20, "an hour of trying costs a few windows"


def test_after_a_try_that_held_it_is_quick_again():
    load = Load(make(), lambda level: 80 * MS if level.hop == 4 else 20 * MS)
    load.run(600)
    load.latency = lambda level: 20 * MS
    load.run(600)
    assert load.governor.number == 0
    load.latency = lambda level: 80 * MS if level.hop == 4 else 20 * MS
    load.run(2)
    load.latency = lambda level: 20 * MS
    before = load.now
    load.run(30)
    assert load.decisions[-1].cause == "relief" and load.decisions[-1].time - before <= 10


def test_the_share_of_the_cpu_counts_too_and_going_up_reckons_with_rarer_windows():
    load = Load(make(None, 0.5), cpu=lambda level: 3.2 / level.hop)
    assert load.run(60) == [(0, 1, "cpu")], "at 8 frames it is 40%; going up would make 80% of it"
    load.cpu = lambda level: 1.6 / level.hop
    assert load.run(60)[1:] == [(1, 0, "relief")]


def test_with_nothing_cheaper_left_it_says_so_once():
    load = Load(make(), lambda level: 90 * MS)
    changes = load.run(120)
    assert changes == [*((n, n + 1, "latency") for n in range(3)), (3, 3, "latency")]
    assert "cheapest" in str(load.decisions[-1])


def test_decisions_are_written_in_words_and_in_json():
    load = Load(make(50 * MS, 0.5), lambda level: 400 * MS / level.hop, lambda level: 0.25)
    load.run(10)
    record = json.loads(json.dumps(load.decisions[0].to_dict()))
    assert record["decision"] == "latency" and record["latency_ms"] == 100.0 and record["budget_ms"] == 50.0
    assert (record["cpu"], record["max_cpu"]) == (0.25, 0.5)
    assert (record["before"], record["after"], record["hop"], record["slower"], record["variant"]) == (0, 1, 8, 1, None)
    assert str(load.decisions[0]) == (
        "governor: latency 100.0 ms of 50 ms, CPU 25% of 50%; level 0 to 1: every 8 frames"
    )


@pytest.mark.parametrize(
    "budget", [{"latency": 0}, {"latency": float("nan")}, {"cpu": 0}, {"cpu": 1.1}, {"cpu": float("nan")}]
)
def test_budgets_that_make_no_sense_are_refused(budget):
    with pytest.raises(UsageError):
        Budget(**budget)


def test_no_levels_are_refused():
    with pytest.raises(UsageError, match="level"):
        Governor(Budget(1.0), ())


def test_the_cpu_meter_gives_the_share_of_all_cores():
    now = {"wall": 100.0, "cpu": 7.0}
    meter = CpuMeter(1.0, lambda: now["wall"], lambda: now["cpu"], cpus=4)
    now.update(wall=100.5, cpu=7.5)
    assert meter.sample() is None
    now.update(wall=102.0, cpu=9.0)
    assert meter.sample() == pytest.approx(2 / 8)
    assert meter.sample() is None
    now.update(wall=104.0)
    assert meter.sample() == 0.0


# In a stream


class SlowEngine:
    """Makes every run of the engine take `takes` seconds of a simulated clock."""

    def __init__(self, monkeypatch):
        self.now, self.takes = 1000.0, 0.01
        run = BrightnessEngine.run

        def slow(engine, video):
            self.now += self.takes
            return run(engine, video)

        monkeypatch.setattr(BrightnessEngine, "run", slow)
        clock = type("time", (), {"monotonic": lambda: self.now, "perf_counter": lambda: self.now})
        monkeypatch.setattr(streams, "time", clock)


@pytest.fixture
def engine(monkeypatch):
    return SlowEngine(monkeypatch)


class Feed:
    """Pushes 30 frames a second of the engine's clock."""

    def __init__(self, stream, engine):
        self.stream, self.engine, self.sent = stream, engine, 0

    def push(self, count):
        predictions = []
        for _ in range(count):
            self.engine.now = max(self.engine.now, 1000 + self.sent / 30)
            prediction = self.stream.push(grey(self.sent * 3 % 250), self.sent / 30)
            self.sent += 1
            predictions += [prediction] if prediction is not None else []
        return predictions


@pytest.mark.parametrize("spacing", [{"stride": 1}, {"stride": 3}, {"fps": 15.0}])
def test_a_stream_recognises_as_the_level_says(recognizer, engine, spacing):
    decisions = []
    governor = make(50 * MS, levels=ladder(2))
    stream = Stream(recognizer, 2, smoothing=None, governor=governor, on_decision=decisions.append, **spacing)
    feed = Feed(stream, engine)
    feed.push(60)
    assert decisions == [] and stream.window.hop == 2
    engine.takes = 80 * MS
    feed.push(200)
    assert [decision.after for decision in decisions] == [1, 2, 3, 3]
    assert stream.statistics().level == 3 and stream.window.hop == 8
    predictions = feed.push(80)
    assert set(np.diff([prediction.frame for prediction in predictions])) == {8}
    engine.takes = 10 * MS
    feed.push(1500)
    assert [decision.after for decision in decisions[4:]] == [2, 1, 0]
    assert stream.statistics().dropped == 0
    predictions = feed.push(60)
    assert set(np.diff([prediction.frame for prediction in predictions])) == {2}


def test_windows_of_a_slower_level_are_the_frames_further_apart(recognizer, engine):
    governor = make(50 * MS, levels=(Level(1), Level(1, 3)))
    stream = Stream(recognizer, 1, stride=2, smoothing=None, governor=governor)
    feed = Feed(stream, engine)
    engine.takes = 80 * MS
    feed.push(40)
    assert governor.number == 1
    last = feed.push(1)[0]
    values = [last.frame - 6 * index for index in range(FRAMES - 1, -1, -1)]
    expected = recognizer.predict(np.stack([grey(value * 3 % 250) for value in values]))
    np.testing.assert_array_equal(last.scores, expected.scores)


@pytest.fixture
def small(tmp_path):
    """A variant with fewer and smaller frames, which recognises another label, so that tests can tell it apart."""
    model = {"num_classes": 3, "num_frames": 3, "image_size": 8}
    manifest = make_manifest(name="small", model=model, frames=3, preprocessing=Preprocessing(8))
    with load(write_bundle(tmp_path / "small", manifest, gain=0.0, offset=9.0)) as recognizer:
        yield recognizer


def test_a_variant_takes_over_and_hands_back_and_counts_go_on(recognizer, small, engine):
    governor = make(50 * MS, levels=ladder(2, (None, "small"))[:2])
    stream = Stream(recognizer, stride=1, smoothing=None, governor=governor, variants={"small": small})
    feed = Feed(stream, engine)
    assert {prediction.label for prediction in feed.push(30)} != {"steady"}
    engine.takes = 80 * MS
    feed.push(12)
    assert governor.number == 1 and stream.recognizer is small and stream.window.frames == 3
    predictions = feed.push(20)
    assert {prediction.label for prediction in predictions} == {"steady"}
    assert predictions[-1].frame >= 60 and stream.statistics().frames == 62
    engine.takes = 10 * MS
    feed.push(400)
    assert governor.number == 0 and stream.recognizer is recognizer
    assert stream.statistics().frames == 462 and stream.statistics().dropped == 0
    assert feed.push(2)[0].frame in (462, 463)


@pytest.mark.parametrize("spacing, expected", [({"stride": 3}, 4), ({"fps": 12.0}, 9.0)])
def test_a_variant_with_fewer_frames_spans_the_same_time(recognizer, small, engine, spacing, expected):
    governor = make(50 * MS, levels=(Level(1, 1, "small"), Level(1)))
    window = Stream(recognizer, governor=governor, variants={"small": small}, **spacing).window
    assert (window.frames, window.stride or window.fps) == (3, expected)


def test_closing_while_a_variant_takes_over_does_not_hang(recognizer, small):
    levels = (Level(1), Level(1, 1, "small"))
    stream = Stream(recognizer, stride=1, governor=make(1e-9, levels=levels), variants={"small": small}).start()
    closer = threading.Thread(target=stream.close, daemon=True)
    BrightnessEngine.gate.clear()
    try:
        for index in range(FRAMES):
            stream.feed(grey(index), index)
        closer.start()
    finally:
        BrightnessEngine.gate.set()
    closer.join(timeout=60)
    assert not closer.is_alive()


def test_variants_must_be_there_and_recognise_the_same(recognizer, small, tmp_path):
    levels = ladder(2, (None, "small"))
    with pytest.raises(UsageError, match="'small'"):
        Stream(recognizer, governor=make(levels=levels))
    manifest = make_manifest(labels=("a", "b", "c"))
    with load(write_bundle(tmp_path / "other", manifest)) as strange, pytest.raises(UsageError, match="other labels"):
        Stream(recognizer, governor=make(levels=levels), variants={"small": strange})


def test_skipped_windows_do_not_count_as_fast_ones(recognizer, engine):
    from vmp_edge.stream.motion import MotionGate

    governor = make(50 * MS, levels=ladder(1))
    stream = Stream(recognizer, stride=1, governor=governor, gate=MotionGate(settle=0))
    engine.takes = 80 * MS
    for index in range(60):
        stream.push(grey(100), index / 30)
    assert governor.number == 0 and stream.statistics().windows == 1


# Under a real load


def burn(stop):
    while not stop.is_set():
        sum(range(20000))


def test_under_a_cpu_hog_a_cheaper_variant_brings_the_latency_back(tmp_path, monkeypatch):
    """Real work, and real processes that take the cores: the governor chooses the cheaper variant and stays with it."""

    def work(engine, video):
        for _ in range(200 if engine.gain else 4):
            np.linalg.norm(np.arange(20000, dtype=np.float64).reshape(100, 200) @ np.ones((200, 50)))
        return np.zeros((1, 3), np.float32)

    monkeypatch.setattr(BrightnessEngine, "run", work)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with load(write_bundle(tmp_path / "full")) as full, load(write_bundle(tmp_path / "small", gain=0.0)) as cheap:
        calm = Stream(full, hop=1, stride=1)
        for index in range(20):
            calm.push(grey(index), index)
        decisions = []
        governor = Governor(Budget(latency=0.5 * calm.statistics().latency_p50), ladder(1, (None, "small"))[:2])
        stream = Stream(full, stride=1, governor=governor, variants={"small": cheap}, on_decision=decisions.append)
        hogs = [context.Process(target=burn, args=(stop,), daemon=True) for _ in range(2)]
        for hog in hogs:
            hog.start()
        try:
            deadline = time.monotonic() + 60
            latencies = []
            while len(latencies) < 40 and time.monotonic() < deadline:
                prediction = stream.push(grey(len(latencies)))
                latencies += [prediction.latency] if prediction is not None else []
        finally:
            stop.set()
            for hog in hogs:
                hog.join(timeout=30)
    assert decisions and decisions[0].cause == "latency" and decisions[0].latency > governor.budget.latency
    assert np.median(latencies[-20:]) < np.median(latencies[:4])
