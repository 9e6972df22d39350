"""A bundle is whole or refused, and written whole or not at all."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundles import make_manifest, write_bundle

from vmp_edge.bundle import reading as bundle_module
from vmp_edge.bundle.check import check_clip
from vmp_edge.bundle.manifest import FORMAT_VERSION, Manifest
from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.errors import BuildError, BundleError
from vmp_edge.machine import host_machine
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import load


def edit(path, change):
    """Rewrites a bundle's manifest after `change` has been at it."""
    manifest = yaml.safe_load((path / "manifest.yaml").read_text())
    change(manifest)
    (path / "manifest.yaml").write_text(yaml.safe_dump(manifest))


def refused(path):
    """The one line that opening a bundle fails with."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


def test_round_trip(tmp_path):
    manifest = make_manifest(
        preprocessing=Preprocessing(16, "letterbox", (0.1, 0.2, 0.3), (1.0, 0.5, 0.25), "linear"),
        labels=("yes", "1.5", "grüßen"),  # texts that YAML would like to take for something else
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
    assert stat.S_IMODE(path.stat().st_mode) & 0o055 == 0o055 & ~current_umask(), "as any folder made here"
    assert [entry.name for entry in path.parent.iterdir()] == ["b"]


def current_umask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: (path / "model.json").unlink(), "missing"),
        (lambda path: (path / "model.json").write_bytes(b""), "has 0 bytes"),
        (lambda path: (path / "model.json").write_bytes((path / "model.json").read_bytes()[:-1]), "bytes, expected"),
        (lambda path: flip_a_bit(path / "model.json"), "damaged"),
        (lambda path: (path / "manifest.yaml").unlink(), "no manifest.yaml"),
        (lambda path: (path / "manifest.yaml").write_bytes(b"\xff\xfe\x00"), "not valid YAML"),
        (lambda path: (path / "manifest.yaml").write_text("a: [1"), "not valid YAML"),
        (lambda path: (path / "manifest.yaml").write_text("[" * 100000), "not valid YAML"),
        (lambda path: (path / "manifest.yaml").write_text("- a list"), "needs a mapping"),
        (lambda path: (path / "manifest.yaml").write_text(""), "needs a mapping"),
        (lambda path: (path / "manifest.yaml").write_text("!!python/object/apply:os.abort []"), "not valid YAML"),
        (lambda path: (path / "manifest.yaml").write_bytes(b"#" * (5 << 20)), "larger than 4 MiB"),
        (lambda path: replace_by_folder(path / "model.json"), "not a plain file"),
        (lambda path: replace_by_fifo(path / "model.json"), "not a plain file"),
    ],
)
def test_a_damaged_bundle_is_refused(bundle, damage, told):
    damage(bundle)
    assert told in refused(bundle)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)  # reading it would wait for ever


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", FORMAT_VERSION + 1, "update vmp-edge"),
        ("format", 0, "build the bundle again"),
        ("format", "1", "whole number"),
        ("format", True, "whole number"),
        ("machine", "pdp11", f"is for pdp11, this machine is {host_machine()}"),
        ("labels", [], "at least one"),
        ("labels", ["a", "b", True], "put it in quotes"),
        ("labels", ["a", "b"], "num_classes is 3, elsewhere 2"),
        ("name", "", "empty"),
        ("engine", 5, "'engine'"),
        ("model", ["a"], "'model'"),
        ("model", {"num_frames": 9}, "num_frames is 9, elsewhere 4"),
        ("input", {"frames": 0, "image_size": 16}, "at least 1"),
        ("input", {"frames": 4}, "lacks 'input.image_size'"),
        ("input", {"frames": 4, "image_size": 16, "frame_rate": float("nan")}, "positive"),
        ("preprocessing", {"resize": "stretch"}, "preprocessing"),
        ("program", "other.json", "not among its files"),
        ("threads", 0, "at least 1"),
        ("files", {"model.json": {"size": 5}}, "lacks 'files.model.json.sha256'"),
        ("files", {"model.json": {"size": -1, "sha256": "0" * 64}}, "at least 0"),
        ("files", {"model.json": {"size": 5, "sha256": "xyz"}}, "SHA-256"),
        ("files", {"model.json": "here"}, "mapping"),
    ],
)
def test_a_wrong_manifest_is_refused(bundle, key, value, told):
    edit(bundle, lambda manifest: manifest.update({key: value}))
    assert told in refused(bundle)


@pytest.mark.parametrize("key", [key for key in make_manifest().to_dict()])
def test_every_key_is_required(bundle, key):
    edit(bundle, lambda manifest: manifest.pop(key))
    assert f"lacks '{key}'" in refused(bundle)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "C:x", "a\nb", "manifest.yaml", 5, None],
)
def test_files_outside_the_folder_are_refused(bundle, name):
    (bundle.parent / "secret").write_text("x")

    def add(manifest):
        manifest["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}

    edit(bundle, add)
    assert "only plain names" in refused(bundle)


def test_a_bundle_for_another_machine_can_be_read_but_not_run(tmp_path):
    path = write_bundle(tmp_path / "b", make_manifest(machine="pdp11"))
    assert Bundle.open(path, any_machine=True).manifest.machine == "pdp11"
    with pytest.raises(BundleError, match="this machine's target"):
        load(path)


def test_what_is_no_folder_is_told_apart(tmp_path):
    (tmp_path / "file").write_text("")
    assert "does not exist" in refused(tmp_path / "nothing")
    assert "is not a folder" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "is not a bundle" in refused(tmp_path / "empty")


def test_links_to_whole_files_are_accepted(bundle, tmp_path):
    """Package caches link to their blobs: it is the content that is checked."""
    (bundle / "model.json").rename(tmp_path / "blob")
    (bundle / "model.json").symlink_to(tmp_path / "blob")
    assert Bundle.open(bundle)
    flip_a_bit(tmp_path / "blob")
    assert "damaged" in refused(bundle)


# Writing


def leftovers(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_stopped_build_leaves_nothing(tmp_path, failure):
    with pytest.raises(failure), staged_bundle(tmp_path / "new" / "folder" / "b") as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest())
        raise failure
    assert leftovers(tmp_path) == []


def test_a_stopped_build_leaves_the_old_bundle(bundle):
    before = (bundle / "manifest.yaml").read_bytes()
    with pytest.raises(KeyboardInterrupt), staged_bundle(bundle) as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest(name="new"))
        raise KeyboardInterrupt
    assert (bundle / "manifest.yaml").read_bytes() == before
    assert leftovers(bundle.parent) == ["bundle"]
    assert Bundle.open(bundle)


def test_a_bundle_is_replaced_whole(bundle):
    with staged_bundle(bundle) as staging:
        (staging.path / "other.bin").write_bytes(b"abc")
        staging.add("other.bin")
        sealed = staging.seal(make_manifest(name="new", program="other.bin"))
        assert sealed.program.read_bytes() == b"abc", "it can be run before it is in its place"
        assert Bundle.open(bundle).manifest.name == "brightness", "the old one is there until then"
    assert Bundle.open(bundle).manifest.name == "new"
    assert leftovers(bundle) == ["manifest.yaml", "other.bin"]
    assert leftovers(bundle.parent) == ["bundle"]


def test_sealing_again_records_more(tmp_path):
    with staged_bundle(tmp_path / "b") as staging:
        staging.add("model.json", b"{}")
        staging.seal(make_manifest())
        staging.seal(make_manifest(parity={"max_difference": 1e-6}))
    assert Bundle.open(tmp_path / "b").manifest.parity == {"max_difference": 1e-6}


def test_when_the_swap_fails_the_old_bundle_comes_back(bundle, monkeypatch):
    rename = bundle_module.Path.rename

    def fail_for_the_new_one(path, target):
        if ".building-" in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(bundle_module.Path, "rename", fail_for_the_new_one)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(bundle)
    monkeypatch.undo()
    assert Bundle.open(bundle)
    assert leftovers(bundle.parent) == ["bundle"]


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
    assert leftovers(tmp_path) == ["bundle", "file", "photos"]
    assert (folder / "cat.jpg").read_bytes() == b"meow" and (bundle / "notes.txt").exists()


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "b").mkdir()
    assert Bundle.open(write_bundle(tmp_path / "b"))


def test_a_link_is_followed(tmp_path, bundle):
    (tmp_path / "link").symlink_to(bundle)
    write_bundle(tmp_path / "link", make_manifest(name="new"))
    assert (tmp_path / "link").is_symlink() and Bundle.open(bundle).manifest.name == "new"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is what a full disk is like")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(BuildError, match="disk full") as caught, staged_bundle(tmp_path / "b") as staging:
        (staging.path / "model.json").symlink_to("/dev/full")
        staging.add("model.json", b"x" * 100000)
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == []


def test_a_disk_that_fills_up_while_syncing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BuildError, match="disk full"):
        write_bundle(tmp_path / "b")
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "b")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "manifest.yaml", ".x"])
def test_only_plain_names_are_added(tmp_path, name):
    with pytest.raises(BuildError, match="plain names"), staged_bundle(tmp_path / "b") as staging:
        staging.add(name, b"")
    assert leftovers(tmp_path) == []


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
    assert leftovers(tmp_path) == []


def test_a_copied_bundle_is_the_same(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    assert Bundle.open(tmp_path / "copy").manifest == Bundle.open(bundle).manifest


def test_manifest_text_is_stable(bundle):
    text = (bundle / "manifest.yaml").read_text()
    assert Manifest.from_yaml(text).to_yaml() == text
    assert text.startswith("format: 1\n")


def test_the_check_clip_is_the_same_everywhere():
    """Manifests hold what models gave for it: these bytes must never change."""
    clip = check_clip(7, 3, 50)
    assert clip.shape == (3, 50, 50, 3) and clip.dtype == np.uint8
    assert hashlib.sha256(clip.tobytes()).hexdigest() == GOLDEN_CLIP
    assert not np.array_equal(clip, check_clip(8, 3, 50))
    assert not np.array_equal(clip[0], clip[1])


GOLDEN_CLIP = "9f6d5368c47e288ca370ef75493805408aaa3a7af3c2469415c3b16a18c7bab2"
