"""Features of many videos in one file, from one process or from several that share the videos."""

import cv2
import numpy as np
import pytest
from brightness_engine import FEATURES
from bundles import grey, make_manifest, write_bundle
from commands import last_json, run

import vmp_edge
from vmp_edge.calibration.embedding import videos_of
from vmp_edge.calibration.sharing import Parts, Share, SharePendingError, identity
from vmp_edge.errors import UsageError

LAUNCHED = ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No launcher of the tests themselves."""
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", make_manifest(features=FEATURES))


@pytest.fixture
def videos(tmp_path):
    """Five videos, each of one brightness, in two folders and beside them, and a file that is none."""
    folder = tmp_path / "videos"
    for index, name in enumerate(("a/1.avi", "a/2.avi", "b/1.avi", "c.avi", "d.avi")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 24))
        for _ in range(8):
            writer.write(grey(40 * index + 20))
        writer.release()
    (folder / "b" / "broken.avi").write_bytes(b"no video")
    return folder


def embed(capsys, bundle, videos, output, *options):
    code, out, err = run(capsys, "embed", bundle, videos, "--output", output, "--workers", 0, "--json", *options)
    return code, last_json(out) if code == 0 else None, err


def content(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_features_are_those_of_the_recogniser(capsys, bundle, videos, tmp_path):
    output = tmp_path / "features.npz"
    code, result, err = embed(capsys, bundle, videos, output)
    assert code == 0 and (result["videos"], result["features"]) == (5, FEATURES)
    assert any("left out: " in line and "broken.avi" in line for line in err)
    found = content(output)
    assert [path.removeprefix(f"{videos}/") for path in found["paths"].tolist()] == [
        *("a/1.avi", "a/2.avi", "b/1.avi", "c.avi", "d.avi")
    ]
    assert found["labels"].tolist() == ["a", "a", "b", "", ""]
    assert found["skipped"].tolist() == [str(videos / "b" / "broken.avi")]
    with vmp_edge.load(bundle) as recognizer:
        for index in range(5):
            expected = recognizer.predict(np.stack([grey(40 * index + 20)] * 8)).features
            np.testing.assert_allclose(found["features"][index], expected, atol=0.1)  # the codec loses a little
    assert list(tmp_path.glob(".vmp-edge*")) == []


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_processes_share_the_videos_and_the_last_one_merges(capsys, bundle, videos, tmp_path, monkeypatch, names):
    whole, shared = tmp_path / "whole.npz", tmp_path / "shared.npz"
    embed(capsys, bundle, videos, whole)
    monkeypatch.setenv(names[1], "4")
    for rank in (2, 0, 3, 1):
        assert not shared.exists()
        monkeypatch.setenv(names[0], str(rank))
        code, result, err = embed(capsys, bundle, videos, shared)
        assert code == 0 and any(f"share {rank + 1} of 4" in line for line in err)
        assert (result["output"] is None) == (rank != 1)
    one, other = content(whole), content(shared)
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values)
    assert list(tmp_path.glob(".vmp-edge*")) == []


def test_more_processes_than_videos(capsys, bundle, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "9")
    for rank in range(9):
        monkeypatch.setenv("RANK", str(rank))
        code, result, _ = embed(capsys, bundle, videos, tmp_path / "shared.npz")
    assert code == 0 and result["videos"] == 5


def test_the_part_of_a_run_that_was_cut_off_is_kept(capsys, bundle, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    embed(capsys, bundle, videos, tmp_path / "shared.npz")
    for path in videos.rglob("*.avi"):
        if path.name != "broken.avi":
            path.chmod(0o644)
    (part,) = tmp_path.glob(".vmp-edge*/0.npz")
    before = part.stat().st_mtime_ns
    monkeypatch.setattr("vmp_edge.calibration.embedding._part", None)  # it must not be computed again
    code, result, _ = embed(capsys, bundle, videos, tmp_path / "shared.npz")
    assert code == 0 and result["output"] is None and part.stat().st_mtime_ns >= before


def test_a_broken_part_counts_as_missing(tmp_path):
    parts = Parts(tmp_path, identity("x"), Share(0, 2))
    parts.write({"a": np.arange(3)})
    other = Parts(tmp_path, identity("x"), Share(1, 2))
    assert parts.every() is None and other.own() is None
    other.write({"a": np.arange(4)})
    assert [len(part["a"]) for part in parts.every()] == [3, 4]
    (parts.folder / "0.npz").write_bytes(b"PK")
    assert parts.every() is None
    assert identity("x") != identity("y")


def test_one_alone_has_the_parts_and_puts_them_back_if_it_fails(tmp_path):
    first, second = (Parts(tmp_path, identity("x"), Share(rank, 2)) for rank in (0, 1))
    first.write({"a": np.arange(3)})
    with pytest.raises(SharePendingError, match=r"share 1 of 2 is done; the last one adds \(1 part of 2 not yet in "):
        first.together("adds").__enter__()
    second.write({"a": np.arange(4)})
    with pytest.raises(OSError, match="disk full"), first.together("adds") as every:
        assert [len(part["a"]) for part in every] == [3, 4]
        with pytest.raises(SharePendingError, match=r"^share 2 of 2 is done; another one adds$"):
            second.together("adds").__enter__()
        raise OSError("disk full")
    with second.together("adds") as every:
        assert [len(part["a"]) for part in every] == [3, 4]
    assert list(tmp_path.iterdir()) == []


def test_what_launchers_say():
    step = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}
    assert Share.of_environment(step) == Share(5, 8)
    assert Share.of_environment({**step, "RANK": "1", "WORLD_SIZE": "2"}) == Share(1, 2)
    assert Share.of_environment({**step, "SLURM_STEP_NUM_TASKS": "6", "SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0"}) == (
        Share(5, 6)
    )
    assert Share.of_environment({**step, "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) == Share(), "a batch script"


def test_neighbours_do_not_take_each_others_cpus(monkeypatch):
    monkeypatch.setattr("vmp_edge.calibration.sharing.usable_cpu_count", lambda: 9)
    share = Share.of_environment({"RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"})
    assert (share.workers(None), share.workers(0), share.workers(3)) == (2, 0, 3)
    assert Share(0, 8).workers(None) is None and Share(0, 40, neighbours=40).workers(None) == 1


def test_wrong_numbers_of_a_launcher_are_refused():
    assert Share.of_environment({}) == Share.of_environment({"SLURM_NTASKS": "8"}) == Share(0, 1)
    for rank, count in (("2", "2"), ("-1", "2"), ("x", "2"), ("0", "")):
        with pytest.raises(UsageError, match="do not say which part of the work"):
            Share.of_environment({"RANK": rank, "WORLD_SIZE": count})


def test_what_cannot_be_embedded_is_one_line(capsys, bundle, videos, tmp_path):
    plain = write_bundle(tmp_path / "plain")
    code, _, err = embed(capsys, plain, videos, tmp_path / "x.npz")
    assert code == 1 and "gives no features: build it with --features" in err[-1]
    (tmp_path / "empty").mkdir()
    code, _, err = embed(capsys, bundle, tmp_path / "empty", tmp_path / "x.npz")
    assert code == 1 and "no videos there" in err[-1]
    code, _, err = embed(capsys, bundle, videos / "b" / "broken.avi", tmp_path / "x.npz")
    assert code == 1 and "no videos that can be used" in err[-1] and not (tmp_path / "x.npz").exists()
    code, _, err = embed(capsys, bundle, videos, tmp_path / "x.csv")
    assert code == 2 and "must end in .npz" in err[-1]


def test_videos_come_from_folders_lists_and_files(videos, tmp_path):
    (tmp_path / "list.txt").write_text("videos/c.avi\nvideos/d.avi\n")
    found = videos_of([videos / "a", tmp_path / "list.txt", videos / "c.avi"])
    assert [entry.path.name for entry in found.entries] == ["1.avi", "2.avi", "c.avi", "d.avi"]
