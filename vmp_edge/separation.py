"""How a gallery's classes are told apart, and how well: a linear classifier where there are enough takes for one.

A prototype weighs all features alike. A linear classifier learns which of them differ between these classes, and needs
takes that it can hold out to learn that without taking one recording's peculiarities for the class.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
import numpy.typing as npt

from .gallery import Features, Gallery
from .linear import Linear, fit

LEAST_TAKES = 2  # of each class, so that one can be left out
ENOUGH_TAKES = 3  # of each class: from two, the linear classifier gains nothing (benchmarks/results/takes.md)
MOST_ROWS = 600  # examples that the classifier is fitted to, so that a small device is done in some seconds
MOST_OF_A_TAKE = 8
MOST_NEGATIVES = 200
NEGATIVE_PARTS = 5  # negatives have no takes; parts of them are held out together, in the order in which they came
SURE = 0.05  # chance that guessing does as well, under which it is no guessing
GOOD = 0.75  # accuracy under which a user is warned


@dataclass(frozen=True, eq=False)
class Separation:
    """A linear classifier of a gallery's classes.

    Attributes:
        names: The K classes.
        linear: Classifies features of unit length. With negatives, its last class is none of the gallery's.
        classes: Index of the class of each take, (takes,).
        guesses: What each take is recognised as by a classifier that has not seen it; K stands for none.
        has_none: Whether there are negatives.
        least: The least similarity of a left-out example to its class, of all classes.
        fewest: The number of takes of the class with the fewest.
    """

    names: tuple[str, ...]
    linear: Linear
    classes: npt.NDArray[np.int64]
    guesses: npt.NDArray[np.int64]
    has_none: bool
    least: float
    fewest: int

    @property
    def right(self) -> int:
        """The number of takes that are recognised as their class."""
        return int((self.classes == self.guesses).sum())

    @property
    def chance(self) -> float:
        """The share of takes that guessing would get right."""
        return 1 / (len(self.names) + self.has_none)

    @cached_property
    def is_guessing(self) -> bool:
        """Whether guessing would often do as well. It is not, if all takes are right."""
        count, p = len(self.classes), self.chance
        tail = sum(comb(count, n) * p**n * (1 - p) ** (count - n) for n in range(self.right, count + 1))
        return self.right < count and tail > SURE

    @property
    def is_weak(self) -> bool:
        """Whether many takes are wrong, though fewer than by guessing."""
        return self.right < GOOD * len(self.classes)

    def confusions(self) -> list[tuple[str, str | None, int, int]]:
        """List the classes that are often taken for another one, the worst first.

        Returns:
            The class, what it is taken for (None for none of the classes), how many of its takes are, and how many
            takes it has; of those for which it is at least half of the takes.
        """
        pairs = Counter(zip(self.classes.tolist(), self.guesses.tolist(), strict=True))
        counts = Counter(self.classes.tolist())
        found = [
            (self.names[own], self.names[other] if other < len(self.names) else None, number, counts[own])
            for (own, other), number in pairs.items()
            if own != other and 2 * number >= counts[own]
        ]
        return sorted(found, key=lambda item: -item[2] / item[3])


def separate(gallery: Gallery) -> Separation | None:
    """Fit a linear classifier to a gallery, and try it on each take.

    Returns:
        None where a class has too few takes, there is nothing to tell apart, or the classes are of texts.
    """
    classes = list(gallery.classes.values())
    if gallery.temperature is not None or len(classes) + (len(gallery.negatives) > 0) < 2 or not classes:
        return None
    takes = [len(np.unique(examples.takes)) for examples in classes]
    if min(takes) < LEAST_TAKES:
        return None
    most = int(np.clip(MOST_ROWS // sum(takes), 1, MOST_OF_A_TAKE))
    rows: list[Features] = []
    labels: list[int] = []
    groups: list[int] = []
    for index, examples in enumerate(classes):
        for take in np.unique(examples.takes):
            own = _spread(examples.features[examples.takes == take], most)
            groups += [max(groups, default=-1) + 1] * len(own)
            labels += [index] * len(own)
            rows.append(own)
    kept = _spread(gallery.negatives, MOST_NEGATIVES)
    parts = np.arange(len(kept)) * NEGATIVE_PARTS // max(len(kept), 1)
    first = max(groups) + 1
    features = np.concatenate([*rows, kept])
    group = np.concatenate([groups, first + parts]).astype(np.int64)
    label = np.concatenate([labels, np.full(len(kept), len(classes))]).astype(np.int64)
    linear = fit(features, label, group, weights=1 / np.bincount(group)[group])
    assert linear.held_out is not None  # each class has a take to hold out
    scores = np.zeros((first, linear.held_out.scores.shape[1]))
    np.add.at(scores, group[group < first], linear.held_out.scores[group < first])
    own_class = np.array([label[group == number][0] for number in range(first)])
    least = float(min(examples.left_out().min() for examples in classes))
    return Separation(gallery.names, linear, own_class, scores.argmax(1), len(kept) > 0, least, min(takes))


def _spread(features: Features, most: int) -> Features:
    """Return at most so many examples, spread evenly over all."""
    if len(features) <= most:
        return features
    return features[(2 * np.arange(most) + 1) * len(features) // (2 * most)]
