"""`vmp-edge bench` measures the engine and the stream."""

import pytest
from commands import last_json, run

from vmp_edge import contention


def test_bench_measures(capsys, bundle):
    code, out, err = run(capsys, "bench", bundle, "--windows", 5, "--warmup", 1, "--json")
    result = last_json(out)
    assert code == 0
    assert 0 < result["engine_ms"]["p50"] <= result["engine_ms"]["p95"]
    assert 0 < result["stream_ms"]["p50"] <= result["stream_ms"]["p95"]
    assert result["frames_per_second"] > 0 and result["startup_s"] > 0 and result["peak_memory_mb"] > 1
    assert any(line.startswith("engine: 1 + 5 windows") for line in err), "progress"
    assert any("frames per second" in line for line in out)


@pytest.mark.parametrize(("share", "said"), [(0.0, False), (0.5, True)])
def test_bench_says_when_the_machine_was_busy(capsys, bundle, monkeypatch, share, said):
    monkeypatch.setattr(contention.OtherLoad, "share", lambda self: share)
    code, out, _ = run(capsys, "bench", bundle, "--windows", 3, "--warmup", 0, "--threads", 1, "--json")
    result = last_json(out)
    assert code == 0 and result["other_load"] == share and result["threads"] == 1 and result["cpu"]
    assert any("busy machine; not a claim: other programs took 50.0%" in line for line in out) == said
    assert any("1 thread" in line for line in out) and any("half of the runs" in line for line in out)
    assert result["engine_ms"]["p25"] <= result["engine_ms"]["p50"] <= result["engine_ms"]["p75"]
