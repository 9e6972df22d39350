"""Opening a bundle: a damaged bundle is refused, with a message that says what is wrong."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from bundles import FRAMES, SIZE, make_manifest, write_bundle
from evil import make_evil

from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import staged_bundle
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


def test_a_taken_file_is_the_one_that_was_checked(bundle, tmp_path):
    """Another file may take its place in the folder meanwhile."""
    content = (bundle / "model.json").read_bytes()
    with Bundle.open(bundle).take("model.json") as file:
        (tmp_path / "other").write_bytes(b"{}")
        (tmp_path / "other").replace(bundle / "model.json")
        assert file.read() == content
    with pytest.raises(FileNotFoundError):
        file.read()


def test_a_copy_cannot_be_changed(bundle):
    """The file itself may even be written to."""
    content = (bundle / "model.json").read_bytes()
    with Bundle.open(bundle).take("model.json", copy=True) as file:
        with (bundle / "model.json").open("r+b") as original:
            original.write(b"#" * len(content))
        assert file.read() == content
        descriptor = os.open(file.path, os.O_RDWR)
        with pytest.raises(PermissionError):
            os.write(descriptor, b"#")
        os.close(descriptor)
        assert file.read() == content
    assert not file.path.startswith(str(bundle))


def test_no_two_taken_files_have_the_same_path(bundle):
    """The system's loader knows libraries by their path, and descriptors have the same numbers again and again."""
    opened, paths = Bundle.open(bundle), set()
    for _ in range(20):
        with opened.take("model.json", copy=True) as file:
            paths.add(file.path)
    assert len(paths) == 20


@pytest.mark.parametrize("copy", [False, True])
def test_a_file_is_checked_again_when_it_is_taken(bundle, copy):
    opened = Bundle.open(bundle)
    flip_a_bit(bundle / "model.json")
    with pytest.raises(BundleError, match="damaged"):
        opened.take("model.json", copy)
    replace_by_fifo(bundle / "model.json")
    with pytest.raises(BundleError, match="not a plain file"):
        opened.take("model.json", copy)


def test_a_file_that_is_not_listed_is_not_taken(bundle):
    (bundle / "libextra.so").write_bytes(b"code")
    with pytest.raises(BundleError, match=r"libextra\.so is not among the bundle's files"):
        Bundle.open(bundle).take("libextra.so", copy=True)


def test_no_descriptor_stays_open(bundle, error_of):
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    opened = Bundle.open(bundle)
    for copy in (False, True):
        opened.take("model.json", copy).close()
    flip_a_bit(bundle / "model.json")
    error_of(bundle)
    assert len(list(descriptors.iterdir())) == before


@pytest.mark.parametrize(
    ("engine", "name"), [("executorch", "libvmp_executorch.so"), ("tvm", "model.so"), ("tvm", "libcudart.so.13")]
)
def test_a_library_that_no_hash_covers_is_not_loaded(tmp_path, engine, name):
    """A process of its own loads the bundle: the code must not even begin to run."""
    evil = make_evil(tmp_path)
    gpu = {"architectures": [87], "cuda": "13.0", "device": "Orin"} if "cudart" in name else {}
    program = "model.so" if engine == "tvm" else "model.pte"
    path = tmp_path / "bundle"
    with staged_bundle(path) as staging:
        staging.add(program, b"a program")
        if name != program:
            staging.add(name, evil.library)
        model = {"num_classes": 3, "num_frames": FRAMES, "image_size": SIZE, "tubelet_size": 1}
        staging.seal(make_manifest(engine=engine, program=program, gpu=gpu, model=model))
    if name == program:  # it has to be listed, so it is exchanged instead
        shutil.copy(evil.library, path / name)
    else:
        manifest = yaml.safe_load((path / "manifest.yaml").read_text())
        del manifest["files"][name]
        (path / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
        with pytest.raises(BundleError, match="is not among the bundle's files"):
            Bundle.open(path)
    done = evil.check([sys.executable, "-m", "vmp_edge", "verify", path])
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert name == program or f"{name} is not among the bundle's files" in done.stderr


def test_a_copied_bundle_is_the_same(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    assert Bundle.open(tmp_path / "copy").manifest == Bundle.open(bundle).manifest
