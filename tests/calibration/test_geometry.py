"""Test that the size and length of videos do not give away their labels."""

from pathlib import Path

import numpy as np
import pytest

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSetError
from vmp_edge.calibration.decoding import read_clips
from vmp_edge.calibration.train import geometry
from vmp_edge.calibration.train.inspection import look_at_all

from .conftest import write_video

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def measure(clips, workers=0):
    """The clips that can be decoded, their sizes and lengths, and the clips that cannot be decoded."""
    usable, looks, skipped = look_at_all(clips, plain, workers)
    return usable, [look.geometry for look in looks], skipped


def plain(items, **_):
    """Stands in for a progress bar."""
    return items


@pytest.fixture
def sized_clips(tmp_path):
    """A clip set whose widths and lengths alone give away the labels."""
    for label, (width, count) in {"a": (64, 20), "b": (80, 26)}.items():
        for i in range(6):
            write_video(tmp_path / "clips" / label / f"{label}{i}.avi", range(60, 60 + 2 * count, 2), size=(48, width))
    return clipset.read(tmp_path / "clips").split(3)


def test_geometry_is_measured(sized_clips):
    clips, geometries, skipped = measure(sized_clips)
    assert clips == sized_clips and not skipped
    assert {(g.width, g.height, g.frames, g.fps) for g in geometries} == {(64, 48, 20, 30.0), (80, 48, 26, 30.0)}
    assert geometries[0].seconds == pytest.approx(20 / 30)


def test_geometry_that_tells_is_found_out_and_taken_away(sized_clips, tmp_path):
    _, geometries, _ = measure(sized_clips)
    assert geometry.control(sized_clips, geometries) == {0: 1.0, 1: 1.0, 2: 1.0}
    same, cut = geometry.bring_to_one(sized_clips, geometries, tmp_path / "cut", plain, workers=0)
    assert (cut.width, cut.height, cut.seconds) == (64, 48, pytest.approx(20 / 30))
    assert [(e.label, e.fold) for e in same.entries] == [(e.label, e.fold) for e in sized_clips.entries]
    _, after, _ = measure(same)
    assert len(set(after)) == 1
    assert np.mean(list(geometry.control(same, after).values())) <= 0.5


def test_the_cut_is_the_middle_and_without_loss(sized_clips, tmp_path):
    wide = next(entry for entry in sized_clips.entries if entry.label == "b")
    cut = geometry.Cut(60, 40, 0.5, {wide.path: tmp_path / "cut" / "b.avi"})
    path = cut(wide)
    (before,) = read_clips(wide.path, lambda count, fps: [range(5, 20)])
    (after,) = read_clips(path, lambda count, fps: [range(count)])
    assert np.array_equal(after, before[:, 4:44, 10:70])
    written = path.stat().st_mtime_ns
    assert cut(wide) == path and path.stat().st_mtime_ns == written


def test_videos_of_one_name_stay_apart(clips_folder, tmp_path):
    for i in (1, 2):
        write_video(clips_folder / "steady" / str(i) / "steady-0.avi", [80 * i] * 20)
    clips, geometries, _ = measure(clipset.read(clips_folder))
    same, _ = geometry.bring_to_one(clips, geometries, tmp_path / "cut", plain, workers=0)
    assert len({entry.path for entry in same.entries}) == len(clips) == 11
    for before, after in zip(clips.entries, same.entries, strict=True):
        first, second = (read_clips(entry.path, lambda count, fps: [[0]])[0] for entry in (before, after))
        assert np.array_equal(first, second)


def test_videos_that_cannot_be_decoded_are_left_out_of_the_geometry(damaged):
    clips, geometries, skipped = measure(clipset.read(damaged))
    assert len(clips) == len(geometries) == 10
    assert [video.path.name for video in skipped] == ["a-empty.mp4", "b-text.mp4", "c-broken.avi"]
    nothing = clipset.from_paths([damaged / "steady" / "a-empty.mp4"])
    with pytest.raises(ClipSetError, match="no videos that can be used"):
        measure(nothing)


def test_the_size_of_real_clips_tells_their_label():
    """Size and length alone recognise far more than chance (a sixth): the clips must be cut to one geometry."""
    index = DATA / "ut_interaction" / "index.csv"
    if not index.is_file():
        pytest.skip(f"no real clips: {index} is absent")
    clips, geometries, _ = measure(clipset.read(index, group="sequence").split(5), None)
    assert 0.4 < np.mean(list(geometry.control(clips, geometries).values())) < 0.8
