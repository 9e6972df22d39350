"""`TrainingFacts`: what a checkpoint of our own training says about its clips and classes, beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..bundle.sampling import FASTEST, LONGEST, SHORTEST, SLOWEST
from ..errors import CheckpointError, UsageError
from ..names import cleaned, unfit_labels
from ..preprocessing import Preprocessing


@dataclass(frozen=True)
class TrainingFacts:
    """How the clips of a training were sampled and prepared, and the names of its classes.

    Files of our own have ``options``, ``labels``, ``preprocessing`` (as in a manifest) and ``sampling``: the frames of
    a clip with their ``span`` or their ``rate``. Older files have ``frame_rate`` in place of it.

    Attributes:
        name: The model's name; that of the file if it does not say one.
        labels: One label for each class; none if the file has none.
        preprocessing: How frames were prepared, for the size of the model's pictures.
        frame_rate: Frames per second of a clip, or None.
        span: Seconds that the frames of a clip came from, or None.
        accuracy: What was measured on the model.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None = None
    span: float | None = None
    accuracy: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any], image_size: int, path: Path) -> TrainingFacts:
        """Read the facts in a file's content.

        Args:
            content: The content.
            image_size: S, the side of the model's pictures.
            path: The file, for messages.

        Raises:
            CheckpointError: An entry is not as training writes it.
        """
        try:
            labels = tuple(map(str, content.get("labels", ())))
            if labels and (problem := unfit_labels(labels)):
                raise UsageError(f"unfit labels: {problem}")
            sampling = content.get("sampling") or {"rate": content.get("frame_rate")}
            return cls(
                cleaned(str(content.get("name") or path.stem)),
                labels,
                Preprocessing.from_manifest(content["preprocessing"], image_size),
                _number(sampling.get("rate"), SLOWEST, FASTEST),
                _number(sampling.get("span"), SHORTEST, LONGEST),
                dict(content.get("accuracy") or {}),
            )
        except (UsageError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: what it says of its training cannot be read: {error}") from error

    @classmethod
    def read(cls, path: Path, image_size: int | None = None) -> TrainingFacts | None:
        """Read the facts of a file, or return None if it is not one of our own training. Weights are not loaded.

        Args:
            path: The file.
            image_size: S, the side of the model's pictures; None takes what the file's own options say.

        Raises:
            CheckpointError: An entry is not as training writes it.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception:  # another program's file, which `load_checkpoint` has read in its own way
            return None
        if not isinstance(content, dict) or "options" not in content or "preprocessing" not in content:
            return None
        if image_size is None:
            try:
                image_size = int(content["options"]["image_size"])
            except (TypeError, KeyError, ValueError) as error:
                raise CheckpointError(f"{path}: its options do not say the side of its pictures") from error
        return cls.of(content, image_size, path)


def _number(value: Any, least: float, most: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise UsageError(f"{value!r:.40} is not a number from {least:g} to {most:g}")
    return float(value)
