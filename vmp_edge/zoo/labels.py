"""Label lists of public data sets, in the order of the published checkpoints' logits."""

from __future__ import annotations

from pathlib import Path

from ..names import distinct

FOLDER = Path(__file__).with_name("labels")
LABEL_LISTS = {
    "k400": "Kinetics-400, in the order of the authors' own demo, which is not the alphabetical order",
    "ssv2": "Something-Something V2, in the order of the data set's labels file, not confirmed against a checkpoint",
    "in1k": "ImageNet-1K, in the usual order",
}


def read_list(name: str) -> tuple[str, ...]:
    """Return the labels of a data set, a key of `LABEL_LISTS`, in the order of the logits.

    Labels that a data set has twice get a number, so that each class has a name of its own: ImageNet-1K has two classes
    `crane` and two `maillot`.
    """
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return distinct(lines)
