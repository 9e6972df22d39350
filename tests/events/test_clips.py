"""Clips have the seconds before and after an event, describe all their events, and leave no incomplete file."""

import json
import os
import sys
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from bundles import grey

from vmp_edge.errors import UsageError
from vmp_edge.events import clip_writer
from vmp_edge.events.clips import ClipOptions, ClipRecorder
from vmp_edge.events.detector import Event
from vmp_edge.view.recording import RecordingError

RATE = 10


def event(number=1, start=5.0, end=None, label="wave", at=None):
    return Event(number, label, start, end, 0.9, 0.8, "camera", at)


def record(folder, plan, seconds=20, messages=None, **options):
    """Record ten frames per second, whose brightness is their number. `plan` has the events to report by the second."""
    values = {"pre_roll": 2.0, "post_roll": 1.0, **options}
    recorder = ClipRecorder(
        ClipOptions(folder, **values), RATE, 0.5, "camera", (messages if messages is not None else []).append, wait=True
    )
    for index in range(seconds * RATE):
        for change in plan.get(index / RATE, []):
            recorder.tell(change)
        recorder.add(grey(index % 256, 48, 64), index / RATE)
    recorder.close()
    return recorder


def brightness(path):
    """Return the mean brightness of each frame of a video."""
    capture, values = cv2.VideoCapture(str(path)), []
    while (result := capture.read())[0]:
        values.append(float(result[1].mean()))
    return values


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_clip_has_the_seconds_before_and_after_its_event(tmp_path):
    recorder = record(tmp_path / "new", {5.5: [event()], 9.0: [event(end=8.0)]})
    assert names(tmp_path / "new") == ["wave-5.000s.json", "wave-5.000s.mp4"] and recorder.written == 1
    values = brightness(tmp_path / "new" / "wave-5.000s.mp4")
    np.testing.assert_allclose(values, range(30, 91), atol=5)  # from 3.0 s to 9.0 s
    description = json.loads((tmp_path / "new" / "wave-5.000s.json").read_text())
    assert {key: description[key] for key in ("clip", "source", "start", "end", "fps")} == {
        "clip": "wave-5.000s.mp4",
        "source": "camera",
        "start": 3.0,
        "end": 9.0,
        "fps": RATE,
    }
    assert description["events"] == [event(end=8.0).to_dict()]


def test_clips_at_the_beginning_and_the_end_of_the_source_are_shorter(tmp_path):
    record(tmp_path, {0.6: [event(start=0.1)], 1.0: [event(start=0.1, end=0.5)], 19.0: [event(2, start=18.5)]})
    first, last = (json.loads((tmp_path / name).read_text()) for name in names(tmp_path) if name.endswith(".json"))
    assert (first["start"], last["end"]) == (0.0, 19.9)
    assert last["events"][0]["event"] == "start", "it went on"


def test_events_that_overlap_or_follow_closely_share_a_clip(tmp_path):
    overlap = {5.5: [event()], 6.5: [event(2, 6.0, label="jump")], 8.0: [event(end=7.0)]}
    close = {9.0: [event(2, 6.0, 8.5, "jump")], 9.4: [event(3, 9.2)], 10.5: [event(3, 9.2, 10.0)]}
    later = {11.6: [event(4, 11.2)], 12.5: [event(4, 11.2, 12.0)]}
    record(tmp_path, {**overlap, **close, **later})
    assert names(tmp_path) == ["wave-11.200s.json", "wave-11.200s.mp4", "wave-5.000s.json", "wave-5.000s.mp4"]
    shared = json.loads((tmp_path / "wave-5.000s.json").read_text())
    assert [(entry["number"], entry["end"]) for entry in shared["events"]] == [(1, 7.0), (2, 8.5), (3, 10.0)]
    assert (shared["start"], shared["end"]) == (3.0, 11.0)
    second = json.loads((tmp_path / "wave-11.200s.json").read_text())
    assert second["start"] == 9.2, "the pre-roll is complete although the clip before has these frames, too"


def test_an_event_without_an_end_does_not_fill_the_disk(tmp_path):
    record(tmp_path, {5.5: [event()], 18.0: [event(end=17.0)]}, longest=4.0)
    description = json.loads((tmp_path / "wave-5.000s.json").read_text())
    assert (description["start"], description["end"]) == (3.0, 7.0) and len(names(tmp_path)) == 2


def test_a_live_clip_is_named_by_its_label_and_the_time_of_day(tmp_path):
    plan = {5.5: [event(label="../a b/ü", at=1_800_000_000.25)], 6.0: [event(label="../a b/ü", end=5.6)]}
    record(tmp_path, plan)
    assert names(tmp_path)[0] == "_a_b_ü-20270115T080000.250Z.json"


def test_only_the_newest_clips_are_kept_and_no_other_file_is_removed(tmp_path):
    for name in ("holiday.mp4", "holiday.json", "wave-1.000s.txt", "alone-1.000s.mp4"):
        (tmp_path / name).write_text("mine")
    plan = {}
    for number, start in enumerate((1.0, 5.0, 9.0, 13.0), 1):
        plan[start + 0.5] = [event(number, start)]
        plan[start + 1.0] = [replace(event(number, start), end=start + 0.5)]
    record(tmp_path, plan, pre_roll=0.5, post_roll=0.5, keep=2)
    assert names(tmp_path) == [
        *["alone-1.000s.mp4", "holiday.json", "holiday.mp4", "wave-1.000s.txt"],
        *["wave-13.000s.json", "wave-13.000s.mp4", "wave-9.000s.json", "wave-9.000s.mp4"],
    ]


def test_memory_is_bounded(tmp_path):
    """Noise does not compress: a megabyte holds about ten of these frames for the pre-roll."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 240, 320, 3), np.uint8)
    options = ClipOptions(tmp_path, pre_roll=100.0, memory=1 << 20)
    messages = []
    recorder = ClipRecorder(options, RATE, 0.5, "camera", messages.append, wait=True)
    for index in range(100):
        recorder.add(frames[index % 4], index / RATE)
        assert recorder._pre_roll.size <= options.memory // 2
        assert recorder._pre_roll.size == sum(len(frame.content) for frame in recorder._pre_roll.frames)
    recorder.tell(event(start=9.0))
    for index in range(100, 200):
        recorder.add(frames[index % 4], index / RATE)
        assert recorder._writer._queue_size <= options.memory // 2 + max(
            len(frame.content) for frame in recorder._pre_roll.frames
        )
    recorder.close()
    assert recorder._writer._queue_size == 0 and recorder.left_out == 0
    assert len(messages) == 1 and "begin later" in messages[0]


def test_a_live_source_leaves_frames_out_rather_than_wait(tmp_path, monkeypatch):
    gate, messages = threading.Event(), []
    write = clip_writer.Recorder.write
    monkeypatch.setattr(clip_writer.Recorder, "write", lambda *arguments: (gate.wait(timeout=60), write(*arguments)))
    options = ClipOptions(tmp_path, memory=1 << 20)
    recorder = ClipRecorder(options, RATE, 0.5, "camera", messages.append)
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    recorder.tell(event(start=0.0))
    for index in range(50):  # returns, although nothing is written
        recorder.add(noise, index / RATE)
    gate.set()
    recorder.close()
    assert 0 < recorder.left_out < 50 and messages[-1].startswith(f"{recorder.left_out} frames were left out")
    assert recorder.written == 1


def test_a_clip_that_cannot_be_written_is_reported_and_the_next_one_is_written(tmp_path):
    messages = []
    (tmp_path / "wave-5.000s.mp4").mkdir()
    plan = {5.5: [event()], 7.0: [event(end=6.0)], 12.5: [event(2, 12.0)], 14.0: [event(2, 12.0, 13.0)]}
    recorder = record(tmp_path, plan, messages=messages)
    assert len(messages) == 1 and "it is a folder" in messages[0] and recorder.written == 1
    assert names(tmp_path) == ["wave-12.000s.json", "wave-12.000s.mp4", "wave-5.000s.mp4"]
    assert recorder._writer._queue_size == 0


def test_a_clip_that_cannot_be_finished_leaves_nothing_and_the_next_one_is_written(tmp_path, monkeypatch):
    is_whole, messages = iter([False, True]), []
    monkeypatch.setattr("vmp_edge.view.recording._is_whole", lambda *arguments: next(is_whole))
    plan = {5.5: [event()], 7.0: [event(end=6.0)], 12.5: [event(2, 12.0)], 14.0: [event(2, 12.0, 13.0)]}
    record(tmp_path, plan, messages=messages)
    assert "is the disk full" in messages[0] and names(tmp_path) == ["wave-12.000s.json", "wave-12.000s.mp4"]


def test_clips_are_h264_which_browsers_play(tmp_path):
    av = pytest.importorskip("av", reason="needs PyAV, which the extra `video` installs")
    record(tmp_path, {5.5: [event()], 9.0: [event(end=8.0)]})
    with av.open(str(tmp_path / "wave-5.000s.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_it_is_said_once_that_browsers_do_not_play_the_clips(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "vmp_edge.video.pyav_encoder", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    messages = []
    plan = {5.5: [event()], 7.0: [event(end=6.0)], 12.5: [event(2, 12.0)], 14.0: [event(2, 12.0, 13.0)]}
    assert record(tmp_path, plan, messages=messages).written == 2
    assert len(messages) <= 1 and all("no browser plays" in text for text in messages)


def test_without_events_there_are_no_files(tmp_path):
    recorder = record(tmp_path, {}, seconds=1)
    assert names(tmp_path) == [] and recorder.written == 0
    assert not recorder._writer._thread.is_alive()


@pytest.mark.parametrize("values", [{"pre_roll": -1}, {"post_roll": 1e9}, {"keep": 0}, {"longest": 0}, {"memory": 10}])
def test_values_out_of_range_are_refused(tmp_path, values):
    with pytest.raises(UsageError):
        ClipOptions(tmp_path, **values)


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written to"):
        ClipRecorder(ClipOptions(tmp_path / "file" / "clips"), RATE, 0.5, "camera", print)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(RecordingError, match="no permission"):
            ClipRecorder(ClipOptions(tmp_path / "locked"), RATE, 0.5, "camera", print)
