"""The facts about published checkpoints."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

FACTS = Path(__file__).with_name("published.csv")


@dataclass(frozen=True)
class Published:
    """A checkpoint that somebody released.

    Attributes:
        name: The name that `vmp-edge build --model` takes.
        file: The checkpoint's file in the repository.
        repository: The repository on the hub, `OWNER/NAME`.
        family: `videomamba` or `videomambapro`.
        size: `tiny`, `small`, `middle` or `base`.
        data: The data that the model was trained on: `k400` (Kinetics-400), `ssv2` (Something-Something V2), `in1k`
            (ImageNet-1K), `breakfast`, `coin`, or a set of video-text pairs by its size.
        stage: `supervised`, `pretrained` (masked pre-training, no classes), `finetuned` (from masked pre-training) or
            `video-text` (no classes).
        classes: Number of classes, 0 for a model without any.
        frames: Frames of a clip. None for an image model.
        image_size: Pixels of a frame's side.
        span: Seconds that a clip spans. The published code takes the T frames of a clip from T equal parts of the
            whole video, so this is how long the data's videos are: ten seconds in Kinetics, two to six in
            Something-Something, which is written as four. None where that is not one number (Breakfast and COIN have
            videos of minutes), where it is not known, and for image models.
        views: Frames x crops x clips that the published top-1 averages over. Empty if there is none.
        top1: The published top-1 in percent, or None if it is not known.
        remark: What else there is to know. Mostly empty.
    """

    name: str
    file: str
    repository: str
    family: str
    size: str
    data: str
    stage: str
    classes: int
    frames: int | None
    image_size: int
    span: float | None
    views: str
    top1: float | None
    remark: str


@functools.cache
def published() -> tuple[Published, ...]:
    """Return the facts about all published models, in the order of the model zoo."""
    with FACTS.open(encoding="utf-8", newline="") as file:
        return tuple(_record(row) for row in csv.DictReader(file))


def find(name: str) -> Published | None:
    """Return the facts about a published model, or None if no published model has this name."""
    return next((model for model in published() if model.name == name), None)


def find_file(name: str) -> Published | None:
    """Return the facts about a published model by the name of its file, or None."""
    return next((model for model in published() if model.file == name), None)


def _record(row: dict[str, str]) -> Published:
    return Published(
        name=row["name"],
        file=row["file"],
        repository=row["repository"],
        family=row["family"],
        size=row["size"],
        data=row["data"],
        stage=row["stage"],
        classes=int(row["classes"]),
        frames=int(row["frames"]) if row["frames"] else None,
        image_size=int(row["image_size"]),
        span=float(row["span"]) if row["span"] else None,
        views=row["views"],
        top1=float(row["top1"]) if row["top1"] else None,
        remark=row["remark"],
    )
