"""Evaluations of shares of a clip set as arrays, and how they become one of the whole set."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clipset import ClipSet
from .decoding import Skipped
from .evaluation import Evaluation
from .sharing import Arrays, Share

STREAM = " stream"  # behind the number of an evaluation, stands for its `Evaluation.stream`


def packed(evaluations: Sequence[Evaluation], clips: ClipSet, share: Share) -> Arrays:
    """Return what models gave for a share of the videos.

    Args:
        evaluations: One for each model, of the share's videos.
        clips: The whole set.
        share: The share.
    """
    arrays: Arrays = {}
    for number, evaluation in enumerate(evaluations):
        arrays |= _packed(str(number), evaluation, clips, share)
        if evaluation.stream is not None:
            arrays |= _packed(f"{number}{STREAM}", evaluation.stream, clips, share)
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
    evaluation = _unpacked(parts, str(number), name, labels, facts, clips)
    if f"{number}{STREAM} used" not in parts[0]:
        return evaluation
    stream = _unpacked(parts, f"{number}{STREAM}", name, labels, facts, clips)
    return dataclasses.replace(evaluation, stream=stream)


def _packed(key: str, evaluation: Evaluation, clips: ClipSet, share: Share) -> Arrays:
    """Return an evaluation as arrays, which name videos by their places in the set."""
    arrays: Arrays = {
        f"{key} used": _places((entry.path for entry in evaluation.entries), clips, share),
        f"{key} scores": evaluation.scores,
        f"{key} seconds": evaluation.seconds,
    }
    for name, videos in (("skipped", evaluation.skipped), ("damaged", evaluation.damaged)):
        arrays[f"{key} {name}"] = _places((video.path for video in videos), clips, share)
        arrays[f"{key} {name} because"] = np.array([video.reason for video in videos], dtype=np.str_)
    return arrays


def _places(videos: Iterable[Path], clips: ClipSet, share: Share) -> NDArray[np.int64]:
    """Return the places in the set of some of a share's videos, which are in the set's order."""
    left, places = deque(videos), []
    for place in share.places(len(clips)):
        if left and clips.entries[place].path == left[0]:
            places.append(place)
            left.popleft()
    return np.array(places, np.int64)


def _unpacked(
    parts: Sequence[Arrays], key: str, name: str, labels: tuple[str, ...], facts: dict[str, Any], clips: ClipSet
) -> Evaluation:
    places = np.concatenate([part[f"{key} used"] for part in parts])
    order = np.argsort(places)
    return Evaluation(
        name,
        labels,
        tuple(clips.entries[place] for place in places[order]),
        np.concatenate([part[f"{key} scores"] for part in parts])[order],
        np.concatenate([part[f"{key} seconds"] for part in parts]),
        _reasons(parts, f"{key} skipped", clips),
        facts,
        damaged=_reasons(parts, f"{key} damaged", clips),
    )


def _reasons(parts: Sequence[Arrays], name: str, clips: ClipSet) -> tuple[Skipped, ...]:
    reasons: dict[int, str] = {}
    for part in parts:
        reasons |= dict(zip(part[name].tolist(), part[f"{name} because"].tolist(), strict=True))
    return tuple(Skipped(clips.entries[place].path, reasons[place]) for place in sorted(reasons))
