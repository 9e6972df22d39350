"""A linear classifier of features: logistic regression, whose strength of regularisation held-out examples decide.

A device uses it when it loads a gallery, and the workstation for the heads of models, so that it is NumPy alone. The
solution is that of scikit-learn's `LogisticRegression`, as a test compares; it takes a fraction of the time, because
each strength starts from the solution of the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DECAYS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)  # weights of the squared coefficients that are tried
USUAL_DECAY = 0.01  # where nothing can be held out
MOST_FOLDS = 10
_WORSE = 2  # strengths in a row that are worse than the best, after which no more are tried
_STEPS = 300  # most steps of the solver
_MEMORY = 10  # steps that the solver remembers
_CLOSE = 1e-5  # largest entry of the gradient at which it ends
_LEAST = 1e-12  # probability

Matrix = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Problem:
    """What a solver has to minimise: sum_i w_i cross_entropy_i + decay / 2 * |coefficients|^2.

    Attributes:
        features: (N, C), with mean 0 and mean square length 1.
        classes: Index of each example's class, (N,); every class from 0 to K - 1 has an example.
        weights: Weight of each example, (N,), adding up to 1.
        decay: Weight of the squared coefficients, above 0. The biases are free.
    """

    features: Matrix
    classes: Indices
    weights: Matrix
    decay: float


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What is recognised of examples by classifiers that have not seen them, nor any example of their group.

    Attributes:
        scores: Probability of each class, float64 (N, K).
        classes: Index of each example's class, (N,).
    """

    scores: Matrix
    classes: Indices

    @property
    def guesses(self) -> Indices:
        """The most probable class of each example, (N,)."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def accuracy(self) -> float:
        """The share of examples whose most probable class is theirs."""
        return float((self.guesses == self.classes).mean())


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear classifier.

    Attributes:
        weight: float64 (K, C).
        bias: float64 (K,).
        decay: The strength of regularisation that was chosen.
        held_out: How well it works; None if there was nothing to hold out.
    """

    weight: Matrix
    bias: Matrix
    decay: float
    held_out: HeldOut | None

    def scores(self, features: npt.NDArray[Any]) -> Matrix:
        """Return the probability of each class, float64 (N, K), for features (N, C)."""
        return softmax(features.astype(np.float64) @ self.weight.T + self.bias)


def fit(
    features: npt.NDArray[Any],
    classes: Sequence[int] | npt.NDArray[Any],
    groups: Sequence[Any] | npt.NDArray[Any],
    *,
    weights: npt.NDArray[Any] | None = None,
    most_folds: int = MOST_FOLDS,
    progress: Callable[..., Any] | None = None,
) -> Linear:
    """Fit a classifier.

    The groups are divided into folds, each of which is held out once, with every strength of `DECAYS`. The strength
    whose probabilities suit the held-out examples best is chosen, so that the scores make sense as well. What
    `Linear.held_out` has of a fold comes from the strength that suits the other folds best, so that no example has a
    part in the choice that it is judged by. Every class has the same weight, however many examples it has.

    Args:
        features: (N, C), finite.
        classes: Index of each example's class, 0 to K - 1; each class has an example.
        groups: Group of each example. Examples of one clip, person or scene belong together.
        weights: Weight of each example within its class; None takes equal ones.
        most_folds: Most folds.
        progress: Makes a progress bar, like `tqdm.tqdm`.
    """
    y = np.asarray(classes, np.int64)
    x = np.asarray(features, np.float64)
    share = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    mean = x.mean(0)
    scale = max(float(np.sqrt(np.square(x - mean).sum(1).mean())), 1e-30)
    x = (x - mean) / scale
    basis = None
    if len(x) < x.shape[1]:  # the solution is a combination of the examples, and is sought among these
        basis = np.linalg.svd(x, full_matrices=False)[2]
        x = x @ basis.T
    folds = divide(y, groups, most_folds)
    decay, held_out = USUAL_DECAY, None
    if folds is not None:
        decay, held_out = _choose(x, y, share, folds, progress)
    solution = solve(Problem(x, y, _balanced(y, share), decay))
    weight = solution[:, :-1] if basis is None else solution[:, :-1] @ basis
    weight = weight / scale
    return Linear(weight, solution[:, -1] - weight @ mean, decay, held_out)


def divide(classes: Indices, groups: Sequence[Any] | npt.NDArray[Any], most: int) -> Indices | None:
    """Divide groups into folds, so that as many folds as possible have a part of each class.

    Args:
        classes: Index of each example's class, (N,).
        groups: Group of each example.
        most: Most folds.

    Returns:
        The fold of each example, (N,); None if no class has a second group, so that nothing can be held out.
    """
    group = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
    table = np.zeros((group.max() + 1, classes.max() + 1))
    np.add.at(table, (group, classes), 1)
    count = min(most, int((table > 0).sum(0).max()))
    if count < 2:
        return None
    order = np.random.default_rng(0).permutation(len(table))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]  # the largest groups first
    filled = np.zeros((count, table.shape[1]))
    fold = np.zeros(len(table), np.int64)
    for number in order:
        own = table[number] > 0
        crowded = filled[:, own].sum(1)
        fold[number] = np.lexsort((filled.sum(1), crowded))[0]
        filled[fold[number]] += table[number]
    return fold[group]


def _choose(
    x: Matrix, y: Indices, share: Matrix, folds: Indices, progress: Callable[..., Any] | None
) -> tuple[float, HeldOut]:
    """Return the best strength, and what is recognised of held-out examples."""
    count, kinds = int(folds.max()) + 1, int(y.max()) + 1
    parts = [_Part(x, y, share, folds == fold) for fold in range(count)]
    weights = _balanced(y, share)
    bar = progress(total=len(DECAYS) * count, desc="fitting", unit="fit") if progress is not None else None
    scores: list[Matrix] = []
    losses: list[Matrix] = []  # of each fold
    for decay in DECAYS:
        scores.append(np.full((len(y), kinds), _LEAST))
        for part in parts:
            part.add_scores(decay, scores[-1])
            if bar is not None:
                bar.update()
        each = -np.log(np.maximum(scores[-1][np.arange(len(y)), y], _LEAST)) * weights
        losses.append(np.asarray(np.bincount(folds, each), np.float64))
        if int(np.argmin([loss.sum() for loss in losses])) < len(losses) - _WORSE:
            break
    if bar is not None:
        bar.close()
    total = np.stack(losses)  # (strengths, folds)
    chosen = np.zeros((len(y), kinds))
    for fold in range(count):
        others = total.sum(1) - total[:, fold]
        chosen[folds == fold] = scores[int(others.argmin())][folds == fold]
    return DECAYS[int(total.sum(1).argmin())], HeldOut(chosen, y)


class _Part:
    """The examples of a fold, and the others, on which a classifier for them is fitted with each strength in turn."""

    def __init__(self, x: Matrix, y: Indices, share: Matrix, held_out: npt.NDArray[np.bool_]) -> None:
        self.held_out = held_out
        self.known, self._places = np.unique(y[~held_out], return_inverse=True)
        self._inside, self._outside = x[~held_out], x[held_out]
        self._weights = _balanced(self._places, share[~held_out])
        self._solution: Matrix | None = None

    def add_scores(self, decay: float, scores: Matrix) -> None:
        """Write the held-out examples' probabilities of the classes that have other examples into `scores` (N, K)."""
        part = np.ones((len(self._outside), 1))
        if len(self.known) > 1:
            problem = Problem(self._inside, self._places, self._weights, decay)
            self._solution = solve(problem, self._solution)
            part = softmax(self._outside @ self._solution[:, :-1].T + self._solution[:, -1])
        scores[np.ix_(self.held_out, self.known)] = part


def _balanced(classes: Indices, share: Matrix) -> Matrix:
    """Return weights of examples that add up to 1, and to the same for each class."""
    total = np.bincount(classes, share)
    weights: Matrix = share / total[classes] / len(total)
    return weights


def solve(problem: Problem, start: Matrix | None = None) -> Matrix:
    """Solve a problem by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.5).

    Args:
        problem: The problem.
        start: Where to start, (K, C + 1); None starts from 0.

    Returns:
        Coefficients and biases, float64 (K, C + 1).
    """
    x, kinds = problem.features, int(problem.classes.max()) + 1
    width = x.shape[1]
    truth = np.zeros((len(x), kinds))
    truth[np.arange(len(x)), problem.classes] = 1

    def value(point: Matrix) -> tuple[float, Matrix]:
        solution = point.reshape(kinds, width + 1)
        logits = x @ solution[:, :-1].T + solution[:, -1]
        logits -= logits.max(1, keepdims=True)
        shares = np.exp(logits)
        sums = shares.sum(1, keepdims=True)
        loss = problem.weights @ (np.log(sums[:, 0]) - logits[np.arange(len(x)), problem.classes])
        errors = (shares / sums - truth) * problem.weights[:, None]
        slope = np.concatenate([errors.T @ x + problem.decay * solution[:, :-1], errors.sum(0)[:, None]], axis=1)
        return float(loss + problem.decay / 2 * np.square(solution[:, :-1]).sum()), slope.reshape(-1)

    point = _descend(value, np.zeros(kinds * (width + 1)) if start is None else start.reshape(-1))
    return np.asarray(point.reshape(kinds, width + 1))


def _descend(value: Callable[[Matrix], tuple[float, Matrix]], point: Matrix) -> Matrix:
    """Minimise a convex function, given its value and its gradient."""
    loss, slope = value(point)
    steps: list[tuple[Matrix, Matrix, float]] = []  # differences of points and gradients, and 1 / their product
    for _ in range(_STEPS):
        if np.abs(slope).max() < _CLOSE:
            break
        direction = -_curved(slope, steps)
        downhill = float(slope @ direction)
        length = 1.0
        while True:
            there = point + length * direction
            new_loss, new_slope = value(there)
            if new_loss <= loss + 1e-4 * length * downhill or length < 1e-10:
                break
            length /= 2
        moved, changed = there - point, new_slope - slope
        product = float(moved @ changed)
        if product > 1e-14:
            steps = [*steps[1 - _MEMORY :], (moved, changed, 1 / product)]
        point, loss, slope = there, new_loss, new_slope
    return point


def _curved(slope: Matrix, steps: Sequence[tuple[Matrix, Matrix, float]]) -> Matrix:
    """Multiply a gradient with the inverse of the Hessian, as the last steps suggest it."""
    result, factors = slope.copy(), []
    for moved, changed, inverse in reversed(steps):
        factors.append(inverse * float(moved @ result))
        result -= factors[-1] * changed
    if steps:
        moved, changed, _ = steps[-1]
        result *= float(moved @ changed) / float(changed @ changed)
    for (moved, changed, inverse), factor in zip(steps, reversed(factors), strict=True):
        result += moved * (factor - inverse * float(changed @ result))
    return np.asarray(result)


def softmax(logits: Matrix) -> Matrix:
    """Return rows (N, K) of exponentials that add up to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Matrix = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
