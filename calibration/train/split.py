"""Divide clips into what a model is trained on and what is held out to measure it, with groups kept together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError

from ..clipset import ClipSet, Entry, need_scikit_learn

FOLDS = 5  # of which one is held out: a fifth of the clips
FEWEST = 2  # clips of a class: one to train on, and one to hold out
_LARGEST_SCENE = 0.5  # share of a class's clips: where one scene has more, scenes are no groups


@dataclass(frozen=True)
class Split:
    """Clips with their folds.

    Attributes:
        clips: The clips. Each has a fold.
        by: What was kept together: ``fold`` (the CSV's own folds), ``group``, ``scene`` or ``clip``.
    """

    clips: ClipSet
    by: str

    def held_out(self) -> int:
        """Return the fold that is held out where only one is: all classes on both sides if possible, about a fifth."""

        def badness(fold: int) -> tuple[int, int, float]:
            inside, outside = self.clips.fold(fold), self.clips.outside(fold)
            labels = len(self.clips.labels)
            share = len(inside) / len(self.clips)
            return labels - len(outside.labels), labels - len(inside.labels), abs(share - 1 / FOLDS)

        return min(self.clips.folds, key=badness)

    def unlearnt(self, fold: int) -> list[str]:
        """Return the classes of which a fold holds out all clips, so that nothing is left to train on."""
        left = self.clips.outside(fold).labels
        return [label for label in self.clips.labels if label not in left]

    def unmeasured(self, fold: int) -> list[str]:
        """Return the classes of which a fold holds out no clip."""
        there = self.clips.fold(fold).labels
        return [label for label in self.clips.labels if label not in there]


def divide(clips: ClipSet, scenes: Sequence[int], folds: int | None = None, seed: int = 0) -> Split:
    """Divide a set into folds: by its own folds, else by its groups, else by scenes, else clip by clip.

    Args:
        clips: Labelled clips, at least two of each class.
        scenes: Number of each clip's scene. Clips of one scene are kept together where the set has no groups, as long
            as a class has several scenes.
        folds: Number of folds; None takes five, or fewer where a class has fewer clips or groups.
        seed: Seed of the division.

    Raises:
        UsageError: The set has too few groups or clips for so many folds, or other folds of its own.
        MissingDependencyError: The extra ``train`` is not installed.
    """
    need_scikit_learn()
    if clips.folds:
        return Split(_with_own_folds(clips, folds), "fold")
    by, groups = "group", [entry.group or f"\0{i}" for i, entry in enumerate(clips.entries)]
    if not any(entry.group for entry in clips.entries):
        by = "scene" if _are_groups(clips.entries, scenes) else "clip"
        groups = [f"scene {number}" if by == "scene" else f"\0{i}" for i, number in enumerate(scenes)]
    if len(set(groups)) < 2:
        raise UsageError(f"all clips of {clips.name} belong to the group {groups[0]}: a second group must be held out")
    grouped = clips.only(dataclasses.replace(e, group=g) for e, g in zip(clips.entries, groups, strict=True))
    number = folds if folds is not None else _usual_folds(grouped.entries)
    divided = grouped.split(number, seed).entries
    pairs = zip(clips.entries, divided, strict=True)
    return Split(clips.only(dataclasses.replace(entry, fold=other.fold) for entry, other in pairs), by)


def _with_own_folds(clips: ClipSet, folds: int | None) -> ClipSet:
    if folds is not None and folds != len(clips.folds):
        raise UsageError(f"{clips.name} has {len(clips.folds)} folds of its own: give --folds {len(clips.folds)}")
    if without := [entry for entry in clips.entries if entry.fold is None]:
        raise UsageError(f"{clips.name} has folds, but none for {without[0].path}: give every clip its fold")
    if len(clips.folds) < 2:
        raise UsageError(f"{clips.name} has one fold only: a second one must be held out; or leave the column out")
    return clips


def _are_groups(entries: Sequence[Entry], scenes: Sequence[int]) -> bool:
    """Return whether scenes part the clips well enough: a class in one scene alone could not be on both sides."""
    for label in {entry.label for entry in entries}:
        own = np.array([number for entry, number in zip(entries, scenes, strict=True) if entry.label == label])
        counts: NDArray[np.int64] = np.unique(own, return_counts=True)[1]
        if len(counts) < FEWEST or counts.max() > max(1, _LARGEST_SCENE * len(own)):
            return False
    return len(set(scenes)) < len(scenes)


def _usual_folds(entries: Sequence[Entry]) -> int:
    """Return five, or fewer where a class has fewer groups, but two at least."""
    fewest = min(len({e.group for e in entries if e.label == label}) for label in {e.label for e in entries})
    counts = min(sum(e.label == label for e in entries) for label in {e.label for e in entries})
    return max(2, min(FOLDS, fewest, counts, len({e.group for e in entries})))
