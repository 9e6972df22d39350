"""Test clip sets from folders, CSVs and lists, and their folds and orders."""

from pathlib import Path

import pytest

from vmp_edge.calibration import clipset
from vmp_edge.calibration.clipset import ClipSet, ClipSetError, Entry
from vmp_edge.errors import UsageError


def make_set(labels=("a", "b"), groups=6):
    return ClipSet(
        "a set", tuple(Entry(Path(f"{label}{g}.avi"), label, f"g{g}") for g in range(groups) for label in labels)
    )


def test_a_folder_of_class_folders(damaged):
    clips = clipset.read(damaged)
    assert clips.labels == ("brighter", "darker", "steady")
    assert len(clips) == 13, "files that are no videos by their name are none"
    assert [entry.path for entry in clips.entries] == sorted(entry.path for entry in clips.entries)
    assert all(entry.label == entry.path.parent.name for entry in clips.entries)


def test_hidden_files_are_left_out_and_other_files_are_named(tmp_path):
    folder = tmp_path / "run" / "deeper"
    folder.mkdir(parents=True)
    for name in ("a.3gp", "b.MTS", "c.m2ts", "d.h264", "e.ogv", "._a.3gp", ".b.mp4", "notes.txt", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (tmp_path / "run" / ".trash").mkdir()
    (tmp_path / "run" / ".trash" / "z.mp4").write_bytes(b"x")
    clips = clipset.read(tmp_path)
    assert [entry.path.name for entry in clips.entries] == ["a.3gp", "b.MTS", "c.m2ts", "d.h264", "e.ogv"]
    assert clips.note() == f"{tmp_path}: 2 files are left out, no video by the name: Thumbs.db, notes.txt"
    for index in range(5):
        (folder / f"{index}.doc").write_bytes(b"x")
    assert clipset.read(tmp_path).note().endswith("0.doc, 1.doc, 2.doc and 4 more")


def test_a_set_without_other_files_has_no_note(clips_folder):
    assert clipset.read(clips_folder).note() is None and clipset.from_paths(["a.avi"]).note() is None


def test_a_csv(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("\ufeffpath,label,scene,other,fold\nx/1.avi,run,s1,?,0\n/y/2.avi,,,?,\n")
    first, second = clipset.read(path, group="scene").entries
    assert first == Entry(tmp_path / "x/1.avi", "run", "s1", 0)
    assert second == Entry(Path("/y/2.avi"), None, None, None)
    assert clipset.read(path).entries[0].group is None


def test_a_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.avi\n\n  b.avi \n")
    assert clipset.read(path).entries == (Entry(tmp_path / "a.avi"), Entry(tmp_path / "b.avi"))
    assert clipset.from_paths(["a.avi"]).entries == (Entry(Path("a.avi")),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,label\n", "lacks the column path"),
        ("a.csv", "", "lacks the column path, label"),
        ("a.csv", "path,label\n", "names no videos"),
        ("a.csv", "path,label\n,run\n", "line 2: the path is empty"),
        ("a.csv", "path,label,fold\na.avi,run,one\n", "the fold is 'one'"),
        ("a.txt", "\n", "names no videos"),
        ("a.json", "{}", "is no clip set"),
        (None, None, "does not exist"),
    ],
)
def test_what_is_no_clip_set(tmp_path, name, text, message):
    path = tmp_path / (name or "nothing")
    if name:
        path.write_text(text)
    with pytest.raises(ClipSetError, match=message):
        clipset.read(path)


def test_binary_csv_and_missing_group_and_bare_folder(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClipSetError, match="cannot be read as a text file"):
        clipset.read(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("path,label\na.avi,x\n")
    with pytest.raises(ClipSetError, match="lacks the column scene"):
        clipset.read(tmp_path / "b.csv", group="scene")
    (tmp_path / "c.avi").write_bytes(b"x")
    with pytest.raises(ClipSetError, match="no class folders"):
        clipset.read(tmp_path)


def test_folds_keep_groups_whole_and_labels_balanced():
    clips = make_set().split(3, seed=1)
    assert clips.folds == (0, 1, 2)
    for fold in clips.folds:
        held_out, rest = clips.fold(fold), clips.outside(fold)
        assert len(held_out) == 4 and len(held_out) + len(rest) == len(clips)
        assert {e.group for e in held_out.entries}.isdisjoint(e.group for e in rest.entries)
        assert [e.label for e in held_out.entries].count("a") == 2
    assert make_set().split(3, seed=1) == clips


@pytest.mark.parametrize("folds", [0, 1, 7])
def test_folds_that_cannot_be(folds):
    with pytest.raises(UsageError, match="give 2 to 6"):
        make_set().split(folds)


def test_a_fold_that_is_not_there():
    with pytest.raises(UsageError, match="no fold 5; its folds: 0, 1"):
        make_set().split(2).fold(5)
    with pytest.raises(UsageError, match="needs a column `fold`"):
        make_set().fold(0)


def test_every_beginning_of_a_shuffled_set_is_balanced():
    entries = [Entry(Path(f"{i}.avi"), "rare" if i < 3 else "common") for i in range(20)]
    order = ClipSet("a set", tuple(entries)).shuffled(3)
    assert sorted(order.entries, key=lambda e: int(e.path.stem)) == entries
    assert [e.label for e in order.entries[:6]].count("rare") == 3
    assert order == ClipSet("a set", tuple(entries)).shuffled(3)
    assert order != ClipSet("a set", tuple(entries)).shuffled(4)
    unlabelled = ClipSet("a set", tuple(Entry(Path(f"{i}.avi")) for i in range(5)))
    assert len(unlabelled.shuffled()) == 5


def test_what_is_written_can_be_read(tmp_path, clips_folder):
    clips = clipset.read(clips_folder).split(3)
    clips.write(tmp_path / "folds.csv")
    assert clipset.read(tmp_path / "folds.csv").entries == clips.entries
    assert "clips/brighter/brighter-0.avi,brighter,," in (tmp_path / "folds.csv").read_text()
    assert not list(tmp_path.glob("*.partial*"))
