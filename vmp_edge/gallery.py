"""Classes of a user's own, from a few examples: recognised by the nearest prototype, beside the trained classes.

A class is the mean of its examples' features, its prototype (Prototypical Networks, Snell et al. 2017, arXiv
1703.05175); here features have unit length and are compared by cosine. Examples are features of what a bundle built
with `--features` was shown; any other vectors of the same space would do, those of a text encoder trained towards it
say.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle.reading import Bundle
from .errors import GalleryError, UsageError
from .files import whole

SUFFIX = ".gallery.npz"
FORMAT = 1
TIGHTEST = 0.98  # threshold of examples that are all alike: the next one will not be quite the same
ALONE = 0.9  # threshold where no class has a second example that would tell a spread
PASSED = 0.55  # score of a class whose similarity is just its threshold: more than what is left for all others
_MAX_BYTES = 256 << 20
_MAX_NAME = 100

Features = npt.NDArray[np.float32]


def default_path(bundle: str | os.PathLike[str]) -> Path:
    """Where a bundle's gallery is unless somebody says otherwise: beside the bundle, whose files are sealed."""
    folder = Path(bundle).resolve()
    return folder.with_name(folder.name + SUFFIX)


def model_of(bundle: Bundle) -> str:
    """SHA-256 of what makes a bundle's features what they are: its program, and how frames are prepared for it."""
    manifest = bundle.manifest
    told = {
        "program": manifest.files[manifest.program].sha256,
        "frames": manifest.frames,
        "image_size": manifest.image_size,
        "preprocessing": manifest.preprocessing.to_manifest(),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)  # arrays don't compare to one truth
class Examples:
    """What is known of one class.

    Args:
        features: float32 (N, C), each of unit length.
        takes: int32 (N,), the clip or recording that each comes from; those of one are like each other.
    """

    features: Features
    takes: npt.NDArray[np.int32]

    @property
    def prototype(self) -> Features:
        """The mean of the features, at unit length, float32 (C,)."""
        return _unit(self.features.mean(0))

    def left_out(self) -> Features:
        """How near each example is to what it would meet as a new one, float32 (N,), or (0,) if there is one alone.

        The cosine between an example and the prototype of all others but those of its own take; of all others if
        there is one take only, which makes them look nearer than new ones will be.
        """
        groups = self.takes if len(np.unique(self.takes)) > 1 else np.arange(len(self.takes))
        if len(groups) < 2:
            return np.empty(0, np.float32)
        found = np.empty(len(groups), np.float32)
        for group in np.unique(groups):
            own = groups == group
            found[own] = self.features[own] @ _unit(self.features[~own].mean(0))
        return found


class Gallery:
    """Named classes with their examples, for the features of one model.

    Args:
        model: Whose features they are: `model_of` a bundle.
        size: C, how many features there are.
    """

    def __init__(self, model: str, size: int) -> None:
        self.model = model
        self.size = size
        self.classes: dict[str, Examples] = {}
        self.negatives: Features = np.empty((0, size), np.float32)

    @classmethod
    def of(cls, bundle: Bundle) -> Gallery:
        """An empty one for a bundle.

        Raises:
            GalleryError: The bundle gives no features.
        """
        if not bundle.manifest.features:
            raise GalleryError(
                f"{bundle.path} gives no features, which enrolled classes need: build it with --features"
            )
        return cls(model_of(bundle), bundle.manifest.features)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in the order in which they were first added."""
        return tuple(self.classes)

    def add(self, name: str, features: npt.ArrayLike) -> None:
        """Adds one take of a class: examples that come from one clip or recording.

        Args:
            name: Of the class, a new one or one that gets more examples.
            features: (N, C) or (C,), of any length but 0.

        Raises:
            UsageError: The name is not one, or the features are not such.
        """
        name = check_name(name)
        given = self._checked(features)
        known = self.classes.get(name)
        if known is None:
            self.classes[name] = Examples(given, np.zeros(len(given), np.int32))
            return
        takes = np.full(len(given), known.takes.max() + 1, np.int32)
        self.classes[name] = Examples(np.concatenate([known.features, given]), np.concatenate([known.takes, takes]))

    def add_negatives(self, features: npt.ArrayLike) -> None:
        """Adds features (N, C) of what is none of the classes: the room when nothing happens, the trained classes."""
        self.negatives = np.concatenate([self.negatives, self._checked(features)])

    def remove(self, name: str) -> None:
        """Forgets a class.

        Raises:
            UsageError: There is none of that name.
        """
        if name not in self.classes:
            raise UsageError(f"no class {name!r} is enrolled; there are: {', '.join(self.names) or 'none'}")
        del self.classes[name]

    def merge(self, other: Gallery) -> None:
        """Adds another gallery's examples and negatives; of a name that both have, all examples are kept.

        Raises:
            GalleryError: It holds features of another model.
        """
        if (other.model, other.size) != (self.model, self.size):
            raise GalleryError("the galleries hold features of two different models and cannot be merged")
        for name, examples in other.classes.items():
            for take in np.unique(examples.takes):
                self.add(name, examples.features[examples.takes == take])
        if len(other.negatives):
            self.add_negatives(other.negatives)

    def thresholds(self) -> dict[str, float]:
        """The least similarity at which each class is recognised, from how its examples spread.

        The mean similarity of an example to the others (`Examples.left_out`), at most `TIGHTEST`; a class with one
        example takes the mean of the other classes' thresholds, or `ALONE`. With negatives, where examples and
        negatives are told apart best: at the largest difference of the shares of both that pass (Youden's index),
        halfway to the next similarity.
        """
        near = {name: one.left_out() for name, one in self.classes.items()}
        spread = {name: float(found.mean()) for name, found in near.items() if len(found)}
        usual = float(np.mean(list(spread.values()))) if spread else ALONE
        thresholds = {}
        for name, one in self.classes.items():
            threshold = spread.get(name, usual)
            if len(self.negatives):
                known = near[name] if name in spread else np.array([usual])
                threshold = _between(known, self.negatives @ one.prototype)
            thresholds[name] = min(threshold, TIGHTEST)
        return thresholds

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the gallery to one file: NumPy arrays, and `gallery`, a JSON text that says what they are.

        The file is written beside its place and renamed: whatever happens, either the old or the new one is there.

        Raises:
            GalleryError: The file cannot be written.
        """
        target = Path(os.path.realpath(path))
        told = {"format": FORMAT, "model": self.model, "features": self.size, "names": list(self.names)}
        all_takes = [one.takes for one in self.classes.values()]
        arrays = {
            "gallery": np.array(json.dumps(told, ensure_ascii=False, indent=1)),
            "examples": np.concatenate([self.negatives[:0], *(one.features for one in self.classes.values())]),
            "classes": np.repeat(np.arange(len(all_takes), dtype=np.int32), [len(takes) for takes in all_takes]),
            "takes": np.concatenate([np.empty(0, np.int32), *all_takes]),
            "negatives": self.negatives,
        }
        try:
            with whole(target) as place, place.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GalleryError(f"{target} cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gallery:
        """Reads what `save` wrote.

        Raises:
            GalleryError: There is no such file, or it is not a gallery of this version.
        """
        place = Path(path)
        try:
            if place.stat().st_size > _MAX_BYTES:
                raise GalleryError(f"{place} is larger than {_MAX_BYTES >> 20} MiB: it is not a gallery")
            with np.load(place, allow_pickle=False) as content:
                return cls._from_arrays({name: content[name] for name in content.files})
        except FileNotFoundError as error:
            raise GalleryError(f"the gallery {place} does not exist: make one with `vmp-edge enroll`") from error
        except OSError as error:
            raise GalleryError(f"{place} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, UsageError) as error:
            raise GalleryError(f"{place} is not a gallery, or is damaged ({error}): enroll again") from error

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Gallery:
        told = json.loads(str(arrays["gallery"][()]))
        if told["format"] != FORMAT:
            raise ValueError(f"it has format {told['format']!r}, this version reads {FORMAT}")
        size, names = told["features"], told["names"]
        if not isinstance(told["model"], str) or type(size) is not int or size < 1 or len(set(names)) != len(names):
            raise ValueError("its entries make no sense")
        found = cls(told["model"], size)
        examples, classes, takes = arrays["examples"], arrays["classes"], arrays["takes"]
        if not examples.shape[:1] == classes.shape == takes.shape or not classes.dtype == takes.dtype == np.int32:
            raise ValueError("its arrays do not fit each other")
        if sorted(set(classes.tolist())) != list(range(len(names))):
            raise ValueError("its classes and names do not fit each other")
        for index, name in enumerate(names):
            own = classes == index
            found.classes[check_name(name)] = Examples(found._checked(examples[own]), takes[own])
        if len(arrays["negatives"]):
            found.add_negatives(arrays["negatives"])
        return found

    def _checked(self, features: npt.ArrayLike) -> Features:
        """Features as (N, C) of unit length."""
        given = np.atleast_2d(np.asarray(features, np.float32))
        if given.ndim != 2 or given.shape[1] != self.size or not len(given):
            raise UsageError(f"features of this gallery have the shape (N, {self.size}), not {np.shape(features)}")
        if not np.isfinite(given).all() or not np.linalg.norm(given, axis=1).all():
            raise UsageError("features must be finite and not all 0")
        return _unit(given)


class Matcher:
    """Recognises a gallery's classes as they are now; later changes of the gallery do not reach it.

    Args:
        gallery: The classes.
        bundle: Whose features are going to be matched.
        threshold: The least similarity for every class, between -1 and 1; None takes each class's own.

    Raises:
        GalleryError: The gallery holds features of another model, or a class of the bundle's name.
        UsageError: The threshold is out of range.
    """

    def __init__(self, gallery: Gallery, bundle: Bundle, threshold: float | None = None) -> None:
        if threshold is not None and not -1 < threshold < 1:
            raise UsageError(f"the threshold is a cosine, between -1 and 1, not {threshold}")
        check_fits(gallery, bundle)
        self.names = gallery.names
        prototypes = [one.prototype for one in gallery.classes.values()]
        self._prototypes = np.stack(prototypes) if prototypes else np.empty((0, gallery.size), np.float32)
        own = gallery.thresholds()
        self._thresholds = np.array([own[name] if threshold is None else threshold for name in self.names])

    def similarities(self, features: Features) -> Features:
        """Cosines between features (B, C) and the K prototypes, float32 (B, K)."""
        found: Features = _unit(features) @ self._prototypes.T
        return found

    def combine(self, trained: npt.NDArray[np.float32], features: Features) -> npt.NDArray[np.float32]:
        """Scores of trained and enrolled classes together.

        Of the classes whose similarity reaches their threshold the nearest one wins, with a score from `PASSED` at the
        threshold to 1 at a similarity of 1; the trained classes share what is left. If there is none, the trained
        scores stand, and enrolled classes have 0.

        Args:
            trained: float32 (B, classes), each row adding up to 1.
            features: float32 (B, C).

        Returns:
            float32 (B, classes + K), each row adding up to 1.
        """
        if not self.names:
            return trained
        similar = self.similarities(features).astype(np.float64)
        room = (similar - self._thresholds) / (1 - self._thresholds)
        nearest = np.where(room >= 0, similar, -2.0).argmax(1)
        rows = np.arange(len(similar))
        won = np.where(room[rows, nearest] >= 0, PASSED + (1 - PASSED) * np.minimum(room[rows, nearest], 1), 0.0)
        enrolled = np.zeros_like(similar)
        enrolled[rows, nearest] = won
        return np.concatenate([trained * (1 - won)[:, None], enrolled], 1).astype(np.float32)


def check_name(name: object, bundle: Bundle | None = None) -> str:
    """A class's name without blanks around it.

    Args:
        name: What was given.
        bundle: Whose trained classes it must not be one of.

    Raises:
        UsageError: It is empty, too long, not printable, or taken.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        raise UsageError(f"a class's name is a printable text of at most {_MAX_NAME} characters, not {name!r:.40}")
    name = name.strip()
    if bundle is not None and name in bundle.manifest.labels:
        raise UsageError(f"{bundle.path} was trained on a class {name!r} already: choose another name for yours")
    return name


def check_fits(gallery: Gallery, bundle: Bundle) -> None:
    """Sees that a gallery belongs to a bundle.

    Raises:
        GalleryError: The bundle gives no features, the gallery holds those of another model, or a class in it has the
            name of a trained one.
    """
    if gallery.model != Gallery.of(bundle).model:
        raise GalleryError(
            f"the gallery holds features of another model than {bundle.path}: enroll the classes again with this bundle"
        )
    if both := sorted(set(gallery.names) & set(bundle.manifest.labels)):
        raise GalleryError(f"{bundle.path} was trained on a class {both[0]!r} already: enroll yours under another name")


def _between(known: npt.NDArray[Any], negatives: npt.NDArray[Any]) -> float:
    values = np.sort(np.concatenate([known, negatives]))
    cuts = (values[1:] + values[:-1]) / 2
    gains = [(known >= cut).mean() - (negatives >= cut).mean() for cut in cuts]
    return float(cuts[np.argmax(gains)])


def _unit(features: npt.NDArray[np.float32]) -> Features:
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    found: Features = (features / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32)
    return found
