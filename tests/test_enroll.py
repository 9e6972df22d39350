"""`vmp-edge enroll`: classes from videos and cameras, and what it says."""

import contextlib
import dataclasses

import numpy as np
import pytest
from brightness_engine import FEATURES
from bundles import FRAMES, SIZE, make_manifest, write_bundle
from colours import clip_of
from commands import run

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import enroll
from vmp_edge.gallery import Gallery, default_path
from vmp_edge.recognizer import sample_evenly
from vmp_edge.sources import Frame


def test_enroll_and_run(capsys, coloured, film):
    red, green = film("red"), film("green")
    code, out, err = run(capsys, "enroll", coloured, "--name", "my red", "--source", red, film("red", 30), "--json")
    assert code == 0 and sum("examples" in line for line in err) == 2
    assert '"takes": 2' in out[-1] and default_path(coloured).is_file()
    code, out, _ = run(capsys, "enroll", coloured, "--negative", "--source", green, film("blue"))
    assert code == 0 and "negatives" in out[-1]
    gallery = default_path(coloured)
    for video, expected in ((red, "my red"), (green, "steady")):
        code, out, _ = run(capsys, "run", coloured, "--gallery", gallery, "--source", video, "--headless")
        assert code == 0 and expected in out[0]
    code, out, _ = run(
        capsys, "run", coloured, "--gallery", gallery, "--threshold", 0.9999999, "--source", red, "--headless"
    )
    assert code == 0 and "steady" in out[0]
    code, out, _ = run(capsys, "enroll", coloured, "--remove", "my red")
    assert code == 0 and "0 classes" in out[-1]
    assert run(capsys, "verify", coloured)[0] == run(capsys, "info", coloured)[0] == 0


def test_a_clip_shorter_than_a_window_is_one_example(capsys, coloured, film, tmp_path):
    gallery = tmp_path / "mine.npz"
    command = ("enroll", coloured, "--gallery", gallery, "--name", "blue", "--source", film("blue", 2))
    assert run(capsys, *command)[0] == 0
    assert len(Gallery.load(gallery).classes["blue"].features) == 1
    assert run(capsys, *command)[0] == 0  # again: a second take
    assert Gallery.load(gallery).classes["blue"].takes.tolist() == [0, 1]


class Camera:
    """A live source that never ends, and is lost and back once."""

    name, live, fps, frame_count = "camera 0", True, 30.0, None

    def __init__(self):
        self.count, self.closed = 0, False

    def read(self):
        assert not self.closed
        self.count += 1
        picture = clip_of("red", 1)[0][..., ::-1]
        return Frame(np.ascontiguousarray(picture), 50 + self.count / 30, restarted=self.count == 10)

    def close(self):
        self.closed = True


def test_a_camera_is_watched_for_a_while(capsys, coloured, monkeypatch):
    camera = Camera()
    monkeypatch.setattr(enroll, "open_source", lambda text, tell: camera)
    code, out, err = run(capsys, "enroll", coloured, "--name", "red", "--source", "0", "--seconds", 0.99, "--hop", 2)
    assert code == 0 and camera.count == 31 and camera.closed
    assert any("show it now, for 0.99 seconds" in line for line in err)
    assert "red  12 examples of 1 take," in out[0]  # windows end at frames 4, 6, 8, then 13, 15 ... 29


def test_merge_and_list(capsys, coloured, gallery, tmp_path):
    target, source = tmp_path / "target.npz", tmp_path / "source.npz"
    gallery.save(source)
    Gallery.of(Bundle.open(coloured)).save(target)
    assert run(capsys, "enroll", coloured, "--gallery", target, "--merge", source)[0] == 0
    before = target.read_bytes()
    code, out, _ = run(capsys, "enroll", coloured, "--gallery", target, "--list")
    assert code == 0 and "red" in out[0] and "green" in out[1] and "2 classes" in out[-1]
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--name", "x"), 2, "give --source"),
        (("--list", "--source", "a.mp4"), 2, "give --source"),
        (("--name", "steady", "--source", "a.mp4"), 2, "'steady' already"),
        (("--name", "x", "--source", "a.mp4", "--seconds", "0"), 2, "--seconds"),
        (("--name", "x", "--source", "a.mp4"), 1, "does not exist"),
        (("--list",), 1, "make one with `vmp-edge enroll`"),
        (("--remove", "x"), 1, "make one with `vmp-edge enroll`"),
    ],
)
def test_failures_are_a_one_line_error_and_write_nothing(capsys, coloured, arguments, code, words):
    before = sorted(coloured.parent.iterdir())
    result, _, err = run(capsys, "enroll", coloured, *arguments)
    assert result == code and words in err[-1] and sorted(coloured.parent.iterdir()) == before


def test_a_bundle_without_features_says_what_to_do(capsys, bundle, film):
    code, _, err = run(capsys, "enroll", bundle, "--name", "x", "--source", film("red"))
    assert code == 1 and err[-1].endswith("build it with --features")


def test_a_camera_is_watched_until_a_long_window_is_full(capsys, tmp_path, monkeypatch):
    """4 frames over 10 s: the first window is full after 7.5 s, and windows of five seconds more are examples."""
    path = write_bundle(tmp_path / "long", make_manifest(features=FEATURES, span=10.0))
    camera = Camera()
    camera.read = lambda read=camera.read: dataclasses.replace(read(), restarted=False)
    monkeypatch.setattr(enroll, "open_source", lambda text, tell: camera)
    code, _, err = run(capsys, "enroll", path, "--name", "red", "--source", "0", "--hop", 30)
    assert code == 0 and any("show it now, for 12.5 seconds" in line for line in err)
    assert camera.count == 376 and len(Gallery.load(default_path(path)).classes["red"].features) >= 5


def test_a_clip_shorter_than_a_long_window_takes_little_memory(tmp_path, film):
    path = write_bundle(tmp_path / "long", make_manifest(features=FEATURES, span=3600.0))
    with vmp_edge.load(path) as recognizer:
        short = enroll._ShortClip(recognizer)
        for value in range(5000):
            short.add(np.full((48, 64, 3), value / 20, np.uint8))
            assert len(short._pictures) <= enroll._PICTURES
        assert {picture.shape for picture in short._pictures} == {(SIZE, SIZE, 3)}
        whole = np.arange(5000)[sample_evenly(5000, FRAMES)] / 20
        kept = [short._pictures[place].mean() for place in sample_evenly(len(short._pictures), FRAMES)]
        np.testing.assert_allclose(kept, whole, atol=1.5)
        (features,) = enroll.examples(recognizer, str(film("red")))
        with contextlib.closing(vmp_edge.open_source(str(film("red")))) as source:
            clip = np.stack([frame.image[..., ::-1] for frame in iter(source.read, None)])
        np.testing.assert_array_equal(features, recognizer.predict(clip).features)
