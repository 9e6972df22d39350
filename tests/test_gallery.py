"""Enrolled classes: prototypes, thresholds, their file, and their scores beside the trained classes."""

import contextlib
import dataclasses
import itertools
import os

import cv2
import numpy as np
import pytest
from brightness_engine import FEATURES
from bundles import FRAMES, SIZE, make_manifest, write_bundle

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import enroll, main
from vmp_edge.errors import GalleryError, UsageError
from vmp_edge.gallery import ALONE, NONE, TIGHTEST, Gallery, check_name, default_path, model_of
from vmp_edge.matcher import PASSED, Matcher
from vmp_edge.recognizer import sample_evenly
from vmp_edge.sources import Frame
from vmp_edge.stream.smoothing import Smoothing
from vmp_edge.stream.stream import Stream

RED, GREEN, BLUE = np.eye(3, dtype=np.float32)
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def clip_of(colour, count=4):
    """Return a clip of one colour, uint8 (count, 24, 32, 3) RGB. Its noise makes every frame different."""
    noise = np.random.default_rng(sum(COLOURS[colour]) + count).integers(0, 20, (count, 24, 32, 3))
    return (np.array(COLOURS[colour]) + noise).astype(np.uint8)


@pytest.fixture
def coloured(tmp_path):
    """The path of a bundle whose features are the mean of each colour."""
    return write_bundle(tmp_path / "coloured", make_manifest(features=FEATURES))


@pytest.fixture
def gallery(coloured):
    """A gallery of two classes, with two examples each."""
    gallery = Gallery.of(Bundle.open(coloured))
    with vmp_edge.load(coloured) as recognizer:
        for name in ("red", "green"):
            for count in (4, 7):
                gallery.add(name, recognizer.predict(clip_of(name, count)).features)
    return gallery


@pytest.fixture
def film(tmp_path):
    """A function that writes a video of one colour and returns its path."""

    def write(colour, count=24):
        path = tmp_path / f"{colour}-{count}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 24))
        for frame in clip_of(colour, count):
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        return path

    return write


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


# Features


def test_recogniser_splits_logits_and_features(coloured, bundle):
    video = np.random.default_rng(0).standard_normal((2, 3, 4, 16, 16), np.float32)
    with vmp_edge.load(coloured) as with_features, vmp_edge.load(bundle) as plain:
        np.testing.assert_array_equal(with_features.predict_video(video), plain.predict_video(video))
        np.testing.assert_allclose(with_features.features(video), video.mean((2, 3, 4)), rtol=1e-6)
        with pytest.raises(UsageError, match="--features"):
            plain.features(video)
        assert plain.predict(clip_of("red")).features is None


def test_features_that_the_program_does_not_give_are_refused(tmp_path):
    path = write_bundle(tmp_path / "b", make_manifest(features=7))
    with vmp_edge.load(path) as recognizer, pytest.raises(vmp_edge.BundleError, match=r"\(1, 6\).* 7 features"):
        recognizer.predict(clip_of("red"))


def test_a_manifest_with_features_must_fit_the_model():
    manifest = make_manifest(
        features=7, model={"embed_dim": 8}, files={"model.json": vmp_edge.bundle.FileEntry(1, "0" * 64)}
    )
    with pytest.raises(vmp_edge.BundleError, match="embed_dim is 8, elsewhere 7"):
        type(manifest).from_yaml(manifest.to_yaml())


# Prototypes and thresholds


def test_prototype_is_the_mean_of_unit_vectors():
    gallery = Gallery("m", 3)
    gallery.add("corner", np.stack([5 * RED, 0.1 * GREEN]))
    gallery.add("corner", BLUE)
    examples = gallery.classes["corner"]
    np.testing.assert_allclose(examples.prototype, np.full(3, 1 / np.sqrt(3)), rtol=1e-6)
    assert examples.takes.tolist() == [0, 0, 1]


def test_examples_of_one_take_are_left_out_together():
    gallery = Gallery("m", 3)
    gallery.add("one take", np.stack([RED, RED + GREEN]))
    gallery.add("two takes", np.stack([RED, RED]))
    gallery.add("two takes", RED + GREEN)
    np.testing.assert_allclose(gallery.classes["one take"].left_out(), [np.sqrt(0.5)] * 2, rtol=1e-6)
    np.testing.assert_allclose(gallery.classes["two takes"].left_out(), [np.sqrt(0.5)] * 3, rtol=1e-6)


def test_thresholds_follow_the_spread():
    gallery = Gallery("m", 3)
    gallery.add("alone", RED)
    assert gallery.thresholds() == {"alone": ALONE}
    gallery.add("alike", np.stack([GREEN, GREEN]))
    gallery.add("wide", np.stack([BLUE, BLUE + GREEN]))
    thresholds = gallery.thresholds()
    assert thresholds["alike"] == TIGHTEST and thresholds["wide"] == pytest.approx(np.sqrt(0.5))
    assert thresholds["alone"] == pytest.approx((1 + np.sqrt(0.5)) / 2, abs=1e-6)
    gallery.add_negatives(RED + GREEN)
    assert gallery.thresholds()["alone"] == pytest.approx((thresholds["alone"] + np.sqrt(0.5)) / 2, abs=1e-6)


def test_negatives_that_are_nearer_than_some_examples_raise_the_threshold():
    gallery = Gallery("m", 3)
    for angle in (-0.1, -0.05, 0.0, 0.05, 0.1, 0.9):
        gallery.add("x", np.cos(angle) * RED + np.sin(angle) * GREEN)
    farthest = gallery.classes["x"].left_out().min()
    gallery.add_negatives(np.stack([np.cos(a) * RED + np.sin(a) * BLUE for a in (0.5, 0.6, 0.7)]))
    assert farthest < np.cos(0.7)
    assert np.cos(0.5) < gallery.thresholds()["x"] < np.cos(0.2)


@pytest.mark.parametrize("features", [[], [0, 0, 0], [1, 2], [np.nan, 1, 1], np.ones((2, 2, 3))])
def test_wrong_features_are_refused(features):
    with pytest.raises(UsageError):
        Gallery("m", 3).add("x", features)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, 5])
def test_wrong_names_are_refused(name):
    with pytest.raises(UsageError):
        Gallery("m", 3).add(name, RED)


def test_remove_and_merge(gallery):
    other = Gallery(gallery.model, FEATURES)
    other.add("red", RED)
    other.add("blue", BLUE)
    other.add_negatives(GREEN)
    gallery.remove("green")
    gallery.merge(other)
    assert gallery.names == ("red", "blue") and len(gallery.negatives) == 1
    assert gallery.classes["red"].takes.tolist() == [0, 1, 2]
    with pytest.raises(UsageError, match="no class 'green'"):
        gallery.remove("green")
    with pytest.raises(GalleryError, match="two different models"):
        gallery.merge(Gallery("another", FEATURES))


# Beside the trained classes


def test_the_nearest_class_that_reaches_its_threshold_wins_else_the_trained_scores_stay(gallery, coloured):
    gallery = _of_one_take(gallery)
    matcher = Matcher(gallery, Bundle.open(coloured), 0.9)
    trained = np.array([[0.2, 0.7, 0.1]] * 3, np.float32)
    red, green = (gallery.classes[name].prototype for name in ("red", "green"))
    edge = 0.9 * red + np.sqrt(1 - 0.81) * _orthogonal(red)
    scores = matcher.combine(trained, np.stack([9 * green, edge * 1.0001 + 1e-4 * red, BLUE - RED - GREEN]))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(scores[0], [0, 0, 0, 0, 1], atol=1e-5)
    assert scores[1].argmax() == 3 and scores[1, 3] == pytest.approx(PASSED, abs=1e-2)
    np.testing.assert_allclose(scores[1, :3], (1 - scores[1, 3]) * trained[1], rtol=1e-5)
    np.testing.assert_array_equal(scores[2], [*trained[2], 0, 0])


def _of_one_take(gallery):
    """A gallery of the same examples, but too few takes for a linear classifier."""
    result = Gallery(gallery.model, gallery.size)
    for name, examples in gallery.classes.items():
        result.add(name, examples.features)
    return result


def _orthogonal(vector):
    """Return a unit vector that is orthogonal to a vector."""
    normal = np.cross(vector, RED + 2 * GREEN)
    return normal / np.linalg.norm(normal)


def test_recogniser_and_stream_know_enrolled_classes(gallery, coloured):
    with vmp_edge.load(coloured, gallery=gallery) as recognizer:
        assert recognizer.labels == ("brighter", "darker", "steady", "red", "green")
        assert recognizer.manifest.labels == ("brighter", "darker", "steady")
        assert recognizer.predict(clip_of("green", 5)).label == "green"
        prediction = recognizer.predict(clip_of("blue"))
        assert (
            prediction.label == "steady"
            and prediction.scores.shape == (5,)
            and prediction.scores[3:].tolist() == [0, 0]
        )
        stream = Stream(recognizer, hop=1, smoothing=Smoothing(windows=1, hold=2))
        predictions = [stream.push(frame) for frame in np.concatenate([clip_of("blue", 8), clip_of("red", 12)])]
    labels = [prediction.label for prediction in predictions if prediction]
    assert labels[0] == "steady" and labels[-1] == "red"
    assert sum(a != b for a, b in itertools.pairwise(labels)) == 1
    assert predictions[-1].features.shape == (FEATURES,) and predictions[-1].score > PASSED


def test_a_gallery_changed_later_does_not_change_a_recogniser(gallery, coloured):
    with vmp_edge.load(coloured, gallery=gallery) as recognizer:
        gallery.remove("red")
        assert recognizer.predict(clip_of("red")).label == "red"


def test_an_empty_gallery_changes_nothing(coloured):
    empty = Gallery.of(Bundle.open(coloured))
    with vmp_edge.load(coloured, gallery=empty) as recognizer:
        assert recognizer.predict(clip_of("red")).scores.shape == (3,)


def test_galleries_of_other_models_are_refused(gallery, coloured, bundle, tmp_path):
    other_bundle = write_bundle(tmp_path / "other", make_manifest(features=FEATURES), gain=6.0)
    for path, words in ((other_bundle, "another model"), (bundle, "build it with --features")):
        with pytest.raises(GalleryError, match=words):
            vmp_edge.load(path, gallery=gallery)
    gallery.add("darker", RED)
    with pytest.raises(GalleryError, match="'darker' already"):
        vmp_edge.load(coloured, gallery=gallery)
    for threshold in (-1, 1, float("nan")):
        with pytest.raises(UsageError, match="between -1 and 1"):
            vmp_edge.load(coloured, gallery=Gallery.of(Bundle.open(coloured)), threshold=threshold)
    with pytest.raises(UsageError, match="give their gallery"):
        vmp_edge.load(coloured, threshold=0.5)


def test_labels_and_tools_do_not_make_another_model(coloured, tmp_path):
    renamed = write_bundle(tmp_path / "b", make_manifest(features=FEATURES, labels=("a", "b", "c"), tools={"x": "1"}))
    slower = write_bundle(tmp_path / "c", make_manifest(features=FEATURES, frames=8, model={}))
    models = [model_of(Bundle.open(path)) for path in (coloured, renamed, slower)]
    assert models[0] == models[1] != models[2]


# The file


def test_the_file_has_all_of_the_gallery(gallery, tmp_path):
    gallery.add_negatives(BLUE)
    path = tmp_path / "g.npz"
    gallery.save(path)
    loaded = Gallery.load(path)
    assert (loaded.model, loaded.size, loaded.names) == (gallery.model, gallery.size, gallery.names)
    assert loaded.thresholds() == pytest.approx(gallery.thresholds())
    for name in gallery.names:
        np.testing.assert_allclose(loaded.classes[name].features, gallery.classes[name].features, rtol=1e-6)
        np.testing.assert_array_equal(loaded.classes[name].takes, gallery.classes[name].takes)
    assert list(tmp_path.glob("*g.npz*")) == [path]
    Gallery("m", 3).save(path)
    assert Gallery.load(path).names == ()


def test_failed_write_leaves_the_old_file(gallery, tmp_path, monkeypatch):
    path = tmp_path / "g.npz"
    gallery.save(path)
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(GalleryError, match="cannot be written"):
        gallery.save(path)
    assert path.read_bytes() == before and list(tmp_path.glob(".g.npz*")) == []


def _damage(path, **changes):
    """Replace arrays of a gallery's file."""
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"gallery": np.array("{}")},
        {"gallery": np.array("[")},
        {"gallery": np.array('{"format": 2}')},
        {"examples": np.full((4, 3), np.nan, np.float32)},
        {"examples": np.ones((4, 2), np.float32)},
        {"classes": np.zeros(4, np.int32)},
        {"classes": np.arange(4, dtype=np.int32)},
        {"takes": np.zeros(3, np.int32)},
        {"takes": np.zeros(4)},
        {"negatives": np.ones((1, 9), np.float32)},
        {"examples": np.array([object()])},
    ],
)
def test_damaged_files_are_a_one_line_error(gallery, tmp_path, changes):
    path = tmp_path / "g.npz"
    gallery.save(path)
    _damage(path, **changes)
    with pytest.raises(GalleryError, match=r"g\.npz is not a gallery, or is damaged") as caught:
        Gallery.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 10, 200])
def test_truncated_and_missing_files_are_errors(gallery, tmp_path, size):
    path = tmp_path / "g.npz"
    gallery.save(path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(GalleryError, match="is damaged"):
        Gallery.load(path)
    with pytest.raises(GalleryError, match="does not exist"):
        Gallery.load(tmp_path / "none.npz")
    with pytest.raises(GalleryError, match="cannot be read"):
        Gallery.load(tmp_path)


# The command line


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


# Classes by texts


@pytest.fixture
def headless(tmp_path):
    """The path of a bundle without classes, whose features are the mean of each colour."""
    model = {"num_classes": 0, "num_frames": FRAMES, "image_size": SIZE}
    return write_bundle(tmp_path / "headless", make_manifest(model=model, labels=(), features=FEATURES))


def test_texts_are_scored_by_their_cosines_over_the_temperature(headless, tmp_path):
    bundle = Bundle.open(headless)
    gallery = Gallery.of(bundle)
    gallery.add_text("red", 5 * RED, 0.5)
    gallery.add_text("green", GREEN, 0.5)
    gallery.save(tmp_path / "texts.npz")
    gallery = Gallery.load(tmp_path / "texts.npz")
    assert gallery.temperature == 0.5 and gallery.names == ("red", "green")
    features = np.array([[0.6, 0.2, 0.1], [0.1, 0.2, 0.9]], np.float32)  # of no unit length: of several frames
    trained = np.ones((2, 1), np.float32)
    expected = [
        [0, *(np.exp([1.2, 0.4]) / np.exp([1.2, 0.4]).sum())],
        [0, *(np.exp([0.2, 0.4]) / np.exp([0.2, 0.4]).sum())],
    ]
    np.testing.assert_allclose(Matcher(gallery, bundle).combine(trained, features), expected, rtol=1e-5)
    with_threshold = Matcher(gallery, bundle, 0.5).combine(trained, features)
    np.testing.assert_allclose(with_threshold, [expected[0], [1, 0, 0]], rtol=1e-5)


def test_texts_and_examples_do_not_mix(tmp_path):
    texts, examples = Gallery("m", 3), Gallery("m", 3)
    texts.add_text("red", RED, 0.1)
    examples.add("green", GREEN)
    for change in (lambda: texts.add("x", RED), lambda: texts.add_negatives(RED), lambda: texts.merge(examples)):
        with pytest.raises(UsageError, match="holds classes by texts"):
            change()
    for change in (lambda: examples.add_text("x", RED, 0.1), lambda: examples.merge(texts)):
        with pytest.raises(UsageError, match="holds classes by examples"):
            change()
    for temperature in (0.0, -1.0, float("nan"), 1e3):
        with pytest.raises(UsageError, match="the temperature is"):
            texts.add_text("blue", BLUE, temperature)
    other = Gallery("m", 3)
    other.merge(texts)
    assert other.temperature == 0.1 and other.names == ("red",)


def test_a_model_without_classes_knows_those_of_its_gallery(headless):
    with vmp_edge.load(headless) as recognizer:
        assert recognizer.labels == (NONE,)
        prediction = recognizer.predict(clip_of("red"))
        assert (prediction.label, prediction.score) == (NONE, 1.0) and prediction.features is not None
        with pytest.raises(UsageError, match="recognises nothing by itself"):
            recognizer.require_classes()
        gallery = Gallery.of(recognizer.bundle)
        for count in (4, 7):
            gallery.add("red", recognizer.predict(clip_of("red", count)).features)
    with vmp_edge.load(headless, gallery=gallery) as recognizer:
        assert recognizer.labels == (NONE, "red")
        assert [recognizer.predict(clip_of(colour)).label for colour in ("red", "blue")] == ["red", NONE]
    with pytest.raises(UsageError, match="trained on a class 'none of these' already"):
        check_name(NONE, Bundle.open(headless))


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
