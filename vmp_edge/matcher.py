"""Recognise the classes of a gallery by the similarity of features, or by a linear classifier where there is one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .bundle.reading import Bundle
from .errors import UsageError
from .gallery import Features, Gallery, check_fits, unit
from .linear import softmax
from .separation import ENOUGH_TAKES, Separation, separate

PASSED = 0.55  # score of a class whose similarity equals its threshold: more than all others have left


class Matcher:
    """Recognises the classes of a gallery. Later changes of the gallery have no effect.

    Args:
        gallery: The classes.
        bundle: The bundle whose features are compared with the gallery.
        threshold: The least similarity for every class, between -1 and 1. None takes each class's own threshold, and
            classes by texts have none.

    Raises:
        GalleryError: The gallery holds features of another model, or a class with the name of a trained class.
        UsageError: The threshold is out of range.
    """

    def __init__(self, gallery: Gallery, bundle: Bundle, threshold: float | None = None) -> None:
        if threshold is not None and not -1 < threshold < 1:
            raise UsageError(f"the threshold is a cosine, between -1 and 1, not {threshold}")
        check_fits(gallery, bundle)
        self.names = gallery.names
        self._temperature = gallery.temperature
        prototypes = [examples.prototype for examples in gallery.classes.values()]
        self._prototypes = np.stack(prototypes) if prototypes else np.empty((0, gallery.size), np.float32)
        separation = separate(gallery)
        enough = separation is not None and separation.fewest >= ENOUGH_TAKES
        self._separation: Separation | None = separation if enough else None
        own = gallery.thresholds()
        if self._separation is not None and self._separation.has_none:  # which knows better what is none of the classes
            own = dict.fromkeys(self.names, self._separation.least)
        self._thresholds = np.array([own[name] if threshold is None else threshold for name in self.names])

    @property
    def rejects(self) -> bool:
        """Whether a video can be of none of the classes."""
        return bool((self._thresholds > -1).any()) or not self.names

    def similarities(self, features: Features) -> Features:
        """Return the cosines between features (B, C) and the K prototypes, float32 (B, K).

        For texts it is the product of the features as they are, which is the mean of the cosines over the frames.
        """
        cosines: Features = (unit(features) if self._temperature is None else features) @ self._prototypes.T
        return cosines

    def combine(self, trained: npt.NDArray[np.float32], features: Features) -> npt.NDArray[np.float32]:
        """Return the scores of the trained and the enrolled classes together.

        If no enrolled class reaches its threshold, the trained scores stay, and the enrolled classes have the score 0.
        Else, if there is a linear classifier (`separate`), its probabilities are the scores of the enrolled classes,
        and the trained classes share the probability of none of them. If none is the most probable, the trained scores
        stay.

        Without a linear classifier, of the enrolled classes whose similarity reaches their threshold the nearest one
        wins. Its score goes from `PASSED` at the threshold to 1 at a similarity of 1, and the trained classes share the
        rest.

        Classes by texts share the score 1 by the softmax of their similarities over the temperature, if the largest
        similarity reaches the threshold, and have the score 0 else.

        Args:
            trained: Scores of the trained classes, float32 (B, classes), each row adding up to 1.
            features: Features, float32 (B, C).

        Returns:
            Scores, float32 (B, classes + K), each row adding up to 1.
        """
        if not self.names:
            return trained
        similarities = self.similarities(features).astype(np.float64)
        if self._temperature is not None:
            shares = softmax(similarities / self._temperature)
            passes = (similarities >= self._thresholds).any(1, keepdims=True)
            return np.concatenate([trained * ~passes, shares * passes], 1).astype(np.float32)
        if self._separation is not None:
            passes = np.asarray((similarities >= self._thresholds).any(1))
            return self._separated(self._separation, trained, unit(features), passes)
        margins = (similarities - self._thresholds) / (1 - self._thresholds)  # 0 at the threshold, 1 at similarity 1
        nearest = np.where(margins >= 0, similarities, -2.0).argmax(1)
        rows = np.arange(len(similarities))
        margin = margins[rows, nearest]
        score = np.where(margin >= 0, PASSED + (1 - PASSED) * np.minimum(margin, 1), 0.0)
        enrolled = np.zeros_like(similarities)
        enrolled[rows, nearest] = score
        return np.concatenate([trained * (1 - score)[:, None], enrolled], 1).astype(np.float32)

    def _separated(
        self,
        separation: Separation,
        trained: npt.NDArray[np.float32],
        features: Features,
        passes: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """Return the scores by the linear classifier, for features of unit length, where `passes` is true."""
        scores = separation.linear.scores(features)
        count = len(self.names)
        passes = (passes & (scores.argmax(1) < count))[:, None]
        none = scores[:, count:].sum(1, keepdims=True)
        return np.concatenate([np.where(passes, trained * none, trained), passes * scores[:, :count]], 1).astype(
            np.float32
        )
