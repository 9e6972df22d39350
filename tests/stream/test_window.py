"""A window takes the frames that its spacing and its sampling say."""

import numpy as np
import pytest

from vmp_edge.errors import UsageError
from vmp_edge.stream.window import Window, spread


def test_stride_takes_every_so_many_th_frame():
    window = Window(4, stride=3)
    assert window.capacity == 10
    assert window.select([0.0] * 9) is None
    assert window.select([0.0] * 10) == [0, 3, 6, 9]
    assert window.select([0.0] * 12) == [2, 5, 8, 11]


def nearest(times, moments):
    return [min(range(len(times)), key=lambda i: (abs(times[i] - time), times[i])) for time in moments]


@pytest.mark.parametrize("seed", range(20))
def test_fps_takes_the_frames_nearest_in_time(seed):
    rng = np.random.default_rng(seed)
    fps, camera = rng.uniform(2, 40), rng.uniform(2, 120)
    times = np.cumsum(rng.uniform(0.5, 1.5, 300) / camera).tolist()
    window = Window(8, stride=None, fps=fps)
    indices = window.select(times)
    moments = [times[-1] - index / fps for index in range(7, -1, -1)]
    if times[0] > moments[0] + 0.05 / fps:
        assert indices is None
    else:
        times_taken = np.array(times)[indices]
        best = np.array(times)[nearest(times, moments)]
        np.testing.assert_allclose(np.abs(times_taken - moments), np.abs(best - moments), atol=1e-9)
        assert indices[-1] == len(times) - 1


def test_fps_waits_until_the_frames_reach_back_far_enough():
    window = Window(4, stride=None, fps=10.0)
    times = [index / 30 for index in range(20)]
    ready = [window.select(times[: n + 1]) is not None for n in range(20)]
    assert ready.index(True) == 9  # 0.3 s lie between the first and the tenth
    assert all(ready[9:])
    assert window.select([]) is None
    assert Window(1, stride=None, fps=10.0).select([5.0]) == [0]


def test_a_slow_camera_repeats_frames():
    assert Window(6, stride=None, fps=25.0).select([0.0, 0.1, 0.2]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"frames": 0},
        {"frames": 4, "stride": 0},
        {"frames": 4, "hop": 0},
        {"frames": 4, "fps": 10.0},
        {"frames": 4, "stride": None},
        {"frames": 4, "stride": None, "fps": 0.0},
        {"frames": 4, "stride": None, "fps": float("nan")},
        {"frames": 4, "sampling": "newest"},
    ],
)
def test_impossible_windows_are_refused(options):
    with pytest.raises(UsageError):
        Window(**options)


# Sampling


@pytest.mark.parametrize("frames, stride", [(1, 3), (2, 4), (4, 1), (8, 2), (8, 5), (16, 3)])
def test_recent_takes_the_same_span_and_frames_closer_towards_the_present(frames, stride):
    window = Window(frames, stride=stride, sampling="recent")
    assert window.capacity == Window(frames, stride=stride).capacity
    indices = window.select([0.0] * window.capacity)
    assert indices[0] == 0 and indices[-1] == window.capacity - 1
    steps = np.diff(indices)
    assert (steps >= 1).all() and (np.diff(steps) <= 1).all()
    if stride > 2:
        assert frames <= 2 or steps[0] > stride > steps[-1]


def test_recent_by_fps_does_so_in_time():
    window = Window(8, stride=None, fps=10.0, sampling="recent")
    times = [index / 100 for index in range(100)]
    back = 0.99 - np.array(times)[window.select(times)]
    np.testing.assert_allclose(back, 0.7 * (np.arange(7, -1, -1) / 7) ** 1.5, atol=0.0051)
    assert window.min_spacing < np.diff(-back).min()


def test_motion_takes_frames_where_something_changes():
    changes = [0.0] * 40 + [10.0] * 10 + [0.0] * 50
    indices = Window(8, stride=14, sampling="motion").select(list(np.arange(100) / 30), changes)
    assert indices[0] == 1 and indices[-1] == 99
    assert sum(38 <= index <= 50 for index in indices) >= 5
    assert max(np.diff(indices)) <= 4 * 14 + 1


def test_motion_without_any_is_equally_spaced():
    times = list(np.arange(50) / 30)
    uniform = Window(8, stride=7).select(times)
    window = Window(8, stride=7, sampling="motion")
    assert window.select(times, [0.0] * 50) == window.select(times, [5.0] * 50) == uniform == window.select(times)


def test_motion_of_a_camera_too_slow_for_the_window_repeats_frames_as_ever():
    window = Window(6, stride=None, fps=25.0, sampling="motion")
    assert window.select([0.0, 0.1, 0.2], [0.0, 9.0, 1.0]) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("seed", range(50))
def test_no_frame_is_chosen_twice_whatever_changes(seed):
    random = np.random.default_rng(seed)
    frames, available = int(random.integers(2, 17)), int(random.integers(17, 60))
    times = np.cumsum(random.choice([0.0, 0.03, 0.5], available))
    changes = random.choice([0.0, 1.0, 1e6], available)
    indices = spread(list(times), list(changes), frames)
    assert len(indices) == frames and (np.diff(indices) >= 1).all()
    assert indices[0] == 0 and indices[-1] == available - 1
