"""Opening a bundle: a damaged bundle is refused, with a message that says what is wrong."""

import os
import shutil

import pytest
from bundles import make_manifest, write_bundle

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError
from vmp_edge.recognizer import load


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def replace_by_fifo(path):
    path.unlink()
    os.mkfifo(path)  # reading it would wait forever


@pytest.mark.parametrize(
    ("damage", "message"),
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
def test_a_damaged_bundle_is_refused(bundle, error_of, damage, message):
    damage(bundle)
    assert message in error_of(bundle)


def test_a_bundle_for_another_machine_can_be_read_but_not_run(tmp_path):
    path = write_bundle(tmp_path / "b", make_manifest(machine="pdp11"))
    assert Bundle.open(path, any_machine=True).manifest.machine == "pdp11"
    with pytest.raises(BundleError, match="this machine's target"):
        load(path)


def test_the_error_says_why_a_path_is_not_a_bundle(tmp_path, error_of):
    (tmp_path / "file").write_text("")
    assert "does not exist" in error_of(tmp_path / "nothing")
    assert "is not a folder" in error_of(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "is not a bundle" in error_of(tmp_path / "empty")


def test_links_to_intact_files_are_accepted(bundle, error_of, tmp_path):
    """Package caches link to their blobs, so only the content counts."""
    (bundle / "model.json").rename(tmp_path / "blob")
    (bundle / "model.json").symlink_to(tmp_path / "blob")
    assert Bundle.open(bundle)
    flip_a_bit(tmp_path / "blob")
    assert "damaged" in error_of(bundle)


def test_a_copied_bundle_is_the_same(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    assert Bundle.open(tmp_path / "copy").manifest == Bundle.open(bundle).manifest
