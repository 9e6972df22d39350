"""Python and C read the same language of manifests, open the same bundles, and follow no locale."""

from __future__ import annotations

import ctypes
import random
import struct
import subprocess
import sys

import pytest
from bundles import make_manifest
from embedded import EdgeError, Library, write_fake
from manifests import changed_manifest, changed_text

from vmp_edge.bundle import language
from vmp_edge.bundle.dumping import dump
from vmp_edge.bundle.manifest import MOST_THREADS, Manifest
from vmp_edge.bundle.optional import FamilyEntry
from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError
from vmp_edge.names import unfit_name

TEXTS = (
    "a: 1\nb:\n- x\n- y: 2\n  z: 'q'\nc: {d: [1, 2.5, \"s\"], e: }\n",
    "- - a\n  - b\n- c: d\n  e:\n  - f\n-\n  - g # h\n",
    "[a, {b: c}, 'd e', \"f\\n\"]\n",
    "k: some text\n  goes on\nl: 'quoted\n\n  text'\nm: \"dq\\\n  \\ x\"\n",
    '{"a": [1, 2], "b":{"c":null}}\n',
    make_manifest(span=12.5, threads=2, features=4, libraries=("libm.so.6",)).to_yaml(),
)


class Reader:
    """The reader of the C library."""

    def __init__(self, path):
        self.c = ctypes.CDLL(str(path))
        for name in ("parse", "manifest", "unfit_name"):
            getattr(self.c, f"language_{name}").argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self.c.language_result.restype = ctypes.c_void_p
        self.c.language_result_size.restype = ctypes.c_size_t

    def _result(self) -> bytes:
        return ctypes.string_at(self.c.language_result(), self.c.language_result_size())

    def parse(self, data: bytes) -> tuple[bool, bytes]:
        """Return whether a text is in the language, and its tree as `described`, or the error."""
        return bool(self.c.language_parse(data, len(data))), self._result()

    def manifest(self, data: bytes) -> tuple[bool, bytes]:
        """Return whether a text is a manifest, and the error if not."""
        return bool(self.c.language_manifest(data, len(data))), self._result()

    def unfit_name(self, text: str) -> str:
        """Return what makes a text unfit as a name."""
        data = encoded(text)
        self.c.language_unfit_name(data, len(data))
        return self._result().decode()


@pytest.fixture(scope="module")
def reader(built):
    return Reader(built / "liblanguage.so")


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def described(value) -> bytes:
    """Return a tree as `language.cpp` writes it."""
    if value is None or isinstance(value, bool):
        return {None: b"null ", True: b"true ", False: b"false "}[value]
    if isinstance(value, int):
        return b"int %d " % value
    if isinstance(value, float):
        return b"float " + struct.pack(">d", value).hex().encode() + b" "
    if isinstance(value, str):
        return b"text %d " % len(encoded(value)) + encoded(value) + b" "
    if isinstance(value, list):
        return b"[ " + b"".join(map(described, value)) + b"] "
    return b"{ " + b"".join(described(key) + described(item) for key, item in value.items()) + b"} "


def has_only_texts_as_keys(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and has_only_texts_as_keys(item) for key, item in value.items())
    return all(map(has_only_texts_as_keys, value)) if isinstance(value, list) else True


def python_error(read, *arguments) -> str | None:
    """Return the error of a reader in Python, or None if it has none. Any other exception is a fault."""
    try:
        read(*arguments)
    except BundleError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.parametrize("seed", range(4))
def test_both_readers_give_the_same_tree_or_refuse(reader, seed):
    randomness, accepted = random.Random(seed), 0
    for _ in range(1500):
        data = encoded(changed_text(randomness.choice(TEXTS), randomness))
        if randomness.random() < 0.05:
            place = randomness.randrange(len(data))
            data = data[:place] + bytes([randomness.randrange(256)]) + data[place + 1 :]
        fits, found = reader.parse(data)
        error = python_error(language.parse, data)
        assert fits == (error is None), (data, error, found)
        if fits:
            accepted += 1
            tree = language.parse(data)
            assert not has_only_texts_as_keys(tree) or described(tree) == found, data
    assert 200 < accepted < 1300, "the changes are too wild, or too tame"


SIZES = {"num_frames": 4, "image_size": 16, "patch_size": 8, "tubelet_size": 2}
MODELS = {
    "classes": {
        "model": {**SIZES, "num_classes": 3, "embed_dim": 4, "initial_state": "zero"},
        "family": FamilyEntry("videomamba", "because --family says so"),
    },
    "features alone": {"model": {**SIZES, "num_classes": 0, "embed_dim": 4, "projection": 0}, "labels": ()},
    "video and text": {"model": {**SIZES, "num_classes": 0, "embed_dim": 8, "projection": 4}, "labels": ()},
}


@pytest.mark.parametrize("sampling", [{}, {"frame_rate": 12.5}, {"span": 10.0}])
@pytest.mark.parametrize("kind", MODELS)
def test_both_readers_take_the_same_manifests(reader, kind, sampling):
    randomness, accepted = random.Random(f"{kind} {sampling}"), 0
    manifest = make_manifest(
        **MODELS[kind],
        **{"threads": 2, "features": 4, "libraries": ("libm.so.6",), "soc": "SM8650"},
        **sampling,
        gpu={"architectures": [87, 90], "cuda": "13.0", "device": "Orin"},
        variants={"half": {"frames": 2, "top1": 0.5}},
    ).to_dict()
    files = {name: {"size": 2, "sha256": "0" * 64} for name in ("model.json", "other.bin")}
    if not sampling:  # as older versions wrote it
        manifest["input"]["frame_rate"] = 12.5
    text = dump({**manifest, "files": files})
    assert reader.manifest(text.encode())[0] and python_error(Manifest.from_yaml, text) is None
    for _ in range(1200):
        data = encoded(changed_manifest(text, randomness))
        fits, found = reader.manifest(data)
        error = python_error(Manifest.from_yaml, data)
        if b"embeds frame by frame" in found or b"of a causal model, whose steps" in found:  # which only Python reads
            continue
        assert fits == (error is None), (data.decode(errors="replace"), error, found)
        accepted += fits
    assert 50 < accepted < 1000, "the changes are too wild, or too tame"


def test_a_model_gives_labels_or_features(reader):
    for changes, problem in (
        ({"labels": (), "features": 0}, "neither labels nor features"),
        ({"labels": (), "features": 5}, "contradicts itself"),
        ({"labels": (), "features": 4, "model": {**SIZES, "projection": 5}}, "contradicts itself"),
        ({"features": 5, "labels": (), "model": {**SIZES, "projection": 5, "embed_dim": 4}}, None),
    ):
        manifest = make_manifest(**{"model": {**SIZES, "embed_dim": 4}, **changes}).to_dict()
        text = dump({**manifest, "files": {"model.json": {"size": 2, "sha256": "0" * 64}}})
        fits, found = reader.manifest(text.encode())
        error = python_error(Manifest.from_yaml, text)
        if problem is None:
            assert fits and error is None, (found, error)
        else:
            assert not fits and problem in found.decode() and error is not None and problem in error


def test_a_family_fits_the_model(reader):
    for family, state, problem in (
        ({"name": "videomamba", "reason": "because its name says so"}, "zero", None),
        ({"name": "videomambapro", "reason": "because its name says so"}, "first_input", None),
        ({"name": "videomamba", "reason": "because its name says so"}, "first_input", "contradicts itself"),
        ({"name": "videomambapro", "reason": "because its name says so"}, "zero", "contradicts itself"),
        ({"name": "videomamba3", "reason": "because it is new"}, "first_input", None),
        ({"name": "videomamba", "reason": "because"}, ["first_input"], None),
        ({"name": "videomamba"}, "zero", "family.reason"),
        ({"name": "", "reason": "because"}, "zero", "family.name"),
        ("videomamba", "zero", "family"),
    ):
        manifest = make_manifest(model={**SIZES, "initial_state": state}).to_dict()
        files = {"model.json": {"size": 2, "sha256": "0" * 64}}
        text = dump({**manifest, "files": files, "family": family})
        fits, found = reader.manifest(text.encode())
        error = python_error(Manifest.from_yaml, text)
        assert fits == (error is None) == (problem is None), (family, found, error)
        assert problem is None or (problem in found.decode() and problem in str(error))


def test_the_library_needs_classes(edge, engine_folder, tmp_path):
    bundle = write_fake(tmp_path / "headless", engine_folder, labels=(), features=4, model={})
    Bundle.open(bundle)
    with pytest.raises(EdgeError, match="gives features alone and recognises no classes by itself"):
        edge.recognizer(bundle, engine_folder, threads=1)


def test_both_open_the_same_bundles(edge, engine_folder, fake):
    randomness, text = random.Random(11), (fake / "manifest.yaml").read_text()
    opened = 0
    for _ in range(400):
        data = encoded(changed_manifest(text, randomness))
        (fake / "manifest.yaml").write_bytes(data)
        error = python_error(Bundle.open, fake)
        try:
            edge.c.vmp_edge_recognizer_destroy(edge.recognizer(fake, engine_folder))
            found = None
        except EdgeError as failure:
            found = str(failure)
        is_other_engine = found is not None and ("needs the engine" in found or "ExecuTorch runs on" in found)
        assert is_other_engine or (error is None) == (found is None), (data.decode(errors="replace"), error, found)
        opened += found is None
    assert 20 < opened < 300, "the changes are too wild, or too tame"


@pytest.mark.parametrize(
    "text",
    [
        *("a", "a b", "é", "日本語", "\U0001f600", "a\u200db", "'", "x" * 256, "<img src=x onerror=alert(1)>"),
        *("", " ", "\u3000", "\u200b", " a", "a ", "a\xa0", "x" * 257, "\x00", "a\nb", "\x1b[31m", "a\x7f", "a\x85b"),
        *("a\u2028b", "a\u202eb", "\u200fa", "\u061ca", "a\u2066b", "\ufeffa", "a\ud800", "\ufff9a", "a\uffff"),
    ],
)
def test_both_have_the_same_rules_for_names(reader, text):
    assert reader.unfit_name(text) == (unfit_name(text) or "")


def test_a_locale_with_a_decimal_comma_changes_nothing(built, fake, engine_folder, tmp_path):
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", tmp_path / "de_DE.UTF-8"], capture_output=True, check=False
    )
    if not (tmp_path / "de_DE.UTF-8").exists():
        pytest.skip(f"needs localedef and its sources (Debian: apt install locales): {made.stderr[-200:]!r}")
    write_fake(fake, engine_folder, frame_rate=12.5)
    program = f"""
import ctypes, locale, sys
locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
assert locale.localeconv()["decimal_point"] == ","
sys.path[:0] = {sys.path!r}
import numpy as np
from embedded import Library
edge = Library({str(built / "vmp_edge" / "libvmp_edge.so")!r})
recognizer = edge.recognizer({str(fake)!r}, {str(engine_folder)!r})
picture = np.zeros((16, 16, 3), np.uint8)
stream = edge.stream(recognizer)
edge.push(stream, picture, 2.5)
try:
    edge.push(stream, picture, 1.5)
except Exception as error:
    print(error)
print(edge.info(recognizer).frame_rate)
print(edge.predict(recognizer, np.zeros((4, 16, 16, 3), np.uint8))["json"])
"""
    environment = {"LOCPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    error, rate, result = done.stdout.splitlines()
    assert "(1.5 after 2.5)" in error and rate == "12.5" and '"score": 0.' in result, done.stdout


def test_a_million_threads_are_refused(edge: Library, fake, engine_folder):
    with pytest.raises(EdgeError, match=f"threads is 1000000; it must be 0 to {MOST_THREADS}"):
        edge.recognizer(fake, engine_folder, threads=1_000_000)
