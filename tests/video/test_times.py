"""The times of a file's frames: its own, and mended ones where its own make no sense."""

import itertools
from fractions import Fraction

import pytest

from vmp_edge.video.times import FrameTimes

RATE = 10


def seconds(ticks, length=None, missing=None):
    times = FrameTimes(RATE, Fraction(1, 1000), length)
    return [times.next(tick, (missing or {}).get(i, 0)) for i, tick in enumerate(ticks)]


def test_own_times_count_from_the_first_frame():
    assert seconds([1533, 1633, 1900, 1901]) == pytest.approx([0, 0.1, 0.367, 0.368])


def test_frames_without_times_follow_the_rate():
    assert seconds([None] * 4) == [0, 0.1, 0.2, 0.3]
    assert seconds([None] * 3, missing={1: 4}) == [0, 0.5, 0.6], "frames that cannot be decoded take time, too"
    assert seconds([0, 100, None, None, 400]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert seconds([None, None, 700, 850]) == pytest.approx([0, 0.1, 0.2, 0.35])


def test_times_that_never_advance_follow_the_rate():
    times = seconds([0] * 50)
    assert all(after > before for before, after in itertools.pairwise(times))
    assert times[-1] == pytest.approx(4.9, abs=0.06)


def test_one_frame_with_a_wrong_time_does_not_move_the_others():
    assert seconds([0, 100, 0, 300, 400]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert seconds([0, 100, 10**9, 300, 400]) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert seconds([0, 100, 100, 200, 300]) == pytest.approx([0, 0.1, 0.15, 0.2, 0.3])


@pytest.mark.parametrize("jump", [-(2**33) // 90, 10**8, -1000])
def test_joined_recordings_and_counters_that_start_again_go_on(jump):
    ticks = [*range(0, 1000, 100), *range(1000 + jump, 2000 + jump, 100)]
    assert seconds(ticks) == pytest.approx([i / 10 for i in range(20)])


def test_a_long_gap_that_the_files_length_allows_is_no_jump():
    assert seconds([0, 100, 500_000, 500_100], length=500.2) == pytest.approx([0, 0.1, 500, 500.1])
    assert seconds([0, 100, 500_000, 500_100]) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert seconds([0, 100, 30_000]) == pytest.approx([0, 0.1, 30]), "half a minute is a gap"
