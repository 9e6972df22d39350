"""Models of our own, whose weights come with the package.

Each file in ``weights/`` holds ``model`` (the state dict), ``options``, ``labels``, ``preprocessing`` (as in a
manifest), ``frame_rate`` and ``accuracy``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UsageError
from ..preprocessing import Preprocessing
from .checkpoint import load_checkpoint
from .own import FOLDER, names
from .training_facts import TrainingFacts
from .videomamba import VideoMamba

__all__ = ["FOLDER", "ZooModel", "load", "names"]


@dataclass(frozen=True)
class ZooModel:
    """A trained model and what is known about it.

    Attributes:
        module: The source model in evaluation mode.
        labels: One name per class, in the order of the logits.
        preprocessing: How the frames were prepared in training.
        frame_rate: Frames per second of the videos in training, or None.
        accuracy: Measured accuracy by data set.
    """

    module: VideoMamba
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None
    accuracy: dict[str, Any]


def load(name: str) -> ZooModel:
    """Load a trained model by its name.

    Raises:
        UsageError: There is no such model.
    """
    path = FOLDER / f"{name}.pth"
    if not path.is_file():
        raise UsageError(f"the package has no weights of {name!r}; it has {', '.join(names()) or 'none'}")
    content = torch.load(path, map_location="cpu", weights_only=True)
    module = load_checkpoint(path)
    facts = TrainingFacts.of(content, module.options.image_size, path)
    return ZooModel(module, facts.labels, facts.preprocessing, facts.frame_rate, dict(facts.accuracy))
