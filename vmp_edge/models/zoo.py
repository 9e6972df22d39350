"""Models of our own, whose weights come with the package.

A file holds ``model`` (the state dict), ``options``, ``labels``, ``preprocessing`` (as in a manifest), ``frame_rate``
and ``accuracy``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UsageError
from ..preprocessing import Preprocessing
from .checkpoint import load_checkpoint
from .videomamba import VideoMamba

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class ZooModel:
    """A trained model and what is known of it.

    Attributes:
        module: the source model in evaluation mode.
        labels: one name per class, in the order of the logits.
        preprocessing: how its frames were prepared in training.
        frame_rate: frames per second at which it saw its frames in training, or None.
        accuracy: what was measured, by data set.
    """

    module: VideoMamba
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    frame_rate: float | None
    accuracy: dict[str, Any]


def names() -> list[str]:
    """The models whose weights are here."""
    return sorted(path.stem for path in FOLDER.glob("*.pth"))


def load(name: str) -> ZooModel:
    """A trained model by its name.

    Raises:
        UsageError: there is no such model.
    """
    path = FOLDER / f"{name}.pth"
    if not path.is_file():
        raise UsageError(f"no weights of {name!r} come with the package; there are {', '.join(names()) or 'none'}")
    content = torch.load(path, map_location="cpu", weights_only=True)
    module = load_checkpoint(path)
    return ZooModel(
        module=module,
        labels=tuple(content["labels"]),
        preprocessing=Preprocessing.from_manifest(content["preprocessing"], module.options.image_size),
        frame_rate=content.get("frame_rate"),
        accuracy=content.get("accuracy", {}),
    )
