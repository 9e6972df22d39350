"""Telling a gallery's classes apart by a linear classifier, and how well that works."""

import json

import numpy as np
import pytest
from brightness_engine import FEATURES
from bundles import make_manifest, write_bundle

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import main
from vmp_edge.gallery import Gallery, default_path, unit
from vmp_edge.matcher import Matcher
from vmp_edge.separation import ENOUGH_TAKES, MOST_ROWS, separate

SIZE = 20


def gallery_of(takes, distance=2.0, names="abc", seed=0, examples=3, model="m", size=SIZE):
    """A gallery with so many takes of each class. A take's examples are much alike."""
    rng = np.random.default_rng(seed)
    gallery = Gallery(model, size)
    for name in names:
        centre = distance * rng.normal(size=size)
        for _ in range(takes):
            take = centre + rng.normal(size=size)
            gallery.add(name, take + 0.1 * rng.normal(size=(examples, size)))
    return gallery


def test_classes_that_differ_are_told_apart():
    separation = separate(gallery_of(4))
    assert separation.right == len(separation.classes) == 12
    assert not separation.is_guessing and not separation.is_weak and separation.confusions() == []
    assert separation.chance == pytest.approx(1 / 3) and not separation.has_none


def test_classes_that_do_not_differ_are_found_out():
    """The takes are alike inside and differ at random, so that whoever has seen one recognises it."""
    separation = separate(gallery_of(4, distance=0.0))
    assert separation.is_guessing and separation.confusions()


def test_two_classes_that_are_the_same_are_named():
    gallery = gallery_of(6, distance=4.0, names="abcdef")
    same = gallery_of(12, distance=4.0, names="x", seed=5).classes["x"]
    for take in range(12):
        gallery.add("left" if take % 2 else "right", same.features[same.takes == take])
    separation = separate(gallery)
    assert {name for name, *_ in separation.confusions()} <= {"left", "right"}
    assert separation.right >= 36 and not separation.is_guessing


def test_one_take_of_a_class_is_not_enough():
    gallery = gallery_of(3)
    gallery.add("d", np.ones(SIZE))
    assert separate(gallery) is None
    assert separate(gallery_of(3, names="a")) is None  # nothing to tell apart
    assert separate(Gallery("m", SIZE)) is None
    texts = Gallery("m", SIZE)
    texts.add_text("a", np.ones(SIZE), 1.0)
    assert separate(texts) is None


def test_negatives_are_a_class_of_their_own():
    gallery = gallery_of(4, names="a")
    others = gallery_of(8, names="n", seed=3).classes["n"].features
    gallery.add_negatives(others)
    separation = separate(gallery)
    assert separation.has_none and separation.chance == 0.5 and separation.right == 4
    scores = separation.linear.scores(np.concatenate([gallery.classes["a"].features, others]))
    assert scores.shape == (12 + 24, 2) and (scores[12:].argmax(1) == 1).all()


def test_large_galleries_are_thinned_out():
    gallery = gallery_of(20, names="abcde", examples=40)
    gallery.add_negatives(np.random.default_rng(0).normal(size=(5000, SIZE)))
    separation = separate(gallery)
    assert len(separation.classes) == 100 and len(separation.linear.held_out.classes) <= MOST_ROWS + 200


# Beside the trained classes


@pytest.fixture
def coloured(tmp_path):
    return write_bundle(tmp_path / "coloured", make_manifest(features=FEATURES))


@pytest.fixture
def gallery(coloured):
    """Two classes of features in three dimensions that differ in a small component alone, and negatives."""
    gallery = Gallery.of(Bundle.open(coloured))
    for sign, name in ((1, "left"), (-1, "right")):
        for take in range(3):
            gallery.add(name, [[1, 0.3 * (take - 1), 0.1 * sign], [1, 0.3 * (take - 1) + 0.05, 0.12 * sign]])
    gallery.add_negatives(np.array([[0, 1, 0.1], [0.1, 1, -0.1], [-0.1, 1, 0], [0, 1, 0]], np.float32))
    return gallery


def test_the_linear_classifier_decides_and_negatives_are_none(gallery, coloured):
    matcher = Matcher(gallery, Bundle.open(coloured))
    trained = np.tile(np.array([0.2, 0.7, 0.1], np.float32), (4, 1))
    queries = np.array([[5, 2.0, 0.6], [5, 2.0, -0.6], [0, 3, 0.1], [-1, 0, 0]], np.float32)
    scores = matcher.combine(trained, queries)
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    assert scores.argmax(1).tolist() == [3, 4, 1, 1]
    assert scores[0, 3] > 0.5 > scores[0, 4] > 0
    np.testing.assert_allclose(scores[0, :3] / scores[0, :3].sum(), trained[0], rtol=1e-4)
    np.testing.assert_array_equal(scores[2:], [[*trained[2], 0, 0]] * 2)  # a negative, and one far from all
    assert matcher.rejects


def test_a_threshold_still_counts(gallery, coloured):
    query = np.array([[5, 2.0, 0.6]], np.float32)
    trained = np.array([[0.2, 0.7, 0.1]], np.float32)
    assert Matcher(gallery, Bundle.open(coloured)).combine(trained, query).argmax() == 3
    assert Matcher(gallery, Bundle.open(coloured), 0.98).combine(trained, query).argmax() == 1


def test_without_negatives_the_thresholds_decide_what_is_none(coloured):
    gallery = gallery_of(3, names=("p", "q"), model=Gallery.of(Bundle.open(coloured)).model, size=FEATURES, distance=4)
    matcher = Matcher(gallery, Bundle.open(coloured))
    trained = np.array([[0.2, 0.7, 0.1]], np.float32)
    own = gallery.classes["q"].prototype
    assert matcher.combine(trained, own[None]).argmax() == 4
    np.testing.assert_array_equal(matcher.combine(trained, -own[None])[:, :3], trained)


@pytest.mark.parametrize("takes", [2, 3])
def test_prototypes_decide_until_there_are_enough_takes(coloured, takes):
    """The scores of prototypes say how similar a window is, and those of the classifier how probable a class is."""
    gallery = Gallery.of(Bundle.open(coloured))
    for sign, name in ((1, "left"), (-1, "right")):
        for take in range(takes):
            gallery.add(name, [[1, 0.01 * take, 0.5 * sign], [1, 0.01 * take, 0.52 * sign]])
    trained, query = np.array([[0.2, 0.7, 0.1]], np.float32), np.array([[1, 0, 0.51]], np.float32)
    score = Matcher(gallery, Bundle.open(coloured)).combine(trained, query)[0, 3]
    probability = separate(gallery).linear.scores(unit(query))[0, 0]
    assert (abs(score - probability) < 1e-5) == (takes >= ENOUGH_TAKES)


def test_the_file_is_the_same_as_before(gallery, tmp_path):
    """What the classifier is made of is in the file already, so that devices of any version read it."""
    gallery.save(tmp_path / "g.npz")
    loaded = separate(Gallery.load(tmp_path / "g.npz"))
    before = separate(gallery)
    np.testing.assert_allclose(loaded.linear.weight, before.linear.weight, rtol=1e-4, atol=1e-4)


# The command line


def listed(capsys, bundle, *arguments):
    assert main(["enroll", str(bundle), "--list", *arguments]) == 0
    return capsys.readouterr()


def test_enroll_says_how_well_classes_are_told_apart(capsys, coloured):
    model = Gallery.of(Bundle.open(coloured)).model
    path = default_path(coloured)
    gallery_of(4, names=("clap", "wave"), model=model, size=FEATURES, distance=10).save(path)
    out, err = listed(capsys, coloured)
    assert "8 of 8 right, 100.0%; guessing would be right in 50.0%" in out and "cannot" not in err
    gallery_of(8, names=("clap", "wave"), model=model, size=FEATURES, distance=0).save(path)
    out, err = listed(capsys, coloured, "--json")
    assert "cannot be told apart" in err and "what helps" in err
    result = json.loads(out.splitlines()[-1])["left_out"]
    assert result["takes"] == 16 and result["right"] < 12 and not result["told_apart"]
    gallery = gallery_of(2, names=("clap", "wave"), model=model, size=FEATURES)
    gallery.add("wink", np.ones(FEATURES))
    gallery.save(path)
    out, err = listed(capsys, coloured)
    assert "not checked" in err and "'wink' has one" in err and "right" not in out


def test_loading_a_gallery_needs_neither_torch_nor_scikit_learn(gallery, coloured, tmp_path, monkeypatch):
    import sys

    path = tmp_path / "g.npz"
    gallery.save(path)
    for name in ("torch", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    with vmp_edge.load(coloured, gallery=path) as recognizer:
        assert recognizer.labels[-2:] == ("left", "right")
