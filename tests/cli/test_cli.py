"""The command line: what each command prints, and how each failure ends."""

import http.server
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest
import yaml
from brightness_engine import BrightnessEngine
from bundles import SUPPORT, grey, write_bundle
from processes import heed_interrupts

from vmp_edge import live
from vmp_edge.cli import COMMANDS, main
from vmp_edge.events.clips import ClipOptions
from vmp_edge.events.detector import EventRule
from vmp_edge.live import Options, play
from vmp_edge.sources import Frame

ROOT = Path(__file__).resolve().parents[2]


def run(capsys, *arguments):
    """Runs a command; returns its exit code, its lines on stdout, and on stderr."""
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def last_json(lines):
    return json.loads(lines[-1])


# Every command


def test_help_and_version(capsys):
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert all(f"usage: vmp-edge {command}" in out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["run"], ["bench", "b", "--windows", "many"]])
def test_wrong_usage_is_2(capsys, arguments):
    assert main(arguments) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "bench", "verify", "info"])
def test_no_bundle_is_1_and_one_line(capsys, tmp_path, command):
    code, out, err = run(capsys, command, tmp_path / "nothing")
    assert code == 1 and out == []
    assert [line for line in err if line.startswith("vmp-edge: ")] == err[-1:] and "does not exist" in err[-1]
    code, out, err = run(capsys, command, tmp_path / "nothing", "--json")
    assert code == 1 and last_json(out)["error"] in err[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--hop", "0"],
        ["run", "--fps", "-1"],
        ["run", "--stride", "0"],
        ["run", "--threads", "0"],
        ["run", "--max-frames", "0"],
        ["run", "--duration", "0"],
        ["run", "--smoothing", "-1"],
        ["run", "--record", "a.gif"],
        ["run", "--top", "0"],
        ["bench", "--windows", "0"],
        ["bench", "--hop", "0"],
    ],
)
def test_options_out_of_range_are_2_and_one_line(capsys, bundle, video, arguments):
    command, *options = arguments
    source = ["--source", video, "--headless"] if command == "run" else []
    code, out, err = run(capsys, command, bundle, *source, *options)
    assert code == 2 and out == [] and err[-1].startswith("vmp-edge: ")


def test_a_bug_is_not_swallowed(capsys, bundle, monkeypatch):
    monkeypatch.setattr(BrightnessEngine, "run", lambda self, video: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["verify", str(bundle)])


# info


def test_info(capsys, bundle):
    code, out, _ = run(capsys, "info", bundle)
    text = "\n".join(out)
    assert code == 0
    assert all(word in text for word in ("brightness", "4 frames of 16x16", "brighter, darker, steady", "model.json"))
    code, out, _ = run(capsys, "info", bundle, "--json")
    found = last_json(out)
    assert found["labels"] == ["brighter", "darker", "steady"] and found["path"] == str(bundle)
    assert {key: found[key] for key in yaml.safe_load((bundle / "manifest.yaml").read_text())} == yaml.safe_load(
        (bundle / "manifest.yaml").read_text()
    )


# verify


def test_verify_repeats_the_recorded_output(capsys, bundle):
    code, out, _ = run(capsys, "verify", bundle, "--json")
    found = last_json(out)
    assert code == 0 and found["compared"] and found["max_difference"] <= 1e-6
    assert "is whole" in run(capsys, "verify", bundle)[1][0]


def test_verify_without_a_record_says_so(capsys, tmp_path):
    code, out, _ = run(capsys, "verify", write_bundle(tmp_path / "b"))
    assert code == 0 and "no recorded output" in out[0]


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"seed": 7, "logits": [0.0, 0.0, 1.0]}, "another output"),
        ({"seed": 7, "logits": [0.0, float("nan"), 0.5]}, "another output"),
        ({"seed": 7, "logits": [0.0]}, "wrong parity.check"),
        ({"seed": "x", "logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"logits": [0.0, 0.0, 0.5]}, "wrong parity.check"),
        ({"seed": 7}, "wrong parity.check"),
        (["seed"], "wrong parity.check"),
    ],
)
def test_verify_fails_on_another_output(capsys, bundle, check, told):
    manifest = yaml.safe_load((bundle / "manifest.yaml").read_text())
    manifest["parity"]["check"] = check
    (bundle / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    code, _, err = run(capsys, "verify", bundle)
    assert code == 1 and told in err[-1]


def test_verify_fails_on_a_damaged_file(capsys, bundle):
    (bundle / "model.json").write_bytes(b"{}")
    code, _, err = run(capsys, "verify", bundle)
    assert code == 1 and "copy the bundle again" in err[-1]


# bench


def test_bench_measures(capsys, bundle):
    code, out, err = run(capsys, "bench", bundle, "--windows", 5, "--warmup", 1, "--json")
    found = last_json(out)
    assert code == 0
    assert 0 < found["engine_ms"]["p50"] <= found["engine_ms"]["p95"]
    assert 0 < found["stream_ms"]["p50"] <= found["stream_ms"]["p95"]
    assert found["frames_per_second"] > 0 and found["startup_s"] > 0 and found["peak_memory_mb"] > 1
    assert any(line.startswith("engine: 1 + 5 windows") for line in err), "progress"
    assert any("frames per second" in line for line in out)


# run


def results_of(lines):
    return [json.loads(line) for line in lines[:-1]], last_json(lines)["summary"]


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


def test_run_keeps_within_a_budget_and_tells_each_decision(capsys, bundle, video):
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
def test_run_samples_as_it_is_told(capsys, bundle, video, sampling):
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
    import time

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
    shown = []

    def press_q_at_the_tenth(prediction, seconds):
        shown.append(prediction)
        if len(shown) == 3:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))

    for realtime in (False, True):
        shown.clear()
        options = Options(bundle, str(video), realtime=realtime)
        summary = play(options, press_q_at_the_tenth, print)
        assert 3 <= summary.windows < 12 and summary.frames < 60 and summary.interrupted is None


def test_a_source_too_slow_for_the_window_is_told(capsys, bundle, video):
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


# run: events

EVENTS = ["--events", "events.jsonl", "--event-hold", 0.1, "--event-gap", 0.05, "--clips", "clips", "--hop", 1]


def test_run_tells_events_and_records_clips(capsys, bundle, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "run", bundle, "--source", video, "--headless", "--json", *EVENTS, "--pre-roll", 0.1)
    results, summary = results_of(out)
    events = [result for result in results if "event" in result]
    assert code == 0 and (summary["events"], summary["clips"]) == (2, 1), "they follow closely: one clip"
    assert [(event["event"], event["number"], event["label"]) for event in events] == [
        *[("start", 1, "brighter"), ("end", 1, "brighter"), ("start", 2, "darker"), ("end", 2, "darker")]
    ]
    assert events[0]["start"] == 0.1 and 0.9 < events[1]["end"] < events[2]["start"] < 1.4
    assert events[3]["end"] == round(59 / 30, 3) and {event["started_at"] for event in events} == {None}
    assert {event["source"] for event in events} == {str(video)}
    assert [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()] == events
    clip = json.loads(Path("clips/brighter-0.100s.json").read_text())
    assert [event["number"] for event in clip["events"]] == [1, 2] and clip["start"] == 0.0
    capture = cv2.VideoCapture("clips/brighter-0.100s.mp4")
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 60 and capture.get(cv2.CAP_PROP_FPS) == 30


def test_run_prints_events_as_lines_and_finds_none_unasked(capsys, bundle, video):
    base = ["run", bundle, "--source", video, "--headless", "--hop", 1]
    code, out, _ = run(capsys, *base, "--event-only", "darker")
    told = [line for line in out if " event " in line]
    assert code == 0 and len(told) == 2 and out[-1] == "1 events"
    assert "event 1: darker starts" in told[0] and "event 1: darker ends after" in told[1]
    assert not [line for line in run(capsys, *base)[1] if " event " in line]
    ignoring = ["--event-ignore", "darker", "--event-ignore", "brighter"]
    assert not [line for line in run(capsys, *base, *ignoring)[1] if " event " in line]


@pytest.mark.parametrize(
    ("options", "expected", "told"),
    [
        (["--events", "ftp://host/a"], 2, "ftp://"),
        (["--events", "none/events.jsonl"], 1, "No such file"),
        (["--event-threshold", 2], 2, "threshold"),
        (["--event-only", "hop"], 2, "no label hop"),
        (["--pre-roll", 1], 2, "--clips"),
        (["--clips", "clips", "--post-roll", -1], 2, "post-roll"),
        (["--clips", "clips", "--clips-keep", 0], 2, "at least 1 clip"),
        (["--source-fps", 0], 2, "must be positive"),
    ],
)
def test_event_options_that_make_no_sense_are_told(
    capsys, bundle, video, tmp_path, monkeypatch, options, expected, told
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "run", bundle, "--source", video, "--headless", *options)
    assert code == expected and out == [] and told in err[-1]


class Camera:
    """Gives some frames, live, and then ends, or waits for `gate` first."""

    name, live, fps, frame_count, gate = "camera 0", True, 30.0, None, None

    def __init__(self, frames):
        self.left = list(frames)

    def read(self):
        time.sleep(0.005)
        if not self.left and self.gate is not None:
            assert self.gate.wait(timeout=60)
        return self.left.pop(0) if self.left else None

    def close(self):
        pass


def brighter(start, restarted=False):
    """A second of a scene that gets brighter."""
    values = range(50, 200, 5)
    return [Frame(grey(v, 48, 64), start + i / 30, restarted and i == 0) for i, v in enumerate(values)]


def watch_camera(camera, bundle, monkeypatch, told, **more):
    monkeypatch.setattr(live, "open_source", lambda *arguments, **options: camera)
    options = Options(bundle, headless=True, hop=1, events=EventRule(hold=0.1, gap=3600.0), **more)
    return play(options, lambda prediction, seconds: None, print, told)


def test_live_events_have_the_time_of_day_and_end_when_the_camera_was_gone(bundle, tmp_path, monkeypatch):
    """It vanishes for an hour of its own clock."""
    camera, told = Camera([*brighter(1000.0), *brighter(4600.0, restarted=True)]), []
    clips = ClipOptions(tmp_path / "clips")
    summary = watch_camera(camera, bundle, monkeypatch, told.append, clips=clips)
    assert [(event.number, event.ended) for event in told] == [(1, False), (1, True), (2, False), (2, True)]
    assert told[1].end < 1.0 and told[2].start > 3600.0
    assert told[2].started_at == pytest.approx(told[0].started_at + 3600, abs=2)
    assert (summary.events, summary.clips) == (2, 2)
    found = [json.loads(path.read_text()) for path in sorted(clips.folder.glob("brighter-*Z.json"))]
    assert found[0]["end"] < 1.0 and found[1]["start"] == 3600.0


def test_events_end_while_a_camera_is_silent(bundle, monkeypatch):
    monkeypatch.setattr(live, "_SILENCE", 0.1)
    camera, told = Camera(brighter(0.0)), []
    camera.gate = threading.Event()

    def take(event):
        told.append(event)
        if event.ended:
            camera.gate.set()

    watch_camera(camera, bundle, monkeypatch, take)
    assert [event.ended for event in told] == [False, True]


# evaluate


@pytest.fixture
def clips(tmp_path):
    """A CSV of three videos, one of which is not there."""
    for label, values in {"brighter": range(60, 160, 5), "darker": range(160, 60, -5)}.items():
        writer = cv2.VideoWriter(str(tmp_path / f"{label}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 24))
        for value in values:
            writer.write(grey(value))
        writer.release()
    rows = ["path,label,fold", "brighter.avi,brighter,0", "darker.avi,darker,1", "none.avi,steady,1"]
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "clips.csv"


def test_evaluate_counts_and_names(capsys, bundle, clips):
    code, out, err = run(capsys, "evaluate", bundle, "--data", clips, "--workers", 0, "--json")
    found = last_json(out)
    assert code == 0
    assert (found["top1"], found["top5"], found["clips"], found["compare"]) == (1.0, None, 2, None)
    assert found["folds"] == {"0": 1.0, "1": 1.0} and found["sampling"] == {"mode": "uniform", "clips": 1}
    assert found["skipped"] == [{"path": str(clips.parent / "none.avi"), "reason": "there is no such file"}]
    assert "top-1 100.0% of 2 videos, 1 left out" in out[0]
    assert any(line.startswith("left out: ") and "none.avi" in line for line in err)


def test_evaluate_compares_and_reports(capsys, bundle, clips, tmp_path):
    pytest.importorskip("jinja2", reason="needs the extra `report`")
    other = write_bundle(tmp_path / "other", gain=0.0)
    page = tmp_path / "out.html"
    options = ["--compare", bundle, "--report", page, "--workers", 0, "--sampling", "dense", "--clips", 2, "--json"]
    code, out, _ = run(capsys, "evaluate", other, "--data", clips, *options)
    found = last_json(out)
    assert code == 0 and found["report"] == str(page) and page.read_text().startswith("<!doctype html>")
    assert found["top1"] == 0.0 and found["compare"]["top1"] == 1.0 and found["compare"]["drop_points"] == 100.0
    assert [one["baseline"] for one in found["compare"]["differing"]] == ["brighter", "darker"]
    assert sum(line.lstrip().startswith("differs") for line in out) == 2


def test_evaluate_takes_a_fold_or_all_by_their_bundles(capsys, bundle, clips, tmp_path):
    _, out, _ = run(capsys, "evaluate", bundle, "--data", clips, "--workers", 0, "--fold", 0, "--json")
    assert last_json(out)["folds"] == {"0": 1.0}
    write_bundle(tmp_path / "fold-0")
    write_bundle(tmp_path / "fold-1", gain=0.0)
    _, out, _ = run(capsys, "evaluate", tmp_path / "fold-{fold}", "--data", clips, "--workers", 0, "--json")
    assert last_json(out)["folds"] == {"0": 1.0, "1": 0.0} and last_json(out)["folds_mean"] == 0.5


@pytest.mark.parametrize(
    ("options", "expected", "told"),
    [
        (["--data", "nothing"], 1, "does not exist"),
        (["--clips", 0], 2, "at least one clip"),
        (["--workers", -1], 2, "--workers"),
        (["--fold", 7], 2, "has no fold 7"),
        (["--report", "none/out.html"], 2, "a folder that exists"),
        (["--compare", "nothing"], 1, "does not exist"),
    ],
)
def test_evaluate_tells_what_is_wrong(capsys, bundle, clips, options, expected, told):
    code, out, err = run(capsys, "evaluate", bundle, "--data", clips, "--workers", 0, *options)
    assert code == expected and out == [] and told in err[-1]


# In a process of its own

PROGRAM = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import brightness_engine
brightness_engine.register()
"""


def start(code, *arguments, binary=False, **options):
    command = [sys.executable, "-c", PROGRAM + code, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": not binary}
    return subprocess.Popen(command, preexec_fn=heed_interrupts, **pipes, **options)


RUN = "from vmp_edge.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def endless(tmp_path):
    """Options to run on a source that does not end: the stand-in for GStreamer."""
    program = tmp_path / "bin" / "gst-launch-1.0"
    program.parent.mkdir()
    program.write_bytes((SUPPORT / "fake_gst_launch.py").read_bytes())
    program.chmod(0o755)
    code = "import cv2; cv2.videoio_registry.hasBackend = lambda backend: False\n" + RUN
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return code, {"env": {**os.environ, "PATH": path}}


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_with_a_summary_and_a_whole_recording(bundle, tmp_path, endless, number, expected):
    code, options = endless
    record = tmp_path / "out.mp4"
    arguments = ["run", bundle, "--source", "endless ! x", "--headless", "--json", "--record", record]
    process = start(code, *arguments, **options)
    for _ in range(5):
        assert "label" in json.loads(process.stdout.readline())
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    summary = last_json(out.splitlines())["summary"]
    assert process.returncode == expected and err == "vmp-edge: stopped\n"
    assert summary["interrupted"] and summary["recorded"] == str(record)
    capture = cv2.VideoCapture(str(record))
    assert capture.read()[0] and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_events_and_clips_and_delivers_them(bundle, tmp_path, endless, number, expected):
    """The source is grey: it is `steady` from the first window on, an event that goes on until it is stopped."""
    code, options = endless
    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = f"http://127.0.0.1:{server.server_port}/"
    sinks = ["--events", hook, "--events", tmp_path / "events.jsonl", "--clips", tmp_path / "clips"]
    rule = ["--event-threshold", 0.4, "--event-hold", 0]
    process = start(code, "run", bundle, "--source", "endless ! x", "--headless", "--json", *sinks, *rule, **options)
    while "event" not in json.loads(process.stdout.readline()):
        pass
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    server.shutdown()
    server.server_close()
    summary = last_json(out.splitlines())["summary"]
    assert process.returncode == expected and err == "vmp-edge: stopped\n"
    assert (summary["events"], summary["clips"]) == (1, 1)
    assert [event["event"] for event in server.seen] == ["start", "end"]
    assert [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()] == server.seen
    video, sidecar = sorted((tmp_path / "clips").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert cv2.VideoCapture(str(video)).read()[0]
    assert json.loads(sidecar.read_text())["events"] == server.seen[1:]


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes note of what is posted."""

    def do_POST(self):
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def test_a_pipe_of_frames_is_recognised(bundle):
    pixels = b"".join(bytes([value]) * (64 * 48) for value in range(10, 220, 7))
    command = ["run", bundle, "--source", "raw:64x48:grey:30", "--headless", "--json"]
    process = start(RUN, *command, stdin=subprocess.PIPE, binary=True)
    out, err = process.communicate(pixels, timeout=60)
    summary = last_json(out.decode().splitlines())["summary"]
    assert process.returncode == 0, err
    assert summary["frames"] == 30 and summary["source"] == "the standard input"
    assert list(summary["labels"]) == ["brighter"]


def test_ctrl_c_while_videos_are_decoded_is_quiet(bundle, clips):
    """The terminal sends it to the worker processes as well, which must not complain."""
    rows = clips.read_text().splitlines()
    clips.write_text("\n".join([rows[0], *rows[1:2] * 20000]) + "\n")
    told = "run = BrightnessEngine.run; BrightnessEngine.run = lambda *a: (print('on', flush=True), run(*a))[1]\n"
    code = f"from brightness_engine import BrightnessEngine\n{told}{RUN}"
    process = start(code, "evaluate", bundle, "--data", clips, "--workers", "1", start_new_session=True)
    assert process.stdout.readline() == "on\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "vmp-edge: stopped\n"


def test_a_reader_that_goes_away_ends_it_quietly(bundle, endless):
    code, options = endless
    process = start(code, "run", bundle, "--source", "endless ! x", "--headless", "--json", **options)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == ""


def test_webcam_app_is_the_same_as_run(bundle, video):
    code = f"sys.argv[0] = 'webcam.py'; import runpy; runpy.run_path({str(ROOT / 'apps' / 'webcam.py')!r}, "
    code += "run_name='__main__')"
    process = start(code, "--bundle", bundle, "--source", video, "--headless", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert last_json(out.splitlines())["summary"]["frames"] == 60
    process = start(code, "--bundle", "nothing")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err.startswith("vmp-edge: nothing does not exist") and err.count("\n") == 1


def test_python_m_vmp_edge_is_the_command_line():
    assert importlib.util.find_spec("vmp_edge.__main__") is not None
    done = subprocess.run([sys.executable, "-m", "vmp_edge", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vmp-edge ")
