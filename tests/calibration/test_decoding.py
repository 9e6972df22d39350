"""Test which frames make clips, which videos are left out and why, and what happens when a process dies."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import FRAMES, SIZE, make_manifest

from vmp_edge.calibration import clipset, decoding
from vmp_edge.calibration.clipset import ClipSet, ClipSetError, Entry
from vmp_edge.calibration.decoding import Input, Prepare, Sampling, Skipped, UnusableError, in_workers, load_videos
from vmp_edge.calibration.sampling import crops
from vmp_edge.errors import UsageError
from vmp_edge.prediction import sample_evenly
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.sources import open_source

from .conftest import write_video

INPUT = Input(FRAMES, Preprocessing(SIZE))


@pytest.mark.parametrize("available", [4, 5, 20, 61])
def test_uniform_takes_what_the_recogniser_takes(available):
    assert Sampling().indices(available, 30, 4, 15) == [sample_evenly(available, 4)]


def test_several_uniform_clips_share_the_video():
    clips = Sampling("uniform", 3).indices(24, 30, 4, None)
    assert clips == [[1, 7, 13, 19], [3, 9, 15, 21], [5, 11, 17, 23]]


def test_dense_takes_windows_at_the_models_rate():
    assert Sampling("dense").indices(21, 30, 4, 15) == [[7, 9, 11, 13]]
    assert Sampling("dense", 2).indices(10, 30, 4, None) == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert Sampling("dense", 5).indices(5, 30, 4, None) == [[0, 1, 2, 3], [1, 2, 3, 4]], "no window twice"
    assert Sampling("dense").indices(4, 14, 4, 15) == [[0, 1, 2, 3]], "nearly the rate will do"


def test_clips_as_in_training_are_windows_where_the_manifest_says_how():
    trained, dense, uniform = (Sampling(mode, 2) for mode in ("trained", "dense", "uniform"))
    assert trained.indices(300, 30, 8, 0.8) == dense.indices(300, 30, 8, 0.8) != uniform.indices(300, 30, 8, 0.8)
    assert trained.indices(300, 30, 8, None) == uniform.indices(300, 30, 8, None), "it says nothing"
    assert trained.indices(60, 30, 8, 0.8) == uniform.indices(60, 30, 8, None), "too short for a window"
    assert trained.indices(60, 10, 8, 15) == uniform.indices(60, 10, 8, None), "too slow for one"
    with pytest.raises(UnusableError, match="too short: 3 frames, a clip takes 8"):
        trained.indices(3, 30, 8, 0.8)
    assert [mode.by_time(0.8) for mode in (trained, dense, uniform)] == [True, True, False]
    assert not trained.by_time(None)


@pytest.mark.parametrize(
    ("sampling", "available", "fps", "message"),
    [
        (Sampling(), 3, 30, "too short: 3 frames, a clip takes 4"),
        (Sampling("dense"), 6, 30, "too short: 6 frames, a clip takes 7"),
        (Sampling("dense"), 90, 10, "too slow: 10 frames per second, the model takes 15"),
    ],
)
def test_too_short_and_too_slow(sampling, available, fps, message):
    with pytest.raises(UnusableError, match=message):
        sampling.indices(available, fps, 4, 15)


@pytest.mark.parametrize("values", [("sparse", 1), ("dense", 0)])
def test_sampling_out_of_range(values):
    with pytest.raises(UsageError):
        Sampling(*values)


def test_the_right_frames_come_out(tmp_path):
    path = write_video(tmp_path / "a.avi", range(0, 200, 10))
    (clip,) = decoding.read_clips(path, lambda count, fps: [[0, 7, 7, count - 1]])
    assert clip.shape == (4, 48, 64, 3)
    assert np.abs(clip.mean((1, 2, 3)) - [0, 70, 70, 190]).max() < 3


def test_a_file_with_fewer_frames_than_it_says(tmp_path, monkeypatch):
    """The clips are taken from the frames that the file has."""
    path = write_video(tmp_path / "a.avi", range(0, 200, 10))
    opened = open_source

    def open_with_wrong_count(text):
        source = opened(text)
        source.frame_count = 40
        return source

    calls = []

    def choose(count, fps):
        calls.append((count, fps))
        return Sampling().indices(count, fps, 4, None)

    monkeypatch.setattr("vmp_edge.sources.clips.open_source", open_with_wrong_count)
    (clip,) = decoding.read_clips(path, choose)
    assert calls == [(40, 30), (20, 30)]
    assert np.abs(clip.mean((1, 2, 3)) - [20, 70, 120, 170]).max() < 3


def test_windows_of_a_variable_rate_are_windows_of_time(tmp_path):
    """After the tenth frame, only every third is there: it stays for three."""
    videos = pytest.importorskip("videos")
    ticks = [*range(10), *range(12, 60, 3)]
    path = videos.make_video(tmp_path / "a.mp4", len(ticks), rate=15, ticks=lambda i: ticks[i])
    dense = Sampling("dense")
    (clip,) = decoding.read_clips(path, lambda count, fps: [[0, 4, 8, 10, 11, 12, 15]], by_time=True)
    means = clip[:, 20:].mean((1, 2, 3))
    assert np.abs(means - means[0] - [0, 4, 8, 9, 9, 10, 11]).max() < 1.5
    seen = []
    decoding.read_clips(path, lambda count, fps: seen.append((count, fps)) or dense.indices(count, fps, 4, 7.5), True)
    assert seen[-1] == (58, pytest.approx(15)), "by time, the video has 58 frames at 15 per second"


def test_a_steady_rate_is_not_changed(clips_folder):
    path = next(clips_folder.rglob("*.avi"))
    calls = []
    decoding.read_clips(path, lambda count, fps: calls.append((count, fps)) or [[0, 5]], by_time=True)
    assert calls == [(20, 30.0)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_used_is_named(damaged, workers):
    clips = clipset.read(damaged)
    results = list(in_workers(Prepare((INPUT,), Sampling()), clips.entries, workers))
    assert [entry for entry, _ in results] == list(clips.entries)
    skipped = {entry.path.name: result.reason for entry, result in results if isinstance(result, Skipped)}
    assert set(skipped) == {"a-empty.mp4", "b-text.mp4", "c-broken.avi", "d-short.avi"}
    assert "empty" in skipped["a-empty.mp4"] and "cannot be decoded" in skipped["b-text.mp4"]
    assert "too short: 3 frames" in skipped["d-short.avi"]
    for _, result in results:
        if not isinstance(result, Skipped):
            assert result[0].shape == (1, 3, FRAMES, SIZE, SIZE) and result[0].dtype == np.float32


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    (tmp_path / "folder.avi").mkdir()
    entries = [Entry(tmp_path / "none.avi"), Entry(tmp_path / "folder.avi")]
    assert all("no such file" in result.reason for _, result in in_workers(Prepare((INPUT,), Sampling()), entries, 0))


def _die_on_odd(entry):
    if int(entry.path.stem) % 2:
        os._exit(3)
    return entry.path.stem


def _stem(entry):
    return entry.path.stem


def test_a_video_that_kills_its_process_is_one_of_those():
    entries = [Entry(Path(f"{i}.avi")) for i in (0, 2, 3, 4, 6)]
    results = [result for _, result in in_workers(_die_on_odd, entries, 2)]
    assert results[2].reason.startswith("cannot be decoded: it kills")
    assert results[:2] + results[3:] == ["0", "2", "4", "6"]


def test_a_script_without_a_main_guard_is_told_at_once(tmp_path, clips_folder):
    """Each worker process imports the script, which would start workers of its own. Python forbids this."""
    script = tmp_path / "script.py"
    script.write_text(
        "from vmp_edge.calibration import clipset, decoding\n"
        f"entries = clipset.read({str(clips_folder)!r}).entries\n"
        "list(decoding.in_workers(len, entries, 1))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith(
        "vmp_edge.errors.VmpError: worker processes die as they start"
    )


def test_stopping_early_leaves_no_processes():
    results = in_workers(_stem, [Entry(Path(f"{i}.avi")) for i in range(50)], 1)
    assert next(results)[1] == "0"
    results.close()
    with pytest.raises(StopIteration):
        next(results)


def test_a_bundle_says_what_it_takes():
    assert Input.of(make_manifest(frame_rate=12.0)) == Input(FRAMES, Preprocessing(SIZE), 12.0)


def test_calibration_clips_are_balanced_and_the_same_each_time(damaged):
    clips = clipset.read(damaged)
    loaded = load_videos(clips, INPUT, 6, workers=0)
    assert loaded.videos.shape == (6, 3, FRAMES, SIZE, SIZE)
    assert sorted(entry.label for entry in loaded.entries).count("darker") >= 2
    again = load_videos(clips, INPUT, 6, workers=0)
    assert again.entries == loaded.entries and np.array_equal(again.videos, loaded.videos)


def test_calibration_takes_as_many_clips_of_a_video_as_it_is_told(clips_folder):
    clips = clipset.read(clips_folder)
    loaded = load_videos(clips, INPUT, 25, Sampling("dense", 4), workers=0)
    assert len(loaded.videos) == len(loaded.entries) == 25
    assert len({entry.path for entry in loaded.entries}) == 7


def test_calibration_takes_windows_as_in_training(tmp_path):
    """A long video that becomes brighter: a window of two seconds sees its middle alone, and not all of it."""
    path = write_video(tmp_path / "long.avi", np.linspace(0, 250, 240).astype(int))
    ranges = []
    for rate in (2.0, None):
        loaded = load_videos(ClipSet("one", (Entry(path),)), Input(FRAMES, Preprocessing(SIZE), rate), 1, workers=0)
        brightness = loaded.videos[0].mean((0, 2, 3))
        ranges.append(brightness[-1] - brightness[0])
    assert 0 < ranges[0] < 0.3 * ranges[1]


def test_too_few_clips_say_how_many_are_needed(damaged):
    with pytest.raises(ClipSetError, match=r"64 clips are needed, .* gives 9 from 13 videos \(4 cannot be used: "):
        load_videos(clipset.read(damaged), INPUT, 64, workers=0)
    with pytest.raises(ClipSetError, match="1 clips are needed"):
        load_videos(ClipSet("nothing", ()), INPUT, 1, workers=0)


def test_a_progress_bar_counts_to_the_end(clips_folder):
    events = []

    class Bar:
        def __init__(self, total, desc, unit):
            events.append(total)

        def update(self, count):
            events.append(count)

        def close(self):
            events.append("closed")

    load_videos(clipset.read(clips_folder), INPUT, 3, workers=0, progress=Bar)
    assert events == [3, 1, 1, 1, "closed"]


# Several views, as published numbers are measured


def test_the_published_clips_take_other_offsets_of_the_parts():
    """The frame numbers that the published code gives for a video of 300 frames, T = 8 and 4 clips."""
    clips = Sampling("published", 4).indices(300, 30, 8, 0.8)
    starts = [0, 37, 75, 112, 150, 187, 224, 262]
    assert clips == [[start + offset for start in starts] for offset in (7, 14, 22, 29)]
    assert Sampling("published").indices(300, 30, 8, None) == [[start + 18 for start in starts]]
    assert Sampling("published", 2).indices(3, 30, 4, None) == [[0, 0, 1, 2]] * 2, "a short video repeats frames"
    assert all(index < 9 for clip in Sampling("published", 10).indices(9, 30, 8, None) for index in clip)


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_three_crops_are_the_two_ends_and_the_centre_of_the_longer_side(shape):
    clip = np.arange(2 * 60 * 3, dtype=np.uint8).reshape(2, *shape, 3)
    along = clip if shape[0] < shape[1] else clip.transpose(0, 2, 1, 3)
    for count, starts in ((1, [2]), (3, [0, 2, 4]), (2, [0, 4])):
        views = crops(clip, count)
        assert len(views) == count
        for view, start in zip(views, starts, strict=True):
            assert view.shape == (2, 6, 6, 3)
            turned = view if shape[0] < shape[1] else view.transpose(0, 2, 1, 3)
            np.testing.assert_array_equal(turned, along[:, :, start : start + 6])
    square = clip[:, :6, :6]
    assert all((view == square).all() for view in crops(square, 3))


def test_clips_and_crops_are_prepared_in_order(tmp_path):
    path = write_video(tmp_path / "a.avi", range(0, 200, 10))
    model_input = Input(FRAMES, Preprocessing(SIZE, "crop", interpolation="linear"))
    (video,) = Prepare((model_input,), Sampling("published", 4, 3))(Entry(path))
    assert video.shape == (12, 3, FRAMES, SIZE, SIZE)
    first = video.mean((1, 2, 3, 4))
    assert (np.diff(first[::3]) > 0).all(), "each clip is a little later, and the video becomes brighter"
    np.testing.assert_allclose(first.reshape(4, 3) - first[::3, None], 0, atol=0.01)


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (48, 48)])
@pytest.mark.parametrize("length", [1, 2, 20])
def test_views_of_short_and_of_portrait_videos(tmp_path, size, length):
    """Fewer frames than a clip, and than clips, are repeated, as by the published code; the crops are square."""
    path = write_video(tmp_path / "a.avi", range(10, 10 + length), size=size)
    model_input = Input(FRAMES, Preprocessing(SIZE, "crop", interpolation="linear"), 0.8)
    (video,) = Prepare((model_input,), Sampling("published", 4, 3))(Entry(path))
    assert video.shape == (12, 3, FRAMES, SIZE, SIZE) and np.isfinite(video).all()
    assert np.abs(video - video.mean((3, 4), keepdims=True)).max() < 0.05, "no border is seen"


def test_a_video_that_is_too_short_for_a_window_is_still_sampled_as_a_whole(tmp_path):
    path = write_video(tmp_path / "a.avi", range(0, 200, 10))
    inputs = (Input(FRAMES, Preprocessing(SIZE), 12.0), Input(FRAMES, Preprocessing(SIZE), 1.0))
    prepared = Prepare(inputs, Sampling(clips=2), stream=True)(Entry(path))
    assert [video.shape[0] for video in prepared] == [2, 2]
    assert prepared.windows[0].shape == (2, 3, FRAMES, SIZE, SIZE)
    assert prepared.windows[1] == "too short: 20 frames, a clip takes 91"
    assert Prepare(inputs, Sampling())(Entry(path)).windows == ()
