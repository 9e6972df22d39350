"""Evaluations of shares of a clip set as arrays, and how they become one of the whole set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .clipset import ClipSet
from .decoding import Skipped
from .evaluation import Evaluation
from .sharing import Arrays, Share


def packed(evaluations: Sequence[Evaluation], clips: ClipSet, share: Share) -> Arrays:
    """Return what models gave for a share of the videos.

    Args:
        evaluations: One for each model, of the share's videos.
        clips: The whole set.
        share: The share.
    """
    first, own = evaluations[0], share.of(clips.entries)
    places = list(share.places(len(clips)))
    unused = {video.path: video.reason for video in first.skipped}
    harmed = {video.path: video.reason for video in first.damaged}
    used = [place for place, entry in zip(places, own, strict=True) if entry.path not in unused]
    arrays: Arrays = {
        "used": np.array(used, np.int64),
        "skipped": np.array([place for place in places if place not in set(used)], np.int64),
        "damaged": np.array([place for place in used if clips.entries[place].path in harmed], np.int64),
    }
    for name, reasons in (("skipped", unused), ("damaged", harmed)):
        texts = [reasons[clips.entries[place].path] for place in arrays[name]]
        arrays[f"{name} because"] = np.array(texts, dtype=np.str_)
    for number, evaluation in enumerate(evaluations):
        arrays[f"scores {number}"] = evaluation.scores
        arrays[f"seconds {number}"] = evaluation.seconds
    return arrays


def unpacked(
    parts: Sequence[Arrays], number: int, name: str, labels: tuple[str, ...], facts: dict[str, Any], clips: ClipSet
) -> Evaluation:
    """Return the evaluation of a model on the whole set, whose videos are in the set's order.

    Args:
        parts: What `packed` gave for each share.
        number: The model's number among the evaluations.
        name, labels, facts: See `Evaluation`.
        clips: The whole set.
    """
    places = np.concatenate([part["used"] for part in parts])
    order = np.argsort(places)
    scores = np.concatenate([part[f"scores {number}"] for part in parts])[order]
    return Evaluation(
        name,
        labels,
        tuple(clips.entries[place] for place in places[order]),
        scores,
        np.concatenate([part[f"seconds {number}"] for part in parts]),
        _reasons(parts, "skipped", clips),
        facts,
        damaged=_reasons(parts, "damaged", clips),
    )


def _reasons(parts: Sequence[Arrays], name: str, clips: ClipSet) -> tuple[Skipped, ...]:
    reasons: dict[int, str] = {}
    for part in parts:
        reasons |= dict(zip(part[name].tolist(), part[f"{name} because"].tolist(), strict=True))
    return tuple(Skipped(Path(clips.entries[place].path), reasons[place]) for place in sorted(reasons))
