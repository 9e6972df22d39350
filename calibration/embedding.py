"""Features of many videos, for searching and clustering."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import GalleryError, UsageError
from vmp_edge.files import whole
from vmp_edge.gallery import model_of
from vmp_edge.recognizer import Recognizer

from . import clipset
from .clipset import SUFFIXES, ClipSet, ClipSetError, Entry
from .decoding import Input, Prepare, Progress, Sampling, Skipped, describe_skipped, in_workers
from .sharing import Arrays, Parts, Share, identity


@dataclass(frozen=True, eq=False)
class Embedding:
    """The features of videos.

    Attributes:
        features: float32 (N, C), the mean of a video's clips.
        entries: The N videos.
        skipped: The videos that could not be used.
        model: The identity of the features, as `model_of` gives it.
    """

    features: NDArray[np.float32]
    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    model: str

    def write(self, path: Path) -> None:
        """Write an ``.npz`` with features, paths, labels, and which bundle they are of. It holds no pickled objects.

        Raises:
            UsageError: The file cannot be written.
        """
        arrays = {
            "features": self.features,
            "paths": _texts(str(entry.path) for entry in self.entries),
            "labels": _texts(entry.label or "" for entry in self.entries),
            "skipped": _texts(str(video.path) for video in self.skipped),
            "reasons": _texts(video.reason for video in self.skipped),
            "model": np.array(self.model),
        }
        try:
            with whole(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror})") from error


def videos_of(places: Sequence[str | os.PathLike[str]]) -> ClipSet:
    """Return the videos of folders, lists and single files, each once.

    A folder is searched as a whole. Its videos have the name of the first folder inside it, if any, for their label.

    Raises:
        ClipSetError: There is no video, or a list cannot be read.
    """
    entries: list[Entry] = []
    for place in map(Path, places):
        if place.is_dir():
            entries += _in_folder(place)
        elif place.suffix.lower() in (".csv", ".txt"):
            entries += clipset.read(place).entries
        else:
            entries.append(Entry(place))
    if not entries:
        raise ClipSetError(f"{', '.join(map(str, places))}: no videos there ({', '.join(sorted(SUFFIXES))})")
    return ClipSet(str(places[0]) if len(places) == 1 else "the videos", tuple(dict.fromkeys(entries)))


def embed(
    recognizer: Recognizer,
    clips: ClipSet,
    sampling: Sampling,
    output: Path,
    *,
    share: Share,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Embedding:
    """Compute the features of videos, and write them to a file.

    Args:
        recognizer: A bundle with features.
        clips: The videos.
        sampling: Which frames to take.
        output: The file. The parts of several processes lie beside it until all are there.
        share: Which of several processes this one is.
        workers: See `in_workers`.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.

    Returns:
        The features of all videos.

    Raises:
        SharePendingError: Other processes are not done yet.
        GalleryError: The bundle gives no features.
        ClipSetError: No video can be used.
        BundleError: The engine failed.
    """
    if not recognizer.manifest.features:
        raise GalleryError(f"{recognizer.bundle.path} gives no features: build it with --features")
    model = model_of(recognizer.bundle)
    if share.is_whole:
        return _written([_part(recognizer, clips, sampling, share, workers, progress)], recognizer, clips, output)
    key = identity("embed", model, vars(sampling), videos=clips.entries)
    parts = Parts(output.resolve().parent, key, share)
    if parts.own() is None:
        parts.write(_part(recognizer, clips, sampling, share, share.workers(workers), progress))
    with parts.together(f"writes {output}") as every:
        return _written(every, recognizer, clips, output)


def _written(parts: Sequence[Arrays], recognizer: Recognizer, clips: ClipSet, output: Path) -> Embedding:
    """Put parts together, and write them to a file."""
    embedding = _merged(parts, clips, model_of(recognizer.bundle), recognizer.manifest.features)
    if not len(embedding.features):
        raise ClipSetError(f"{clips.name} has no videos that can be used{describe_skipped(embedding.skipped)}")
    embedding.write(output)
    return embedding


def _part(
    recognizer: Recognizer,
    clips: ClipSet,
    sampling: Sampling,
    share: Share,
    workers: int | None,
    progress: Progress | None,
) -> Arrays:
    """Compute a share of the features, with the videos' places in the set."""
    rows: list[NDArray[np.float32]] = []
    used: list[int] = []
    skipped: list[int] = []
    reasons: list[str] = []
    job = Prepare((Input.of(recognizer.manifest),), sampling)
    own = share.of(clips.entries)
    with closing(in_workers(job, own, workers)) as results:
        shown = progress(results, total=len(own), desc="videos", unit="video") if progress else results
        for place, (_, result) in zip(share.places(len(clips)), shown, strict=True):
            if isinstance(result, Skipped):
                skipped.append(place)
                reasons.append(result.reason)
                continue
            (video,) = result
            rows.append(np.mean([recognizer.features(video[i : i + 1])[0] for i in range(len(video))], axis=0))
            used.append(place)
    features = np.stack(rows).astype(np.float32) if rows else np.zeros((0, recognizer.manifest.features), np.float32)
    return {
        "features": features,
        "used": np.array(used, np.int64),
        "skipped": np.array(skipped, np.int64),
        "reasons": _texts(reasons),
    }


def _merged(parts: Sequence[Arrays], clips: ClipSet, model: str, size: int) -> Embedding:
    """Put parts together, in the order of the videos."""
    rows: dict[int, NDArray[np.float32]] = {}
    reasons: dict[int, str] = {}
    for part in parts:
        rows |= dict(zip(part["used"].tolist(), part["features"], strict=True))
        reasons |= dict(zip(part["skipped"].tolist(), part["reasons"].tolist(), strict=True))
    features = np.stack([rows[place] for place in sorted(rows)]) if rows else np.zeros((0, size), np.float32)
    return Embedding(
        features,
        tuple(clips.entries[place] for place in sorted(rows)),
        tuple(Skipped(clips.entries[place].path, reasons[place]) for place in sorted(reasons)),
        model,
    )


def _in_folder(folder: Path) -> list[Entry]:
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(part.startswith(".") for part in inside):
            found.append(Entry(path, inside[0] if len(inside) > 1 else None))
    return found


def _texts(values: Any) -> NDArray[np.str_]:
    """Return texts as an array that is no object array, without any as well."""
    return np.array(list(values), dtype=np.str_)
