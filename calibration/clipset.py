"""Clip sets: lists of video files with their labels, groups and folds."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vmp_edge.errors import MissingDependencyError, UsageError, VmpError
from vmp_edge.files import whole
from vmp_edge.installation import install_command

SUFFIXES = frozenset(
    [
        *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif"),
        *(".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    ]
)
_MOST_NAMED = 3  # files that a message names before it says "and N more"
FIELDS = ("path", "label", "group", "fold")


class ClipSetError(VmpError):
    """A clip set cannot be read, or has too few clips that can be used."""


@dataclass(frozen=True)
class Entry:
    """One video file.

    Attributes:
        path: The file.
        label: The class that the video shows; None if it is not known.
        group: Name of a scene or person, say. Videos of one group must not be on both sides of a split. None if the
            video belongs to no group.
        fold: Number of the part that the video is held out with in a cross-validation; None if there are no folds.
    """

    path: Path
    label: str | None = None
    group: str | None = None
    fold: int | None = None


@dataclass(frozen=True)
class ClipSet:
    """Videos in a fixed order.

    Attributes:
        name: For messages.
        entries: The videos.
        passed_over: Files in the class folders that are no videos by their names. Hidden files are not among them.
    """

    name: str
    entries: tuple[Entry, ...]
    passed_over: tuple[Path, ...] = dataclasses.field(default=(), compare=False)

    def note(self) -> str | None:
        """Return a sentence that names the files that were passed over, or None if there were none."""
        if not self.passed_over:
            return None
        names = [path.name for path in self.passed_over[:_MOST_NAMED]]
        more = len(self.passed_over) - len(names)
        files = "1 file is" if len(self.passed_over) == 1 else f"{len(self.passed_over)} files are"
        return f"{self.name}: {files} left out, no video by the name: {', '.join(names)}" + (
            f" and {more} more" if more else ""
        )

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted({entry.label for entry in self.entries if entry.label is not None}))

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that occur, sorted."""
        return tuple(sorted({entry.fold for entry in self.entries if entry.fold is not None}))

    def fold(self, number: int) -> ClipSet:
        """Return the videos that a fold holds out.

        Raises:
            UsageError: There is no such fold.
        """
        if number not in self.folds:
            known = ", ".join(map(str, self.folds)) or "none: it needs a column `fold`"
            raise UsageError(f"{self.name} has no fold {number}; its folds: {known}")
        return self.only(entry for entry in self.entries if entry.fold == number)

    def outside(self, number: int) -> ClipSet:
        """Return the videos of all other folds, on which a fold's model is trained."""
        return self.only(entry for entry in self.entries if entry.fold != number)

    def split(self, folds: int, seed: int = 0) -> ClipSet:
        """Divide the set into folds with about the same share of every label, keeping groups together.

        Args:
            folds: Number of folds, at least 2.
            seed: Seed of the division.

        Returns:
            The same videos, each with its fold, 0 to ``folds`` - 1 (scikit-learn's `StratifiedGroupKFold`).

        Raises:
            UsageError: There are fewer groups, or fewer videos of a label, than folds.
            MissingDependencyError: The extra ``train`` is not installed.
        """
        need_scikit_learn()
        from sklearn.model_selection import StratifiedGroupKFold

        groups = [entry.group if entry.group is not None else f"\0{i}" for i, entry in enumerate(self.entries)]
        labels = [entry.label or "" for entry in self.entries]
        scarcest = min([len(set(groups)), *(labels.count(label) for label in set(labels))], default=0)
        if not 2 <= folds <= scarcest:
            raise UsageError(f"{self.name} cannot be divided into {folds} folds: give 2 to {scarcest}")
        number = np.zeros(len(self), int)
        divide = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        for fold, (_, held_out) in enumerate(divide.split(labels, labels, groups)):
            number[held_out] = fold
        entries = zip(self.entries, number.tolist(), strict=True)
        return self.only(dataclasses.replace(entry, fold=fold) for entry, fold in entries)

    def shuffled(self, seed: int = 0) -> ClipSet:
        """Shuffle the videos so that labels take turns: any first N have all labels in equal numbers, if possible."""
        rng = np.random.default_rng(seed)
        waiting = {label: [e for e in self.entries if e.label == label] for label in (*self.labels, None)}
        turns: list[tuple[float, int, Entry]] = []
        for entries in waiting.values():
            order = rng.permutation(len(entries))
            turns += [(turn, len(turns) + turn, entries[i]) for turn, i in enumerate(order)]
        return self.only(entry for _, _, entry in sorted(turns, key=lambda item: item[:2]))

    def csv(self, folder: Path) -> str:
        """Return the set in the CSV format of `read`, for a file in ``folder``; paths inside it become relative."""
        folder, text = folder.resolve(), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(FIELDS)
        for entry in self.entries:
            place = entry.path.resolve()
            path = place.relative_to(folder) if place.is_relative_to(folder) else place
            values = (path, entry.label, entry.group, entry.fold)
            writer.writerow(["" if value is None else value for value in values])
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write the set in the CSV format of `read`."""
        with whole(path) as place:
            place.write_text(self.csv(path.parent), encoding="utf-8")

    def only(self, entries: Iterable[Entry]) -> ClipSet:
        """Return a set of the same name with these videos."""
        return dataclasses.replace(self, entries=tuple(entries))


def read(source: str | os.PathLike[str], group: str = "group") -> ClipSet:
    """Find the videos of a folder or a list.

    Args:
        source: A folder, a ``.csv`` or a ``.txt``. A folder has a subfolder for every class, which is searched
            recursively; the videos are sorted by name. A CSV has the columns ``path`` and ``label`` and, optionally, a
            group and ``fold``; other columns are ignored. A ``.txt`` has a video's path in each line. Paths in files
            are relative to the file.
        group: Name of the CSV's column that has the group.

    Raises:
        ClipSetError: The source does not exist, is not one of the three, or names no videos.
    """
    path = Path(source)
    if path.is_dir():
        return ClipSet(str(path), *_from_folder(path))
    if not path.is_file():
        raise ClipSetError(f"{path} does not exist: give a folder of class folders, a .csv or a .txt")
    kind = path.suffix.lower()
    if kind not in (".csv", ".txt"):
        raise ClipSetError(f"{path} is no clip set: give a folder of class folders, a .csv or a .txt")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ClipSetError(f"{path} cannot be read as a text file ({error})") from error
    lines = text.splitlines()
    entries = _from_csv(path, lines, group) if kind == ".csv" else from_paths(_beside(path, lines)).entries
    if not entries:
        raise ClipSetError(f"{path} names no videos")
    return ClipSet(str(path), entries)


def from_paths(paths: Iterable[str | os.PathLike[str]], name: str = "the list of videos") -> ClipSet:
    """Make a clip set of videos whose labels are not known."""
    return ClipSet(name, tuple(Entry(Path(path)) for path in paths))


def need_scikit_learn() -> None:
    """Check that scikit-learn is installed.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"this needs scikit-learn, which is not installed; run: {install_command('train')}"
        ) from error


def _from_folder(folder: Path) -> tuple[tuple[Entry, ...], tuple[Path, ...]]:
    """Return the videos in the class folders, and the other files there. Hidden files and folders are left out."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    entries: list[Entry] = []
    others: list[Path] = []
    for place in classes:
        for path in sorted(place.rglob("*")):
            if not path.is_file() or any(part.startswith(".") for part in path.relative_to(place).parts):
                continue
            if path.suffix.lower() in SUFFIXES:
                entries.append(Entry(path, label=place.name))
            else:
                others.append(path)
    if not entries:
        raise ClipSetError(f"{folder} has no class folders with videos in them ({', '.join(sorted(SUFFIXES))})")
    return tuple(entries), tuple(others)


def _beside(path: Path, lines: Sequence[str]) -> list[Path]:
    return [path.parent / line.strip() for line in lines if line.strip()]


def _from_csv(path: Path, lines: Sequence[str], group: str) -> tuple[Entry, ...]:
    reader = csv.DictReader(lines)
    columns = reader.fieldnames or []
    needed = ["path", "label", *([group] if group != "group" else [])]
    if missing := [name for name in needed if name not in columns]:
        raise ClipSetError(f"{path} lacks the column {', '.join(missing)}; its first line is {','.join(columns)!r}")
    entries = []
    for row in reader:
        if not row["path"]:
            raise ClipSetError(f"{path}, line {reader.line_num}: the path is empty")
        fold = row.get("fold") or None
        if fold is not None and not fold.isdecimal():
            raise ClipSetError(f"{path}, line {reader.line_num}: the fold is {fold!r}; it must be a whole number")
        number = None if fold is None else int(fold)
        entries.append(Entry(path.parent / row["path"], row["label"] or None, row.get(group) or None, number))
    return tuple(entries)
