"""What a checkpoint of our own training says about itself, besides its weights and options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UsageError
from ..names import cleaned, unfit_labels
from ..preprocessing import Preprocessing
from . import checkpoint_file
from .options import ModelOptions


@dataclass(frozen=True)
class Facts:
    """The facts in a checkpoint that `vmp-edge train` or a training of the package has written.

    Attributes:
        name: The model's name; that of the file if it does not say one.
        labels: One label for each class.
        preprocessing: How the frames were prepared.
        frame_rate: Frames per second of a clip, or None.
        span: Seconds that a clip spans, or None.
        accuracy: What was measured on the model.
    """

    name: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None = None
    span: float | None = None
    accuracy: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def facts(path: Path, image_size: int | None = None) -> Facts | None:
    """Read what a checkpoint says about itself, or return None if it is not of our own training.

    Args:
        path: The file.
        image_size: Pixels of a frame's side; None takes the checkpoint's own.

    Raises:
        CheckpointError: The file is no checkpoint, or what it says is wrong.
    """
    content = checkpoint_file.read(path)
    if not isinstance(content, Mapping) or not {"options", "labels", "preprocessing"} <= set(content):
        return None
    try:
        options = ModelOptions.from_dict(dict(content["options"]))
        labels = tuple(map(str, content["labels"]))
        preprocessing = Preprocessing.from_manifest(content["preprocessing"], image_size or options.image_size)
        sampling = dict(content.get("sampling") or {})
        rate, span = sampling.get("rate", content.get("frame_rate")), sampling.get("span")
        rate, span = (value if value is None else float(value) for value in (rate, span))
        known = Facts(
            cleaned(str(content.get("name") or path.stem)),
            labels,
            preprocessing,
            rate,
            span,
            dict(content.get("accuracy") or {}),
        )
    except (UsageError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: what it says about itself is wrong: {error}") from error
    problem = unfit_labels(labels)
    if problem or len(labels) != options.num_classes:
        raise CheckpointError(f"{path}: {problem or f'has {len(labels)} labels for {options.num_classes} classes'}")
    return known
