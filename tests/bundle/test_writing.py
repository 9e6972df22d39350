"""Writing a bundle: it is written completely or not at all, and it replaces nothing but a bundle."""

import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from bundles import make_manifest, write_bundle

from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.errors import BuildError, BundleError
from vmp_edge.preprocessing import Preprocessing


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def current_umask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_reading_gives_what_was_written(tmp_path):
    manifest = make_manifest(
        preprocessing=Preprocessing(16, "letterbox", (0.1, 0.2, 0.3), (1.0, 0.5, 0.25), "linear"),
        labels=("yes", "1.5", "grüßen"),  # YAML would read some of them as other types if they were not quoted
        accuracy={"clips": 10, "top1": 0.9},
        frame_rate=12.5,
        threads=2,
    )
    path = write_bundle(tmp_path / "a" / "b", manifest)
    opened = Bundle.open(path)
    content = (path / "model.json").read_bytes()
    assert opened.program == path / "model.json"
    assert opened.manifest.files["model.json"].sha256 == hashlib.sha256(content).hexdigest()
    assert {**opened.manifest.to_dict(), "files": {}} == manifest.to_dict()
    assert stat.S_IMODE(path.stat().st_mode) & 0o055 == 0o055 & ~current_umask(), "the folder has the usual permissions"
    assert [entry.name for entry in path.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_stopped_build_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure), staged_bundle(tmp_path / "new" / "folder" / "b") as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest())
        raise failure
    assert names_in(tmp_path) == []


def test_a_stopped_build_leaves_the_old_bundle(bundle):
    before = (bundle / "manifest.yaml").read_bytes()
    with pytest.raises(KeyboardInterrupt), staged_bundle(bundle) as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest(name="new"))
        raise KeyboardInterrupt
    assert (bundle / "manifest.yaml").read_bytes() == before
    assert names_in(bundle.parent) == ["bundle"]
    assert Bundle.open(bundle)


def test_a_bundle_is_replaced_only_when_the_new_one_is_finished(bundle):
    with staged_bundle(bundle) as staging:
        (staging.path / "other.bin").write_bytes(b"abc")
        staging.add("other.bin")
        sealed = staging.seal(make_manifest(name="new", program="other.bin"))
        assert sealed.program.read_bytes() == b"abc", "it can be run before it is renamed"
        assert Bundle.open(bundle).manifest.name == "brightness", "until then the old bundle is there"
    assert Bundle.open(bundle).manifest.name == "new"
    assert names_in(bundle) == ["manifest.yaml", "other.bin"]
    assert names_in(bundle.parent) == ["bundle"]


def test_sealing_again_rewrites_the_manifest(tmp_path):
    with staged_bundle(tmp_path / "b") as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest())
        staging.seal(make_manifest(parity={"max_difference": 1e-6}))
    assert Bundle.open(tmp_path / "b").manifest.parity == {"max_difference": 1e-6}


def test_the_old_bundle_comes_back_if_renaming_the_new_one_fails(bundle, monkeypatch):
    rename = Path.rename

    def fail_for_the_new_bundle(path, target):
        if ".building-" in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_bundle)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(bundle)
    monkeypatch.undo()
    assert Bundle.open(bundle)
    assert names_in(bundle.parent) == ["bundle"]


def test_only_bundles_are_replaced(tmp_path, bundle):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(BuildError, match="not a bundle"):
        write_bundle(folder)
    (bundle / "notes.txt").write_text("mine")
    with pytest.raises(BuildError, match=r"notes\.txt"):
        write_bundle(bundle)
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="not a folder"):
        write_bundle(tmp_path / "file")
    assert names_in(tmp_path) == ["bundle", "file", "photos"]
    assert (folder / "cat.jpg").read_bytes() == b"meow" and (bundle / "notes.txt").exists()


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "b").mkdir()
    assert Bundle.open(write_bundle(tmp_path / "b"))


def test_a_link_is_followed(tmp_path, bundle):
    (tmp_path / "link").symlink_to(bundle)
    write_bundle(tmp_path / "link", make_manifest(name="new"))
    assert (tmp_path / "link").is_symlink() and Bundle.open(bundle).manifest.name == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which behaves like a full disk")
def test_a_full_disk_is_a_one_line_error_and_leaves_nothing(tmp_path):
    with pytest.raises(BuildError, match="disk full") as caught, staged_bundle(tmp_path / "b") as staging:
        (staging.path / "model.json").symlink_to("/dev/full")
        staging.add("model.json", b"x" * 100000)
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


def test_a_disk_that_fills_up_while_syncing_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BuildError, match="disk full"):
        write_bundle(tmp_path / "b")
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "b")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "manifest.yaml", ".x"])
def test_only_plain_names_are_added(tmp_path, name):
    with pytest.raises(BuildError, match="plain names"), staged_bundle(tmp_path / "b") as staging:
        staging.add(name, b"")
    assert names_in(tmp_path) == []


def test_unfinished_or_inconsistent_bundles_are_not_written(tmp_path):
    with pytest.raises(BuildError, match="was not finished"), staged_bundle(tmp_path / "b"):
        pass
    with pytest.raises(BuildError, match="was not written"), staged_bundle(tmp_path / "b") as staging:
        staging.add("model.json")
    with pytest.raises(BuildError, match=r"not added: core\.dump"), staged_bundle(tmp_path / "b") as staging:
        staging.add("model.json", b"{}")
        (staging.path / "core.dump").write_bytes(b"")
        staging.seal(make_manifest())
    with pytest.raises(BundleError, match="not among its files"), staged_bundle(tmp_path / "b") as staging:
        staging.seal(make_manifest())
    with pytest.raises(BuildError, match="YAML cannot"), staged_bundle(tmp_path / "b") as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest(accuracy={"top1": np.float32(0.5)}))
    assert names_in(tmp_path) == []
