"""The meter and the gate tell motion from stillness and from noise, and the gate does not flicker."""

import numpy as np
import pytest
from bundles import FRAMES, grey

from vmp_edge.errors import UsageError
from vmp_edge.stream.motion import MotionGate, MotionMeter
from vmp_edge.stream.stream import Stream


def scene(seed=0, height=120, width=160):
    return np.random.default_rng(seed).integers(30, 220, (height, width, 3)).astype(np.uint8)


def measures(frames, rate=30):
    meter = MotionMeter()
    return [meter.measure(frame, index / rate) for index, frame in enumerate(frames)]


def test_a_still_picture_does_not_change():
    assert measures([scene()] * 6) == [0.0] * 6


@pytest.mark.parametrize("size", [(1, 1), (20, 7), (33, 32), (300, 500)])
def test_frames_of_any_size_are_measured_in_grey_levels(size):
    changes = measures([grey(100, *size), grey(110, *size)])
    assert changes == [0.0, pytest.approx(10)]


def test_what_moves_in_a_corner_counts_as_much_as_a_whole_scene():
    frames = [scene() for _ in range(2)]
    frames[1][:30, :40] = 255 - frames[1][:30, :40]
    corner = measures(frames)[1]
    whole = measures([scene(), 255 - scene()])[1]
    assert corner > 0.5 * whole > 0


def test_noise_is_averaged_away():
    random = np.random.default_rng(1)
    noisy = [np.clip(scene(2) + random.normal(0, 6, (120, 160, 3)), 0, 255).astype(np.uint8) for _ in range(10)]
    assert max(measures(noisy)) < 3.0  # the default threshold


def test_what_moves_slowly_is_compared_over_a_tenth_of_a_second():
    assert measures([grey(100 + index) for index in range(9)], rate=30)[-1] == pytest.approx(3)
    assert measures([grey(100 + index) for index in range(9)], rate=5)[-1] == pytest.approx(1)
    assert measures([grey(100 + index) for index in range(60)], rate=1000)[-1] <= 32, "memory is bounded"


def test_a_meter_that_was_reset_starts_anew():
    meter = MotionMeter()
    meter.measure(grey(0), 100.0)
    meter.reset()
    assert meter.measure(grey(200), 0.0) == 0.0


# The gate


def drive(gate, values, step=0.1):
    return [gate.skips(value, index * step) for index, value in enumerate(values)]


def test_windows_are_skipped_once_all_has_been_still_for_a_while():
    assert drive(MotionGate(3.0, settle=2), [9, 9, 0, 0, 0, 0, 9, 0, 0, 0]) == [
        *(False, False, False, False, True, True),
        *(False, False, False, True),
    ]


def test_between_half_the_threshold_and_the_whole_it_stays_as_it_was():
    gate = MotionGate(4.0, settle=0)
    assert drive(gate, [9, 3, 3, 0, 3, 3.9, 9, 3]) == [False, False, False, True, True, True, False, False]


def test_steady_noise_is_learnt_and_louder_motion_still_seen():
    gate = MotionGate(3.0, settle=0)
    skipped = drive(gate, [3.5] * 1200)
    assert not any(skipped[:100]) and all(skipped[-100:])
    assert gate.skips(7.5, 121.0) is False


def test_the_floor_never_rises_far_and_falls_fast():
    gate = MotionGate(3.0, settle=0)
    assert not any(drive(gate, [30.0] * 6000)), "ten minutes of action are no noise"
    assert gate.floor == pytest.approx(6.0)
    drive(gate, [0.0] * 100)
    assert gate.floor < 0.1


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": float("nan")}, {"threshold": 1, "settle": -1}])
def test_gates_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError, match="motion gate"):
        MotionGate(**options)


# In a stream


def still_then_moving(recognizer, **options):
    stream = Stream(recognizer, hop=2, stride=1, gate=MotionGate(3.0, settle=2), **options)
    frames = [grey(value) for value in [*range(0, 200, 10), *[200] * 40, *range(200, 0, -10)]]
    return stream, [p for i, frame in enumerate(frames) if (p := stream.push(frame, i / 30)) is not None]


def test_still_windows_are_not_recognised_and_are_marked(recognizer):
    stream, predictions = still_then_moving(recognizer, smoothing=None)
    skipped = [prediction.frame for prediction in predictions if prediction.skipped]
    assert skipped and min(skipped) >= 20 + FRAMES and max(skipped) < 60
    assert np.diff(skipped).tolist() == [2] * (len(skipped) - 1), "in one piece"
    statistics = stream.statistics()
    assert (statistics.skipped, statistics.windows) == (len(skipped), len(predictions) - len(skipped))
    assert statistics.dropped == 0
    assert recognizer._engine.runs == statistics.windows


def test_the_result_that_stays_is_that_of_the_still_scene(recognizer):
    _stream, predictions = still_then_moving(recognizer, smoothing=None)
    skipped = [prediction for prediction in predictions if prediction.skipped]
    assert {prediction.label for prediction in skipped} == {"steady"}
    assert predictions[0].label == "brighter" and predictions[-1].label == "darker" and not predictions[-1].skipped
    assert skipped[-1].timestamp == skipped[-1].frame / 30 and (skipped[-1].scores == skipped[0].scores).all()


def test_the_first_window_and_the_first_after_a_reset_are_recognised(recognizer):
    stream = Stream(recognizer, hop=1, stride=1, gate=MotionGate(3.0, settle=0))
    for _ in range(2):
        predictions = [p for i in range(10) if (p := stream.push(grey(50), i / 30)) is not None]
        assert [prediction.skipped for prediction in predictions] == [False, *[True] * (9 - FRAMES + 1)]
        stream.reset()


def test_without_a_gate_nothing_is_skipped(recognizer):
    stream = Stream(recognizer, hop=1, stride=1)
    assert not any((p := stream.push(grey(50), i / 30)) is not None and p.skipped for i in range(30))
    assert stream.statistics().skipped == 0
