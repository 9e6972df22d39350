"""Test what `vmp-edge train` finds in a folder of clips: unusable ones, likenesses, the split, and its warnings."""

import dataclasses
import shutil

import numpy as np
import pytest
from small_clips import write_clip, write_clips

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSetError
from vmp_edge.calibration.train import inspection, split, survey
from vmp_edge.errors import UsageError


def plain(items, **_):
    """Stands in for a progress bar."""
    return items


def found(clips, folds=None, frames=4):
    return survey.survey(clips, frames, folds, 0, plain, workers=0)


@pytest.fixture
def clips(tmp_path):
    return write_clips(tmp_path / "clips", colours=("red", "green"))


def grouped(clips):
    """The same clips with a group for each number in their names."""
    return clips.only(dataclasses.replace(e, group=e.path.stem[-1]) for e in clips.entries)


def test_every_class_is_on_both_sides(clips):
    one = found(survey.read(clips, None))
    assert one.split.by == "clip" and one.clips.folds == (0, 1, 2, 3, 4)
    fold = one.split.held_out()
    assert one.clips.fold(fold).labels == one.clips.outside(fold).labels == ("green", "red")
    assert survey.table(one) == [("green", "6 clips, 1.6 s"), ("red", "6 clips, 1.6 s")]


def test_groups_stay_on_one_side(clips):
    one = found(grouped(survey.read(clips, None)))
    assert one.split.by == "group"
    sides = {entry.group: set() for entry in one.clips.entries}
    for entry in one.clips.entries:
        sides[entry.group].add(entry.fold)
    assert len(sides) == 6 and all(len(folds) == 1 for folds in sides.values())


def test_clips_of_one_scene_stay_on_one_side(tmp_path):
    """Without groups, backgrounds tell which clips were filmed together."""
    for label, first in (("red", 0), ("green", 50)):
        for i in range(6):
            write_clip(tmp_path / label / f"{label}{i}.avi", label, first + i, size=(160, 120), scene=first + i // 2)
    one = found(survey.read(tmp_path, None))
    assert one.split.by == "scene"
    fold = {entry.path.stem: entry.fold for entry in one.clips.entries}
    assert all(fold[f"{label}{i}"] == fold[f"{label}{i + 1}"] for label in ("red", "green") for i in (0, 2, 4))
    assert not any("same scene" in text for text in survey.warnings(one, one.split.held_out(), 1.6))


def test_a_scene_on_both_sides_is_said(tmp_path):
    for number, label in enumerate(("red", "green")):
        for i in range(6):
            write_clip(tmp_path / label / f"{label}{i}.avi", label, 10 * number + i, size=(160, 120), scene=number)
    one = found(survey.read(tmp_path, None))
    assert one.split.by == "clip", "each class has one scene, so that scenes cannot be kept together"
    (text,) = [text for text in survey.warnings(one, one.split.held_out(), 1.6) if "same scene" in text]
    assert "of these cases the scene alone gives the class away" in text


def test_a_csv_keeps_its_folds(clips, tmp_path):
    path = tmp_path / "clips.csv"
    survey.read(clips, None).split(3, seed=5).write(path)
    own = survey.read(path, None)
    assert found(own).clips.entries == own.entries and found(own, folds=3).split.by == "fold"
    with pytest.raises(UsageError, match="has 3 folds of its own"):
        found(own, folds=4)


def test_hashes_tell_scenes_apart_and_ignore_empty_frames():
    rng = np.random.default_rng(0)
    scene = np.repeat(np.repeat(rng.integers(0, 255, (12, 16, 3), np.uint8), 8, 0), 8, 1)
    other = np.repeat(np.repeat(rng.integers(0, 255, (12, 16, 3), np.uint8), 8, 0), 8, 1)
    first, noisy, second = (
        inspection.frame_hash(x)
        for x in (scene, np.clip(scene + rng.integers(0, 12, scene.shape), 0, 255).astype(np.uint8), other)
    )
    assert (first != noisy).sum() < 32 < (first != second).sum()
    assert inspection.frame_hash(np.full((48, 64, 3), 90, np.uint8)) is None
    pairs = np.zeros((4, 4), bool)
    pairs[0, 2] = pairs[2, 0] = pairs[2, 3] = pairs[3, 2] = True
    assert inspection.scenes(pairs).tolist() == [0, 1, 0, 0]


def test_few_and_uneven_clips_and_clips_in_two_classes_are_said(tmp_path):
    for i in range(2):
        write_clip(tmp_path / "red" / f"r{i}.avi", "red", i)
    for i in range(10):
        write_clip(tmp_path / "green" / f"g{i}.avi", "green", 20 + i)
    shutil.copy(tmp_path / "red" / "r0.avi", tmp_path / "green" / "same.avi")
    one = found(survey.read(tmp_path, None))
    texts = " ".join(survey.warnings(one, one.split.held_out(), 1.6))
    assert "1 class has fewer than 10 clips (red 2)" in texts
    assert "green has 11 clips and red has 2" in texts
    assert "show the same in two classes" in texts


def test_size_and_length_that_tell_the_class_are_said(tmp_path):
    for label, size in (("red", (64, 48)), ("green", (96, 48))):
        for i in range(8):
            write_clip(tmp_path / label / f"{label}{i}.avi", label, i + 100 * (label == "red"), size=size)
    one = found(survey.read(tmp_path, None))
    assert one.control == 1.0
    assert any("size and length of the clips alone" in text for text in survey.warnings(one, 0, 1.6))


def test_long_clips_are_said_and_the_span_is_what_most_clips_last(clips):
    one = found(survey.read(clips, None))
    assert one.usual_span() == pytest.approx(1.6)
    assert any("cut the clips to the action itself" in text for text in survey.warnings(one, 0, 0.3))


def test_what_cannot_be_used_is_named(clips):
    (clips / "red" / "text.mp4").write_text("no video")
    (clips / "red" / "notes.txt").write_text("not even by its name")
    write_clip(clips / "red" / "short.avi", "red", 9, count=3)
    read = survey.read(clips, None)
    assert "notes.txt" in read.note()
    one = found(read)
    assert {video.path.name for video in one.skipped} == {"text.mp4", "short.avi"}
    assert "too short: 3 frames, the model takes 4" in {video.reason for video in one.skipped}
    with pytest.raises(ClipSetError, match=r"no clips that can be used \(14 cannot be used"):
        found(read, frames=100)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: shutil.rmtree(f / "red"), UsageError, "has one class alone, green"),
        (lambda f: (f / "red").rename(f / "GREEN"), UsageError, "'GREEN' and 'green', which differ only in capitals"),
        (lambda f: [p.unlink() for p in f.rglob("*.avi")], ClipSetError, "no class folders with videos"),
        (lambda f: [p.rename(f / p.name) for p in f.rglob("*.avi")] and [(f / n).rmdir() for n in ("red", "green")],
         ClipSetError, "12 videos, but no class folders"),
        (lambda f: [(f / "in").mkdir(), *((f / n).rename(f / "in" / n) for n in ("red", "green"))], UsageError,
         "one class folder, in, with the folders green, red in it"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_trained_on(clips, change, error, message):
    change(clips)
    with pytest.raises(error, match=message):
        survey.read(clips, None)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("path,class\nred/red-0.avi,red\n", ClipSetError, "lacks the column label"),
        ("label\nred\n", ClipSetError, "lacks the column path"),
        ("path,label\nred/red-0.avi,red\nred/red-1.avi,\n", UsageError, "red-1.avi has no label"),
        ("path,label\nred/red-0.avi,red\nred/red-1.avi,Red \n", UsageError, "differ only in capitals or blanks"),
        ("path,label\nred/red-0.avi,red\nred/red-0.avi,green\n", UsageError, "names .*red-0.avi more than once"),
        ("path,label\nred/red-0.avi,a\x1b\nred/red-1.avi,b\n", UsageError, r"holds the character U\+001B"),
        ("", ClipSetError, "lacks the column path"),
    ],
)
def test_tables_that_cannot_be_trained_on(clips, text, error, message):
    path = clips / "clips.csv"
    path.write_text(text)
    with pytest.raises(error, match=message):
        survey.read(path, None)


def test_a_list_without_labels_and_a_missing_group_are_refused(clips, tmp_path):
    (tmp_path / "clips.txt").write_text("red/red-0.avi\n")
    with pytest.raises(ClipSetError, match="has no labels"):
        survey.read(tmp_path / "clips.txt", None)
    with pytest.raises(UsageError, match="column of a CSV"):
        survey.read(clips, "person")
    (clips / "clips.csv").write_text("path,label,person\nred/red-0.avi,red,anna\ngreen/green-0.avi,green,\n")
    with pytest.raises(UsageError, match="nothing in the column person"):
        survey.read(clips / "clips.csv", "person")


def test_one_clip_of_a_class_or_one_group_is_too_little(clips, tmp_path):
    for i in range(1, 6):
        (clips / "red" / f"red-{i}.avi").unlink()
    with pytest.raises(UsageError, match=r"too few clips that can be used: red \(1\).*at least 2"):
        found(survey.read(clips, None))
    write_clip(clips / "red" / "red-7.avi", "red", 7)
    same = survey.read(clips, None)
    with pytest.raises(UsageError, match="belong to the group anna"):
        found(same.only(dataclasses.replace(entry, group="anna") for entry in same.entries))


def test_a_class_of_one_group_is_said(clips):
    read = survey.read(clips, None)
    entries = [dataclasses.replace(e, group="anna" if e.label == "red" else e.path.stem) for e in read.entries]
    one = found(read.only(entries))
    fold = next(e.fold for e in one.clips.entries if e.label == "red")
    assert any("All clips of red are of one group" in text for text in survey.warnings(one, fold, 1.6))
    assert one.split.held_out() != fold and clipset.read(clips).labels == ("green", "red")
    assert any("No clip of red is held out" in text for text in survey.warnings(one, one.split.held_out(), 1.6))
    assert split.FOLDS == 5
