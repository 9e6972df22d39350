"""`vmp-edge bench` measures the engine and the stream."""

from commands import last_json, run


def test_bench_measures(capsys, bundle):
    code, out, err = run(capsys, "bench", bundle, "--windows", 5, "--warmup", 1, "--json")
    result = last_json(out)
    assert code == 0
    assert 0 < result["engine_ms"]["p50"] <= result["engine_ms"]["p95"]
    assert 0 < result["stream_ms"]["p50"] <= result["stream_ms"]["p95"]
    assert result["frames_per_second"] > 0 and result["startup_s"] > 0 and result["peak_memory_mb"] > 1
    assert any(line.startswith("engine: 1 + 5 windows") for line in err), "progress"
    assert any("frames per second" in line for line in out)
