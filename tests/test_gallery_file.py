"""Files of galleries that are damaged or meant ill are refused in one line, and take neither time nor memory."""

import io
import json
import os
import random
import zipfile

import numpy as np
import pytest

from vmp_edge import gallery_file
from vmp_edge.errors import GalleryError
from vmp_edge.gallery import Gallery


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a sound gallery of three classes and two negatives."""
    rng = np.random.default_rng(0)
    gallery = Gallery("model", 6)
    for name in ("wave", "clap", "point"):
        gallery.add(name, rng.normal(size=(4, 6)).astype(np.float32))
        gallery.add(name, rng.normal(size=(2, 6)).astype(np.float32))
    gallery.add_negatives(rng.normal(size=(2, 6)).astype(np.float32))
    path = tmp_path_factory.mktemp("gallery") / "good.npz"
    gallery.save(path)
    return path.read_bytes()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def array_file(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(shape, kind="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def description(**changes):
    entries = {"format": 1, "model": "model", "features": 6, "names": ["wave", "clap", "point"], **changes}
    return array_file(np.array(json.dumps(entries)))


def error_of(path, content):
    path.write_bytes(content)
    with pytest.raises(GalleryError) as caught:
        Gallery.load(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and len(text) < 400
    return text


def test_a_compressed_gallery_is_read_alike(good, tmp_path):
    path = tmp_path / "g.npz"
    path.write_bytes(packed(members_of(good), zipfile.ZIP_DEFLATED))
    assert Gallery.load(path).names == ("wave", "clap", "point")


def deep(depth):
    return array_file(np.array("[" * depth + "]" * depth))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("zzz", header((10**13,)), "instead of 5"),
        ("examples", header((10**13, 6)), "another size than it says"),
        ("examples", header((10**9, 10**9)), "another size than it says"),
        ("examples", array_file(np.zeros((18, 6))), "another type or shape"),
        ("examples", array_file(np.zeros((18, 3, 2), np.float32)), "another type or shape"),
        ("examples", array_file(np.array([object()])), "known type"),
        ("examples", array_file(np.zeros(18, "f4,f4")), "known type"),
        ("examples", b"\x93NUMPY\x02\x00" + bytes(100), "no NumPy array"),
        ("examples", b"", "no NumPy array"),
        ("examples", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'" + b"(" * 90 + b"\n", "known type"),
        ("classes", array_file(np.zeros(18, np.int64)), "another type or shape"),
        ("takes", array_file(np.full(18, -1, np.int32)), "takes make no sense"),
        ("takes", array_file(np.full(18, 2**31 - 1, np.int32)), "takes make no sense"),
        ("gallery", deep(100_000), "damaged"),
        ("gallery", array_file(np.array('{"format": ' + "9" * 5000 + "}")), "numbers make no sense"),
        ("gallery", array_file(np.array("")), "damaged"),
        ("gallery", header((), "<U1") + b"\xff\xff\xff\x7f", "damaged"),
        ("gallery", description(format=True), "format True"),
        ("gallery", description(format=2), "damaged"),
        *(
            ("gallery", description(format=2, temperature=value), "temperature makes no sense")
            for value in (0.0, -1.0, 1, "1", None, 1e9, True)
        ),
        ("gallery", description(format=2, temperature=0.1), "something else than one feature of each text"),
        ("gallery", description(features=float("nan")), "NaN is among its entries"),
        ("gallery", description(features=2**70), "numbers make no sense"),
        ("gallery", description(names=["wave", "clap"]), "do not fit each other"),
        ("gallery", description(names=["wave", "clap", "wave"]), "two of them are the same"),
        ("gallery", description(names=["wave", "clap", ["point"]]), "not texts"),
        ("gallery", description(names=["wave", "clap", "point "]), "begins or ends with a blank"),
        ("gallery", description(names=["wave", "clap", "\x1b[2J"]), "U+001B"),
        ("gallery", description(names=["wave", "clap", "\u202epoint"]), "U+202E"),
        ("gallery", description(names=["wave", "clap", "\ud800"]), "U+D800"),
        ("gallery", description(names=["wave", "clap", "x" * 101]), "at most 100 characters"),
        ("gallery", description(names="abc"), "not texts"),
    ],
)
def test_members_that_lie_or_make_no_sense_are_refused(good, tmp_path, name, content, words):
    assert words in error_of(tmp_path / "g.npz", packed({**members_of(good), f"{name}.npy": content}))


@pytest.fixture
def small_limit(monkeypatch):
    """A limit of 1 MiB in place of 256."""
    monkeypatch.setattr(gallery_file, "MOST_BYTES", 1 << 20)


def test_a_member_that_is_no_part_of_a_gallery_is_not_read(good, tmp_path, small_limit):
    """Neither beside the others nor in place of one."""
    members = members_of(good)
    bomb = {**members, "zzz.npy": header((1 << 19,)) + bytes(1 << 21)}
    assert "6 members instead of 5" in error_of(tmp_path / "a.npz", packed(bomb, zipfile.ZIP_DEFLATED))
    del bomb["negatives.npy"]
    assert "'zzz.npy', which is no part of a gallery" in error_of(
        tmp_path / "b.npz", packed(bomb, zipfile.ZIP_DEFLATED)
    )


def test_a_member_that_swells_is_refused_before_it_is_read(good, tmp_path, small_limit):
    members = {**members_of(good), "negatives.npy": header((1 << 16, 6)) + bytes(24 << 16)}
    assert "too much memory" in error_of(tmp_path / "g.npz", packed(members, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(good, tmp_path, method):
    assert "compressed in an unknown way" in error_of(tmp_path / "g.npz", packed(members_of(good), method))


def test_a_gallery_that_could_not_be_read_again_is_not_written(tmp_path, small_limit):
    gallery = Gallery("model", 6)
    gallery.add("a", np.ones((1 << 16, 6), np.float32))
    with pytest.raises(GalleryError, match="enroll fewer examples"):
        gallery.save(tmp_path / "g.npz")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GalleryError, match="not a plain file"):
        Gallery.load(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(257 << 20)
    with pytest.raises(GalleryError, match="larger than 256 MiB"):
        Gallery.load(tmp_path / "huge")


def test_random_damage_is_refused_or_harmless(good, tmp_path):
    randomness, path, refused = random.Random(5), tmp_path / "g.npz", 0
    for _ in range(600):
        damaged = bytearray(good)
        for _ in range(randomness.choice((1, 1, 2, 5, 20))):
            damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
        path.write_bytes(damaged if randomness.random() < 0.8 else damaged[: randomness.randrange(len(damaged))])
        try:
            gallery = Gallery.load(path)
        except GalleryError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert all(np.isfinite(examples.features).all() for examples in gallery.classes.values())
    assert refused > 400
