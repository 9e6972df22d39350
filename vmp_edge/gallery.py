"""Galleries: classes that a user adds from a few examples, recognised beside the trained classes.

A class is represented by its prototype, the mean of its examples' features (Prototypical Networks, Snell et al. 2017,
arXiv 1703.05175). Here, features have unit length and are compared by cosine, and the class with the nearest prototype
wins. The features come from a bundle that was built with `--features`.

A gallery of a video-text model holds the features of texts instead. They are compared with a video's feature as the
published evaluation does it: by their product, which is the mean of the cosines over the video's frames.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import gallery_file
from .bundle.reading import Bundle
from .errors import GalleryError, UsageError
from .names import shown, unfit_name

SUFFIX = ".gallery.npz"
TIGHTEST = 0.98  # highest threshold: even if all examples are alike, the next one will differ a little
ALONE = 0.9  # threshold if no class has a second example, so that no spread is known
NONE = "none of these"  # the label of a model without classes of its own where no class is near enough
_MAX_NAME = 100
_TEXTS_ALONE = "the gallery holds classes by texts: keep examples in another --gallery FILE"

Features = npt.NDArray[np.float32]


def default_path(bundle: str | os.PathLike[str]) -> Path:
    """Return the default path of a bundle's gallery. It is beside the bundle, because a bundle takes no more files."""
    folder = Path(bundle).resolve()
    return folder.with_name(folder.name + SUFFIX)


def model_of(bundle: Bundle) -> str:
    """Return a SHA-256 that identifies a bundle's features: of its program, and of how frames are prepared for it."""
    manifest = bundle.manifest
    identity = {
        "program": manifest.files[manifest.program].sha256,
        "frames": manifest.frames,
        "image_size": manifest.image_size,
        "preprocessing": manifest.preprocessing.to_manifest(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Examples:
    """The examples of one class.

    Args:
        features: Features of the examples, float32 (N, C), each of unit length.
        takes: Number of the clip or recording (the take) of each example, int32 (N,). Examples of one take are much
            alike.
    """

    features: Features
    takes: npt.NDArray[np.int32]

    @property
    def prototype(self) -> Features:
        """The mean of the features, scaled to unit length, float32 (C,)."""
        return unit(self.features.mean(0))

    def left_out(self) -> Features:
        """Return how similar each example is to the class without it, float32 (N,), or (0,) for a single example.

        The similarity is the cosine between an example and the prototype of the examples of all other takes. If there
        is only one take, it is the prototype of all other examples, and the similarities come out higher than those of
        new examples will be.
        """
        groups = self.takes if len(np.unique(self.takes)) > 1 else np.arange(len(self.takes))
        if len(groups) < 2:
            return np.empty(0, np.float32)
        similarities = np.empty(len(groups), np.float32)
        for group in np.unique(groups):
            own = groups == group
            similarities[own] = self.features[own] @ unit(self.features[~own].mean(0))
        return similarities


class Gallery:
    """Named classes with their examples, for the features of one model.

    Args:
        model: The model that the features come from, as `model_of` a bundle.
        size: C, the number of features of an example.

    Attributes:
        classes: The examples of each class by its name.
        negatives: Features of examples of none of the classes, float32 (N, C), each of unit length.
        temperature: By what the similarities with texts are divided before the softmax; None if the classes are of
            examples.
    """

    def __init__(self, model: str, size: int) -> None:
        self.model = model
        self.size = size
        self.classes: dict[str, Examples] = {}
        self.negatives: Features = np.empty((0, size), np.float32)
        self.temperature: float | None = None

    @classmethod
    def of(cls, bundle: Bundle) -> Gallery:
        """Make an empty gallery for a bundle.

        Raises:
            GalleryError: The bundle has no features.
        """
        if not bundle.manifest.features:
            raise GalleryError(
                f"{bundle.path} gives no features, which enrolled classes need: build it with --features"
            )
        return cls(model_of(bundle), bundle.manifest.features)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order in which they were first added."""
        return tuple(self.classes)

    def add(self, name: str, features: npt.ArrayLike) -> None:
        """Add one take of a class: examples that come from one clip or recording.

        Args:
            name: Name of the class. It may be a new class, or one that gets more examples.
            features: Features (N, C) or (C,), of any length but 0.

        Raises:
            UsageError: The name is not allowed, or the features have another shape or are not finite.
        """
        if self.temperature is not None:
            raise UsageError(_TEXTS_ALONE)
        name = check_name(name)
        added = self._as_unit(features)
        known = self.classes.get(name)
        if known is None:
            self.classes[name] = Examples(added, np.zeros(len(added), np.int32))
            return
        takes = np.full(len(added), known.takes.max() + 1, np.int32)
        self.classes[name] = Examples(np.concatenate([known.features, added]), np.concatenate([known.takes, takes]))

    def add_text(self, name: str, feature: npt.ArrayLike, temperature: float) -> None:
        """Add a class by the feature of a text, or replace it.

        Args:
            name: Name of the class.
            feature: The text's feature (C,), of any length but 0.
            temperature: The temperature of all classes, above 0.

        Raises:
            UsageError: The name is not allowed, the feature has another shape or is not finite, the temperature is out
                of range, or the gallery holds classes by examples.
        """
        if self.temperature is None and (self.classes or len(self.negatives)):
            raise UsageError("the gallery holds classes by examples: keep classes by texts in another --gallery FILE")
        if not gallery_file.LEAST <= temperature <= gallery_file.MOST:
            raise UsageError(
                f"the temperature is {temperature:g}; it must be {gallery_file.LEAST} to {gallery_file.MOST}"
            )
        row = self._as_unit(feature)
        if len(row) != 1:
            raise UsageError(f"a text has one feature (C,), not {np.shape(feature)}")
        self.classes[check_name(name)] = Examples(row, np.zeros(1, np.int32))
        self.temperature = float(temperature)

    def add_negatives(self, features: npt.ArrayLike) -> None:
        """Add features (N, C) of examples of none of the classes, such as an empty room or the trained classes.

        Raises:
            UsageError: The features have another shape or are not finite, or the gallery holds classes by texts.
        """
        if self.temperature is not None:
            raise UsageError(_TEXTS_ALONE)
        self.negatives = np.concatenate([self.negatives, self._as_unit(features)])

    def remove(self, name: str) -> None:
        """Remove a class.

        Raises:
            UsageError: There is no class of that name.
        """
        if name not in self.classes:
            raise UsageError(f"no class {name!r} is enrolled; there are: {', '.join(self.names) or 'none'}")
        del self.classes[name]

    def merge(self, other: Gallery) -> None:
        """Add another gallery's examples and negatives. A class that both have keeps the examples of both.

        Raises:
            GalleryError: The other gallery holds features of another model.
        """
        if (other.model, other.size) != (self.model, self.size):
            raise GalleryError("the galleries hold features of two different models and cannot be merged")
        if other.temperature is not None:
            for name, examples in other.classes.items():
                self.add_text(name, examples.prototype, other.temperature)
            return
        for name, examples in other.classes.items():
            for take in np.unique(examples.takes):
                self.add(name, examples.features[examples.takes == take])
        if len(other.negatives):
            self.add_negatives(other.negatives)

    def thresholds(self) -> dict[str, float]:
        """Return the least similarity at which each class is recognised, from the spread of its examples.

        Without negatives, the threshold is the mean similarity of an example to the others (`Examples.left_out`). A
        class with one example takes the mean of the other classes' thresholds, or `ALONE` if there are none.

        With negatives, the threshold is where it separates examples and negatives best: where the share of examples
        that pass is highest above the share of negatives that pass (Youden's index), halfway between two similarities.

        No threshold is higher than `TIGHTEST`. Classes by texts have -1: one of them is always the most similar.
        """
        if self.temperature is not None:
            return dict.fromkeys(self.classes, -1.0)
        similarities = {name: examples.left_out() for name, examples in self.classes.items()}
        means = {name: float(values.mean()) for name, values in similarities.items() if len(values)}
        default = float(np.mean(list(means.values()))) if means else ALONE
        thresholds = {}
        for name, examples in self.classes.items():
            threshold = means.get(name, default)
            if len(self.negatives):
                positives = similarities[name] if name in means else np.array([default])
                threshold = _best_cut(positives, self.negatives @ examples.prototype)
            thresholds[name] = min(threshold, TIGHTEST)
        return thresholds

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the gallery to one file. Whatever happens, the file is afterwards either the old or the new one.

        Raises:
            GalleryError: The file cannot be written, or the gallery is too large.
        """
        classes = list(self.classes.values())
        counts = [len(examples.takes) for examples in classes]
        content = gallery_file.Content(
            self.model,
            self.size,
            self.names,
            np.concatenate([self.negatives[:0], *(examples.features for examples in classes)]),
            np.repeat(np.arange(len(classes), dtype=np.int32), counts),
            np.concatenate([np.empty(0, np.int32), *(examples.takes for examples in classes)]),
            self.negatives,
            self.temperature,
        )
        gallery_file.write(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gallery:
        """Read a gallery that `save` wrote.

        Raises:
            GalleryError: There is no such file, or it is not a gallery of this version.
        """
        content = gallery_file.read(path)
        gallery = cls(content.model, content.size)
        try:
            for index, name in enumerate(content.names):
                if check_name(name) != name:
                    raise UsageError(f"the name {shown(name)} begins or ends with a blank")
                own = content.classes == index
                gallery.classes[name] = Examples(gallery._as_unit(content.examples[own]), content.takes[own])
            if len(content.negatives):
                gallery.add_negatives(content.negatives)
            gallery.temperature = content.temperature
        except UsageError as error:
            raise gallery_file.damaged(path, error) from error
        return gallery

    def _as_unit(self, features: npt.ArrayLike) -> Features:
        """Check features and return them as (N, C) with unit length."""
        rows = np.atleast_2d(np.asarray(features, np.float32))
        if rows.ndim != 2 or rows.shape[1] != self.size or not len(rows):
            raise UsageError(f"features of this gallery have the shape (N, {self.size}), not {np.shape(features)}")
        if not np.isfinite(rows).all() or not rows.any(axis=1).all():
            raise UsageError("features must be finite and not all 0")
        return unit(rows)


def check_name(name: object, bundle: Bundle | None = None) -> str:
    """Check a class's name, and return it without blanks around it.

    Args:
        name: The name.
        bundle: A bundle whose trained classes must not have the name.

    Raises:
        UsageError: The name is empty, too long, not printable, or taken by a trained class.
    """
    plain = name.strip() if isinstance(name, str) else ""
    problem = unfit_name(plain) if isinstance(name, str) else "it is no text"
    if problem or len(plain) > _MAX_NAME:
        raise UsageError(
            f"a class's name is a printable text of at most {_MAX_NAME} characters, not {name!r:.60}"
            + (f": {problem}" if problem else "")
        )
    name = plain
    if bundle is not None and name in (bundle.manifest.labels or (NONE,)):
        raise UsageError(f"{bundle.path} was trained on a class {name!r} already: choose another name for yours")
    return name


def check_fits(gallery: Gallery, bundle: Bundle) -> None:
    """Check that a gallery belongs to a bundle.

    Raises:
        GalleryError: The bundle has no features, the gallery holds features of another model, or one of its classes has
            the name of a trained class.
    """
    if gallery.model != Gallery.of(bundle).model:
        raise GalleryError(
            f"the gallery holds features of another model than {bundle.path}: enroll the classes again with this bundle"
        )
    if common := sorted(set(gallery.names) & set(bundle.manifest.labels or (NONE,))):
        name = common[0]
        raise GalleryError(f"{bundle.path} was trained on a class {name!r} already: enroll yours under another name")


def _best_cut(positives: npt.NDArray[Any], negatives: npt.NDArray[Any]) -> float:
    """Return the threshold that separates two sets of similarities best, by Youden's index."""
    values = np.sort(np.concatenate([positives, negatives]))
    cuts = (values[1:] + values[:-1]) / 2
    gains = [(positives >= cut).mean() - (negatives >= cut).mean() for cut in cuts]
    return float(cuts[np.argmax(gains)])


def unit(features: npt.NDArray[np.float32]) -> Features:
    """Scale features (..., C) to unit length."""
    wide = np.asarray(features, np.float64)  # in which no square of a float32 overflows, or becomes 0
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: Features = (wide / np.maximum(length, np.finfo(np.float64).tiny)).astype(np.float32)
    return scaled
