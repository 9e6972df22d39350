"""`vmp-edge run` with events: lines, sinks and clips."""

import http.server
import json
import signal
import threading
import time
from pathlib import Path

import cv2
import pytest
from bundles import grey
from commands import last_json, results_of, run, start

from vmp_edge.events.clips import ClipOptions
from vmp_edge.events.detector import EventRule
from vmp_edge.live import Options, play
from vmp_edge.sources import Frame
from vmp_edge.stream.options import StreamOptions

EVENTS = ["--events", "events.jsonl", "--event-hold", 0.1, "--event-gap", 0.05, "--clips", "clips", "--hop", 1]


def test_run_prints_events_and_records_clips(capsys, bundle, video, tmp_path, monkeypatch):
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
    events = [line for line in out if " event " in line]
    assert code == 0 and len(events) == 2 and out[-1] == "1 events"
    assert "event 1: darker starts" in events[0] and "event 1: darker ends after" in events[1]
    assert not [line for line in run(capsys, *base)[1] if " event " in line]
    ignoring = ["--event-ignore", "darker", "--event-ignore", "brighter"]
    assert not [line for line in run(capsys, *base, *ignoring)[1] if " event " in line]


@pytest.mark.parametrize(
    ("options", "expected", "message"),
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
def test_event_options_that_make_no_sense_are_refused(
    capsys, bundle, video, tmp_path, monkeypatch, options, expected, message
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "run", bundle, "--source", video, "--headless", *options)
    assert code == expected and out == [] and message in err[-1]


class Camera:
    """A live source that gives some frames, waits for `gate` if there is one, and ends."""

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
    """Return the frames of a second in which the scene gets brighter."""
    values = range(50, 200, 5)
    return [Frame(grey(v, 48, 64), start + i / 30, restarted and i == 0) for i, v in enumerate(values)]


def watch_camera(camera, bundle, monkeypatch, on_event, **changes):
    """Play a camera, pass its events to `on_event`, and return the summary."""
    monkeypatch.setattr("vmp_edge.live.player.open_source", lambda *arguments, **options: camera)
    rule = EventRule(hold=0.1, gap=3600.0)
    options = Options(bundle, headless=True, stream=StreamOptions(hop=1), events=rule, **changes)
    return play(options, lambda prediction, seconds: None, print, on_event)


def test_live_events_have_the_time_of_day_and_end_when_the_camera_was_gone(bundle, tmp_path, monkeypatch):
    """The camera vanishes for an hour of its own clock."""
    camera, events = Camera([*brighter(1000.0), *brighter(4600.0, restarted=True)]), []
    clips = ClipOptions(tmp_path / "clips")
    summary = watch_camera(camera, bundle, monkeypatch, events.append, clips=clips)
    assert [(event.number, event.ended) for event in events] == [(1, False), (1, True), (2, False), (2, True)]
    assert events[1].end < 1.0 and events[2].start > 3600.0
    assert events[2].started_at == pytest.approx(events[0].started_at + 3600, abs=2)
    assert (summary.events, summary.clips) == (2, 2)
    sidecars = [json.loads(path.read_text()) for path in sorted(clips.folder.glob("brighter-*Z.json"))]
    assert sidecars[0]["end"] < 1.0 and sidecars[1]["start"] == 3600.0


def test_events_end_while_a_camera_is_silent(bundle, monkeypatch):
    monkeypatch.setattr("vmp_edge.live.session._SILENCE", 0.1)
    camera, events = Camera(brighter(0.0)), []
    camera.gate = threading.Event()

    def take(event):
        events.append(event)
        if event.ended:
            camera.gate.set()

    watch_camera(camera, bundle, monkeypatch, take)
    assert [event.ended for event in events] == [False, True]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_ctrl_c_ends_events_and_clips_and_delivers_them(bundle, tmp_path, endless, number, expected):
    """The source is grey, so that an event `steady` starts with the first window and goes on until Ctrl-C."""
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
    """Collects the events that are posted."""

    def do_POST(self):
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass
