"""What a folder of clips holds, what is wrong with it, and what may make its accuracy look better than it is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.formatting import percent, quantity
from vmp_edge.names import unfit_labels

from .. import clipset
from ..clipset import ClipSet, ClipSetError
from ..decoding import Progress, Skipped, describe_skipped
from ..evaluation import wilson
from . import geometry
from .geometry import Geometry
from .inspection import Look, alike, look_at_all, scenes
from .split import FEWEST, Split, divide

FEW = 10  # clips of a class: with fewer, a model can hardly learn it
LONGEST_WINDOW = 4.0  # seconds that a window spans unless the user says otherwise: a camera's viewer waits so long
_SHORT = 0.1  # share of the clips that may be shorter than a window
_MOST_NAMED = 3  # that a message names before it says "and N more"
_UNEVEN = 5  # times as many clips as the rarest class has
_LONG = 3  # times the window's span


@dataclass(frozen=True)
class Survey:
    """What was found in a set of clips.

    Attributes:
        split: The clips that can be used, with their folds.
        looks: What was seen of each.
        skipped: The clips that cannot be used.
        pairs: Which clips look alike, bool (N, N).
        control: Share of the clips whose label their size and length alone give away, on clips that were held out.
    """

    split: Split
    looks: tuple[Look, ...]
    skipped: tuple[Skipped, ...]
    pairs: NDArray[np.bool_]
    control: float

    @property
    def clips(self) -> ClipSet:
        """The clips that can be used."""
        return self.split.clips

    @property
    def geometries(self) -> list[Geometry]:
        """Size and length of each clip."""
        return [look.geometry for look in self.looks]

    def usual_span(self) -> float:
        """Return the seconds that a window should span: as nine of ten clips last, up to `LONGEST_WINDOW`."""
        shortest = float(np.quantile([look.geometry.seconds for look in self.looks], _SHORT))
        return max(0.01, float(f"{min(shortest, LONGEST_WINDOW):.2g}"))


def read(source: Path, group: str | None) -> ClipSet:
    """Read the clips to train on.

    Args:
        source: A folder of class folders, or a CSV.
        group: The CSV's column of groups; None takes ``group`` if there is one.

    Raises:
        ClipSetError: The source cannot be read, or holds no clips.
        UsageError: Clips have no labels, or labels that cannot be told apart, or there is one class alone.
    """
    if source.is_dir():
        if group is not None:
            raise UsageError(f"--group names a column of a CSV, and {source} is a folder")
        _check_folder(source)
    elif source.suffix.lower() == ".txt":
        raise ClipSetError(f"{source} has no labels: give a folder of class folders, or a CSV with path and label")
    clips = clipset.read(source, group or "group")
    _check_labels(clips, source)
    if missing := [entry for entry in clips.entries if group is not None and entry.group is None]:
        raise UsageError(f"{source}: {missing[0].path} has nothing in the column {group}: give every clip its group")
    twice = [path for path, count in Counter(entry.path.resolve() for entry in clips.entries).items() if count > 1]
    if twice:
        raise UsageError(f"{source} names {twice[0]} more than once: leave one line of each clip")
    return clips


def _check_folder(folder: Path) -> None:
    """Check that clips lie in class folders, and not beside them or one folder deeper."""
    inside = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    loose = [path for path in inside if path.is_file() and path.suffix.lower() in clipset.SUFFIXES]
    folders = [path for path in inside if path.is_dir()]
    if loose and not folders:
        raise ClipSetError(
            f"{folder} has {quantity(len(loose), 'video')}, but no class folders: make a folder for each class, and "
            f"move the videos of the class into it ({loose[0].name}, ...)"
        )
    if len(folders) != 1:
        return
    deeper = [path.name for path in sorted(folders[0].iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if len(deeper) > 1:
        raise UsageError(
            f"{folder} has one class folder, {folders[0].name}, with the folders {_names(deeper)} in it: if these are "
            f"the classes, give {folders[0]}"
        )


def _check_labels(clips: ClipSet, source: Path) -> None:
    without = [entry for entry in clips.entries if entry.label is None]
    if without:
        raise UsageError(f"{source}: {without[0].path} has no label: give every clip its class")
    alike_names: dict[str, list[str]] = defaultdict(list)
    for label in clips.labels:
        alike_names[" ".join(label.casefold().split())].append(label)
    for names in alike_names.values():
        if len(names) > 1:
            raise UsageError(
                f"{source} has the classes {' and '.join(map(repr, names))}, which differ only in capitals or blanks: "
                "give them one name"
            )
    if problem := unfit_labels(clips.labels):
        raise UsageError(f"{source}: {problem}: rename the class")
    if len(clips.labels) == 1:
        raise UsageError(
            f"{source} has one class alone, {clips.labels[0]}: add a second one, for instance `other` with clips that "
            "show none of it"
        )


def survey(
    clips: ClipSet, frames: int, folds: int | None, seed: int, progress: Progress, workers: int | None = None
) -> Survey:
    """Look at all clips and divide them.

    Args:
        clips: See `read`.
        frames: T; a clip with fewer frames cannot be used.
        folds: Number of folds; None takes the usual one, see `divide`.
        seed: Seed of the division.
        progress: Makes a progress bar, like `tqdm.tqdm`.
        workers: See `in_workers`.

    Raises:
        ClipSetError: No clip can be used.
        UsageError: A class has too few clips, or the clips cannot be divided so.
    """
    usable, looks, skipped = look_at_all(clips, progress, workers)
    long_enough = [look.geometry.frames >= frames for look in looks]
    for entry, look, is_long in zip(usable.entries, looks, long_enough, strict=True):
        if not is_long:
            reason = f"too short: {look.geometry.frames} frames, the model takes {frames}"
            skipped.append(Skipped(entry.path, reason))
    looks = [look for look, is_long in zip(looks, long_enough, strict=True) if is_long]
    usable = usable.only(entry for entry, is_long in zip(usable.entries, long_enough, strict=True) if is_long)
    _check_counts(clips, usable, skipped)
    pairs = alike(looks)
    split = divide(usable, scenes(pairs).tolist(), folds, seed)
    control = geometry.control(split.clips, [look.geometry for look in looks], seed)
    sizes = [len(split.clips.fold(fold)) for fold in split.clips.folds]
    share = float(np.average([control[fold] for fold in split.clips.folds], weights=sizes))
    return Survey(split, tuple(looks), tuple(skipped), pairs, share)


def _check_counts(clips: ClipSet, usable: ClipSet, skipped: Sequence[Skipped]) -> None:
    """Check that every class has clips for both sides."""
    left = Counter(entry.label for entry in usable.entries)
    if not left:
        raise ClipSetError(f"{clips.name} has no clips that can be used{describe_skipped(skipped)}")
    if poor := [label for label in clips.labels if left[label] < FEWEST]:
        named = _names([f"{label} ({left[label]})" for label in poor])
        raise UsageError(
            f"{clips.name}: too few clips that can be used: {named}{describe_skipped(skipped)}; a class needs at least "
            f"{FEWEST}, one to learn from and one to be tested on, and better {FEW} or more"
        )


def table(found: Survey) -> list[tuple[str, str]]:
    """Return a line for each class: its name, and how many clips it has, of how many groups, and how long they are."""
    rows = []
    for label in found.clips.labels:
        own = [i for i, entry in enumerate(found.clips.entries) if entry.label == label]
        seconds = sorted(found.looks[i].geometry.seconds for i in own)
        groups = {found.clips.entries[i].group for i in own} - {None}
        of = f" of {quantity(len(groups), 'group')}" if groups else ""
        shortest, longest = f"{seconds[0]:.1f}", f"{seconds[-1]:.1f}"
        length = f"{shortest} s" if shortest == longest else f"{shortest} to {longest} s"
        rows.append((label, f"{quantity(len(own), 'clip')}{of}, {length}"))
    return rows


def warnings(found: Survey, fold: int | None, span: float) -> list[str]:
    """Return what the user should know about the clips, in whole sentences, the gravest first.

    Args:
        found: The survey.
        fold: The fold that is held out; None if each is, in its turn.
        span: Seconds that a window spans.
    """
    texts = [*_twice(found), *_scene_warnings(found, fold), *_geometry_warnings(found), *_number_warnings(found)]
    if fold is not None:
        texts += _side_warnings(found.split, fold)
    seconds = [look.geometry.seconds for look in found.looks]
    if float(np.median(seconds)) > _LONG * span:
        texts.append(
            f"The clips last {np.median(seconds):.0f} s, and a window spans {span:g} s: whatever happens in a clip is "
            "taken for its class, so cut the clips to the action itself."
        )
    if damaged := [i for i, look in enumerate(found.looks) if look.damage]:
        named = _names([found.clips.entries[i].path.name for i in damaged])
        texts.append(f"{quantity(len(damaged), 'clip')} can be decoded only in part: {named}.")
    return texts


def _twice(found: Survey) -> list[str]:
    """Warn of clips that are there twice, with two labels."""
    seen: dict[bytes, int] = {}
    for i, look in enumerate(found.looks):
        key = look.hashes.tobytes() + repr(look.geometry).encode()
        first = seen.setdefault(key, i) if len(look.hashes) else i
        entries = found.clips.entries
        if entries[first].label != entries[i].label:
            one, other = entries[first], entries[i]
            return [
                f"{one.path.name} ({one.label}) and {other.path.name} ({other.label}) show the same in two classes: a "
                "clip can be of one class only."
            ]
    return []


def _scene_warnings(found: Survey, fold: int | None) -> list[str]:
    """Warn of clips that are held out and look like clips that a model is trained on."""
    entries = found.clips.entries
    folds = np.array([entry.fold for entry in entries])
    across = found.pairs & (folds[:, None] != folds[None, :])
    places = np.flatnonzero(across.any(1) & (folds == fold if fold is not None else True))
    total = int((folds == fold).sum()) if fold is not None else len(entries)
    if not len(places):
        return []
    labels = np.array([str(entry.label) for entry in entries])
    first = int(places[0])
    twin = int(np.flatnonzero(across[first])[0])
    told = int(sum((labels[across[i]] == labels[i]).all() for i in places))
    text = (
        f"{len(places)} of the {quantity(total, 'clip')} that are held out show the same scene as clips to train on "
        f"({entries[first].path.name} and {entries[twin].path.name}, for one), and in {told} of these cases the scene "
        "alone gives the class away: the accuracy below holds for this place and these people, and will be lower "
        "elsewhere."
    )
    if found.split.by != "group":
        text += " Film in several places, and name the place or the person of each clip in a column of a CSV (--group)."
    return [text]


def _geometry_warnings(found: Survey) -> list[str]:
    """Warn if size and length alone recognise clearly more than always giving the most frequent label."""
    count = len(found.clips)
    label, most = Counter(str(entry.label) for entry in found.clips.entries).most_common(1)[0]
    low = wilson(round(found.control * count), count)[0]
    if low <= most / count:
        return []
    return [
        f"The size and length of the clips alone, without looking at them, tell the right class for "
        f"{percent(found.control)} (always saying {label}: {percent(most / count)}). A model may learn that in place "
        "of the action, and a camera's picture has neither: record all clips in the same way, or give --one-geometry, "
        "which cuts them to one size and length."
    ]


def _number_warnings(found: Survey) -> list[str]:
    counts = Counter(str(entry.label) for entry in found.clips.entries)
    texts = []
    if few := [label for label in found.clips.labels if counts[label] < FEW]:
        named = _names([f"{label} {counts[label]}" for label in few])
        classes = quantity(len(few), "class has", "classes have")
        texts.append(
            f"{classes} fewer than {FEW} clips ({named}): {FEW} to 50 of each, of several people and places, teach "
            "much more."
        )
    rare, common = min(counts, key=lambda x: counts[x]), max(counts, key=lambda x: counts[x])
    if counts[common] >= _UNEVEN * counts[rare]:
        texts.append(
            f"{common} has {counts[common]} clips and {rare} has {counts[rare]}: a model prefers what it sees often, "
            "so give about as many of each."
        )
    return texts


def _side_warnings(split: Split, fold: int) -> list[str]:
    texts = []
    if names := split.unlearnt(fold):
        texts.append(
            f"All clips of {_names(names)} are of one group, and this group is held out: the measured model knows "
            "nothing of them. Add clips of another group, or give --folds."
        )
    if names := split.unmeasured(fold):
        texts.append(f"No clip of {_names(names)} is held out, so that nothing is measured on them.")
    return texts


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
