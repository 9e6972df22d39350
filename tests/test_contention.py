"""How busy other programs are is told from Linux's counters and this process's own time."""

import os

import pytest

from vmp_edge import contention

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def counters(busy):
    """A /proc/stat of two CPUs, each of which has worked for so many seconds, a quarter of them for the system."""
    ticks = int(busy * TICKS)
    rows = [f"cpu{i} {3 * ticks // 4} 0 {ticks - 3 * ticks // 4} 1000 50 0 0 0 0 0" for i in range(2)]
    return "\n".join([f"cpu  {2 * ticks} 0 0 2000 100 0 0 0 0 0", *rows, "intr 1 2 3"]) + "\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that sets the time, the seconds that each of two CPUs worked, and those of this process."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(contention, "_STAT", stat)
    monkeypatch.setattr(contention.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(contention, "usable_cpu_count", lambda: 2)

    def change(now, busy, own):
        stat.write_text(counters(busy))
        monkeypatch.setattr(contention.time, "perf_counter", lambda: now)
        monkeypatch.setattr(contention.os, "times", lambda: (own, 0.0, 0.0, 0.0, now))

    return change


@pytest.mark.parametrize(
    ("own", "share"),
    [(16.0, 0.0), (15.0, 0.05), (8.0, 0.4), (20.0, 0.0)],
    ids=["all its own", "a little", "half", "rounding"],
)
def test_what_is_not_its_own_is_others(machine, own, share):
    machine(100.0, 50.0, 3.0)
    load = contention.OtherLoad()
    machine(110.0, 58.0, 3.0 + own)  # in 10 s of two CPUs, each works 8 s
    assert load.share() == pytest.approx(share)


def test_doubt_is_said_in_words():
    assert contention.doubt(0.05) is None
    assert contention.doubt(0.431) == ("measured on a busy machine; not a claim: other programs took 43.1% of the CPUs")
    assert "does not tell how busy" in contention.doubt(None)


def test_systems_that_do_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(contention, "_STAT", tmp_path / "none")
    assert contention.OtherLoad().share() is None
