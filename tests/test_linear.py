"""The linear classifier of features, and how its strength of regularisation is chosen."""

import numpy as np
import pytest

from vmp_edge.linear import DECAYS, Problem, divide, fit, softmax, solve


def points(count, size, classes, distance=1.0, seed=0):
    """Features (count, size) of classes around random centres, with the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return distance * rng.normal(size=(classes, size))[labels] + rng.normal(size=(count, size)), labels


@pytest.mark.parametrize(("count", "size"), [(60, 8), (30, 50)])
def test_the_solution_is_that_of_scikit_learn(count, size):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = points(count, size, 3)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, count)
    weights /= weights.sum()
    x -= x.mean(0)
    for decay in (DECAYS[0], DECAYS[3]):
        solution = solve(Problem(x, y, weights, decay))
        known = linear_model.LogisticRegression(C=1 / decay, max_iter=5000, tol=1e-10).fit(x, y, weights)
        np.testing.assert_allclose(softmax(x @ solution[:, :-1].T + solution[:, -1]), known.predict_proba(x), atol=1e-3)


def test_scores_of_held_out_examples_make_sense():
    """Of what is recognised with a probability of about p, about p is right; noise is recognised by chance."""
    x, y = points(1200, 12, 3, distance=0.5)
    result = fit(x, y, np.arange(1200) // 6)
    scores = result.held_out.scores
    assert scores.sum(1) == pytest.approx(np.ones(1200), abs=1e-9)
    assert abs(scores.max(1).mean() - result.held_out.accuracy) < 0.04
    assert 0.5 < result.held_out.accuracy < 0.95
    noise = fit(np.random.default_rng(2).normal(size=(300, 40)), y[:300], np.arange(300))
    assert noise.held_out.accuracy < 0.45 and noise.held_out.scores.max(1).mean() < 0.5


def test_examples_of_a_group_are_held_out_together():
    """Groups whose examples are almost the same, with random labels: whoever has seen the group recognises them."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    x, y = (rng.normal(size=(40, 30)) * 5)[groups] + 0.01 * rng.normal(size=(200, 30)), rng.integers(0, 2, 40)[groups]
    assert fit(x, y, np.arange(200)).held_out.accuracy > 0.9
    assert fit(x, y, groups).held_out.accuracy < 0.75


def test_folds_have_a_part_of_each_class():
    classes = np.repeat([0, 1, 2], [12, 8, 4])
    takes = np.arange(24) // 2  # 6, 4 and 2 takes
    folds = divide(classes, takes, 4)
    assert folds.max() == 3 and all(len(set(folds[takes == take])) == 1 for take in range(12))
    for fold in range(4):
        assert (classes[folds == fold] == 0).any() and (classes[folds == fold] == 1).any()
    assert divide(classes, classes, 4) is None  # whatever is held out, its class is gone


def test_a_class_with_many_examples_is_not_preferred():
    x = np.concatenate([np.full((90, 1), -1.0), np.full((10, 1), 1.0)]) + np.random.default_rng(0).normal(size=(100, 1))
    result = fit(x, [0] * 90 + [1] * 10, np.arange(100))
    assert result.scores(np.array([[0.0]]))[0, 1] == pytest.approx(0.5, abs=0.15)


def test_without_groups_to_hold_out_there_is_a_classifier_all_the_same():
    x, y = points(12, 3, 2, distance=5.0)
    result = fit(x, y, y)
    assert result.held_out is None and (result.scores(x).argmax(1) == y).all()


def test_a_class_of_one_group_is_wrong_where_it_is_held_out():
    x, y = points(20, 3, 2, distance=5.0)
    groups = np.where(y == 0, np.arange(20), 99)
    held_out = fit(x, y, groups).held_out
    assert (held_out.guesses[y == 1] == 0).all()
