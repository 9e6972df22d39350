"""The manifest: wrong entries are refused with a message that names them, and its text is stable."""

import hashlib

import pytest
import yaml
from bundles import make_manifest

from vmp_edge.bundle.manifest import FORMAT_VERSION, Manifest
from vmp_edge.machine import host_machine


def edit_manifest(path, change):
    """Change the manifest of the bundle at `path` by the function `change`."""
    manifest = yaml.safe_load((path / "manifest.yaml").read_text())
    change(manifest)
    (path / "manifest.yaml").write_text(yaml.safe_dump(manifest))


@pytest.mark.parametrize(
    ("key", "value", "message"),
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
def test_a_wrong_manifest_is_refused(bundle, error_of, key, value, message):
    edit_manifest(bundle, lambda manifest: manifest.update({key: value}))
    assert message in error_of(bundle)


@pytest.mark.parametrize("key", [key for key in make_manifest().to_dict()])
def test_every_key_is_required(bundle, error_of, key):
    edit_manifest(bundle, lambda manifest: manifest.pop(key))
    assert f"lacks '{key}'" in error_of(bundle)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b", "C:x", "a\nb", "manifest.yaml", 5, None],
)
def test_files_outside_the_folder_are_refused(bundle, error_of, name):
    (bundle.parent / "secret").write_text("x")

    def add(manifest):
        manifest["files"][name] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}

    edit_manifest(bundle, add)
    assert "only plain names" in error_of(bundle)


def test_writing_a_manifest_again_gives_the_same_text(bundle):
    text = (bundle / "manifest.yaml").read_text()
    assert Manifest.from_yaml(text).to_yaml() == text
    assert text.startswith("format: 1\n")
