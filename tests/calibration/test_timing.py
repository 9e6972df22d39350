"""Models are timed in turns, and only a quiet measurement is a claim."""

import numpy as np
import pytest

from vmp_edge.calibration import timing
from vmp_edge.calibration.timing import Speed, Timing, in_turns


class Clock:
    """Time that passes only while a model runs."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def __call__(self):
        return self.now

    def model(self, name, *seconds):
        """A model whose runs take these seconds in turn, after the untimed one."""
        runs = 0

        def run():
            nonlocal runs
            self.now += seconds[(runs - 1) % len(seconds)] if runs else 100.0
            runs += 1
            self.order.append(name)

        return run


class Load:
    """The load of other programs."""

    def __init__(self, share=0.01):
        self._share = share

    def share(self):
        return self._share


def times(*seconds, load=0.01):
    """A timing of these seconds, three times over."""
    return Timing(np.tile(seconds, 3), load)


def test_models_take_turns_and_the_first_runs_do_not_count():
    clock = Clock()
    first, second = in_turns([clock.model("a", 0.1), clock.model("b", 0.3)], 10, 60.0, clock=clock, load=Load)
    assert "".join(clock.order) == "ab" + "abba" * 5
    assert first.seconds == pytest.approx([0.1] * 10) and second.seconds == pytest.approx([0.3] * 10)
    assert first.other_load == 0.01


@pytest.mark.parametrize(
    ("seconds", "rounds"),
    [(25.0, timing.FEWEST_ROUNDS), (2.0, timing.LEAST_ROUNDS), (0.5, 21), (0.01, 100), (0.0001, timing.MOST_ROUNDS)],
)
def test_slow_models_get_fewer_rounds_and_fast_ones_more(seconds, rounds):
    clock = Clock()
    (only,) = in_turns([clock.model("a", seconds)], clock=clock, load=Load)
    assert len(only.seconds) == pytest.approx(rounds, abs=1)


def test_quartiles_and_range():
    values = times(0.001, 0.002, 0.003, 0.004, 0.005, load=None)
    assert values.quartiles == (0.002, 0.003, 0.004)
    assert values.to_dict() == {
        "rounds": 15,
        "quartiles_ms": [2.0, 3.0, 4.0],
        "range_ms": [1.0, 5.0],
        "other_load": None,
        "doubt": "measured on a machine that does not tell how busy it was; not a claim",
    }


def test_a_quiet_measurement_is_a_claim():
    speed = Speed.of(times(0.010, 0.011, 0.010, 0.010), times(0.0132, 0.0143, 0.0133, 0.0132))
    assert speed.quartiles[1] == pytest.approx(1.31, abs=0.02) and speed.claim == "1.32 times as fast"
    same = Speed.of(times(0.010, 0.010, 0.010), times(0.0099, 0.010, 0.0101))
    assert same.claim == "about as fast"
    assert Speed.of(times(0.01, 0.01, 0.01), times(0.005, 0.005, 0.005)).claim == "0.500 times as fast"


@pytest.mark.parametrize(
    ("load", "ratios", "threads", "words"),
    [
        (0.4, (2.0, 2.0, 2.0), True, "busy machine; not a claim: other programs took 40.0% of the CPUs"),
        (0.0, (1.0, 2.0, 3.0), True, "measured unevenly; not a claim: the middle half of the ratios spans 100.0%"),
        (None, (2.0, 2.0, 2.0), True, "does not tell how busy it was; not a claim"),
        (0.0, (2.0, 2.0, 2.0), False, "numbers of threads that may differ; not a claim"),
    ],
    ids=["busy", "uneven", "unknown", "threads"],
)
def test_a_disturbed_measurement_is_no_claim(load, ratios, threads, words):
    speed = Speed.of(times(1.0, 1.0, 1.0, load=load), times(*ratios, load=load), threads)
    assert speed.claim is None and words in speed.doubt
    assert speed.to_dict()["doubt"] == speed.doubt and speed.quartiles[1] == 2.0


def test_few_rounds_are_no_claim():
    few = Timing(np.ones(3), 0.0)
    assert few.doubt == "measured in 3 rounds, which are few; not a claim" == Speed.of(few, few).doubt


def test_progress_is_shown():
    calls = []

    class Bar:
        def __init__(self, total, desc, unit):
            calls.append((total, desc, unit))

        def update(self, count):
            calls.append(count)

        def close(self):
            calls.append("closed")

    clock = Clock()
    in_turns([clock.model("a", 0.1)], 8, progress=Bar, clock=clock, load=Load)
    assert calls == [(8, "speed", "round"), *[1] * 8, "closed"]
