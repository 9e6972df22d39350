"""`vmp-edge run`: results, summary, recording, adaptive processing, and how each failure ends."""

import json
import sys
import time

import cv2
import pytest
from brightness_engine import BrightnessEngine
from bundles import grey, make_manifest, write_bundle
from commands import last_json, results_of, run

from vmp_edge.live import Options, play
from vmp_edge.live.filling import FillingWatch
from vmp_edge.stream.window import Window

SMALL = {"num_classes": 3, "num_frames": 4, "image_size": 16, "patch_size": 8, "tubelet_size": 1}


def test_run_recognises_every_window_of_a_file(capsys, bundle, video):
    code, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--json", "--hop", 2)
    results, summary = results_of(out)
    assert code == 0
    assert [result["frame"] for result in results] == list(range(3, 60, 2))
    assert [result["time"] for result in results] == [round(frame / 30, 3) for frame in range(3, 60, 2)]
    labels = {result["frame"]: result["label"] for result in results}
    assert all(labels[frame] == "brighter" for frame in range(3, 30, 2))
    assert all(labels[frame] == "darker" for frame in range(41, 60, 2))
    assert (summary["frames"], summary["windows"], summary["dropped"]) == (60, len(results), 0)
    assert sum(summary["labels"].values()) == len(results) and not summary["interrupted"]
    for result in results:
        assert result["top"][0][1] == max(score for _, score in result["top"])
        assert result["latency_ms"] > 0


def test_run_prints_changes_of_label_and_a_summary(capsys, bundle, video):
    code, out, _ = run(capsys, "run", bundle, "--source", video, "--headless")
    assert code == 0
    assert [line.split()[2] for line in out[:2]] == ["brighter", "darker"]
    assert out[2].startswith("60 frames from") and "shown: brighter" in out[4]


def test_run_stops_where_it_should(capsys, bundle, video):
    for limit in (["--max-frames", 20], ["--duration", 20 / 30]):
        _, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--json", *limit)
        assert last_json(out)["summary"]["frames"] == 20
    code, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--max-frames", 2)
    assert code == 0 and "too few for a window" in out[-1]


def test_run_says_which_windows_it_skipped(capsys, bundle, tmp_path):
    path = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for value in [*range(10, 150, 7), *[150] * 60]:
        writer.write(grey(value, 48, 64))
    writer.release()
    base = ("run", bundle, "--source", path, "--headless", "--motion-gate")
    code, out, _ = run(capsys, *base, "--json")
    results, summary = [json.loads(line) for line in out[:-1]], json.loads(out[-1])["summary"]
    skipped = [line for line in results if "skipped" in line]
    assert code == 0 and 5 <= len(skipped) == summary["skipped"] and all(line["skipped"] is True for line in skipped)
    assert summary["windows"] + summary["skipped"] == len(results)
    assert sum(summary["labels"].values()) == summary["windows"]
    assert any("windows skipped" in line for line in run(capsys, *base)[1])
    assert json.loads(run(capsys, *base[:-1], "--json")[1][-1])["summary"]["skipped"] == 0
    assert json.loads(run(capsys, *base, "1e9", "--json")[1][-1])["summary"]["windows"] <= 6


def test_run_keeps_within_a_budget_and_prints_each_decision(capsys, bundle, video):
    base = ("run", bundle, "--source", video, "--headless", "--realtime", "--hop", 1)
    code, out, _ = run(capsys, *base, "--budget-ms", 0.001, "--json")
    lines = [json.loads(line) for line in out]
    decisions = [line for line in lines if "decision" in line]
    assert code == 0 and decisions and decisions[0]["decision"] == "latency"
    assert [line["after"] for line in decisions][:3] == list(range(1, len(decisions) + 1))[:3]
    assert lines[-1]["summary"]["decisions"] == len(decisions)
    assert all(0 <= line["time"] <= 10 for line in decisions)
    code, _, err = run(capsys, *base, "--budget-ms", 0.001)
    assert code == 0 and any("governor: latency" in line for line in err)


def test_a_budget_needs_a_pace_to_keep(capsys, bundle, video):
    code, _, err = run(capsys, "run", bundle, "--source", video, "--headless", "--max-cpu", "50%")
    assert code == 2 and "--realtime" in err[-1]
    for value in ("fifty", "-3%"):
        assert run(capsys, "run", bundle, "--source", video, "--headless", "--realtime", f"--max-cpu={value}")[0] == 2


@pytest.mark.parametrize("sampling", ["recent", "motion"])
def test_run_samples_as_the_option_says(capsys, bundle, video, sampling):
    options = ("--headless", "--json", "--stride", 3, "--sampling", sampling)
    code, out, _ = run(capsys, "run", bundle, "--source", video, *options)
    assert code == 0 and json.loads(out[-1])["summary"]["windows"] == 13


def test_run_records_with_the_overlay(capsys, bundle, video, tmp_path):
    record = tmp_path / "out.mp4"
    code, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--json", "--record", record)
    assert code == 0 and last_json(out)["summary"]["recorded"] == str(record)
    capture = cv2.VideoCapture(str(record))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 60 and capture.get(cv2.CAP_PROP_FPS) == 30
    capture.set(cv2.CAP_PROP_POS_FRAMES, 20)
    picture = capture.read()[1]
    assert picture.std() > 10, "the file's own frames are grey all over"


def test_run_at_a_files_own_pace_takes_threads(capsys, bundle, video):
    code, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--json", "--realtime")
    results, summary = results_of(out)
    assert code == 0 and summary["frames"] == 60 and summary["seconds"] >= 59 / 30
    assert results and results[0]["label"] == "brighter" and results[-1]["label"] == "darker"


def test_run_drops_frames_when_the_engine_is_too_slow(capsys, bundle, video, monkeypatch):
    engine_run = BrightnessEngine.run

    def slow(self, clip):
        time.sleep(0.5)
        return engine_run(self, clip)

    monkeypatch.setattr(BrightnessEngine, "run", slow)
    _, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--json", "--realtime")
    summary = last_json(out)["summary"]
    assert summary["frames"] == 60 and summary["dropped"] > 10 and summary["windows"] < 10


def test_no_screen_falls_back_to_headless_and_says_so(capsys, bundle, video, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    code, out, err = run(capsys, "run", bundle, "--source", video, "--json")
    assert code == 0 and "pygame" in err[0] and err[0].endswith("running headless")
    assert last_json(out)["summary"]["frames"] == 60


def test_the_window_can_be_closed(capsys, bundle, video, monkeypatch):
    pygame = pytest.importorskip("pygame", reason="the window needs pygame, the extra `display`")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    predictions = []

    def press_q_at_the_third(prediction, seconds):
        predictions.append(prediction)
        if len(predictions) == 3:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))

    for realtime in (False, True):
        predictions.clear()
        options = Options(bundle, str(video), realtime=realtime)
        summary = play(options, press_q_at_the_third, print)
        assert 3 <= summary.windows < 12 and summary.frames < 60 and summary.interrupted is None


def test_a_source_too_slow_for_the_window_gives_a_message(capsys, bundle, video):
    _, _, err = run(capsys, "run", bundle, "--source", video, "--headless", "--fps", 60)
    assert "has 30 frames per second, the window takes 60" in err[0]
    assert run(capsys, "run", bundle, "--source", video, "--headless", "--fps", 30)[2] == []


def test_a_source_that_cannot_be_opened_is_1(capsys, bundle):
    code, _, err = run(capsys, "run", bundle, "--source", "nothing.mp4", "--headless")
    assert code == 1 and "nothing.mp4 does not exist" in err[-1]


def test_an_engine_that_fails_midway_is_1_in_either_way(capsys, tmp_path, video):
    path = write_bundle(tmp_path / "b", fails_after=2)
    for options in ([], ["--realtime"]):
        record = tmp_path / "out.mp4"
        code, out, err = run(
            capsys, "run", path, "--source", video, "--headless", "--json", "--record", record, *options
        )
        assert code == 1 and err[-1] == "vmp-edge: the engine broke" and last_json(out) == {"error": "the engine broke"}
        assert not record.exists() and not list(tmp_path.glob(".out*"))


def test_run_warns_once_of_a_bundle_that_does_not_say_its_sampling(capsys, bundle, video, tmp_path):
    def warnings(path, *options):
        code, _, err = run(capsys, "run", path, "--source", video, "--headless", *options)
        assert code == 0
        return sum("does not say how its frames were sampled in training" in line for line in err)

    def of(folder, **changes):
        return write_bundle(tmp_path / folder, make_manifest(model=dict(SMALL), **changes))

    built = of("built")
    assert warnings(built) == 1
    assert warnings(built, "--stride", 1) == warnings(built, "--fps", 10) == 0
    assert warnings(of("span", span=1.0)) == warnings(of("rate", frame_rate=10.0)) == 0
    assert warnings(of("preset", name="videomamba-tiny")) == 0, "its weights are random"
    assert warnings(bundle) == 0, "it is no model of the family"


def test_run_follows_the_span_of_the_manifest(capsys, video, tmp_path):
    """The video has 60 frames at 30 per second; 4 frames over 1.6 s are 0.4 s apart."""
    path = write_bundle(tmp_path / "span", make_manifest(span=1.6))
    code, out, _ = run(capsys, "run", path, "--source", video, "--headless", "--json", "--hop", 2)
    results, summary = results_of(out)
    assert code == 0 and summary["windows"] == len(results)
    assert [result["frame"] for result in results] == list(range(36, 60, 2))
    long = write_bundle(tmp_path / "long", make_manifest(span=10.0))
    code, out, err = run(capsys, "run", long, "--source", video, "--headless")
    assert code == 0 and "too few for a window" in out[-1]
    assert "a window reaches over 7.5 s, and the source ended before" in err[-1]


def test_run_says_that_a_long_window_is_filling_up(capsys, video, tmp_path):
    path = write_bundle(tmp_path / "long", make_manifest(span=10.0))
    _, out, _ = run(capsys, "run", path, "--source", video, "--headless", "--json")
    assert json.loads(out[0]) == {"time": 0.0, "filling": 0.0, "window_s": 7.5} and len(out) == 2
    _, _, err = run(capsys, "run", path, "--source", video, "--headless")
    assert "0.00 s  a window reaches over 7.5 s, 0% of it is there: results come when it is full" in err[0]
    short = write_bundle(tmp_path / "short", make_manifest(span=1.6))
    _, out, err = run(capsys, "run", short, "--source", video, "--headless", "--json")
    assert not any("filling" in line for line in [*out, *err]), "it is full soon"


def test_the_word_about_a_filling_window_is_said_again(monkeypatch):
    """At the beginning, every ten seconds, and when a source has started again."""

    class Filled:
        window, filled = Window(8, stride=None, fps=0.1), 0.0

    now, said = [0.0], []
    monkeypatch.setattr("vmp_edge.live.filling.time.monotonic", lambda: now[0])
    watch = FillingWatch(Filled, lambda filling: said.append((filling.time, filling.share, filling.reach)))
    for second in range(160):
        now[0], Filled.filled = float(second), min(1.0, second % 100 / 70)
        watch.update(second)
    assert [time for time, _, _ in said] == [0, 10, 20, 30, 40, 50, 60, 100, 110, 120, 130, 140, 150]
    assert said[3] == (30, 30 / 70, 70.0)
    Filled.window = Window(8)
    watch.update(200)
    assert len(said) == 13, "a window of neighbours is full soon"
