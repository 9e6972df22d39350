"""Models that are measured, and the scores and times that are collected while they run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmp_edge.gallery import NONE
from vmp_edge.recognizer import Recognizer, softmax

from .clipset import Entry
from .decoding import Input, Skipped, Video
from .evaluation import Evaluation

_LEAST_SCORE = 1e-30


@dataclass(frozen=True)
class Subject:
    """A model to measure.

    Attributes:
        name: For messages and tables.
        labels: One for each class, in the order of the logits.
        input: The clips that the model takes.
        run: Function from a video, float32 (1, 3, T, S, S), to logits, float32 (1, classes), after which features may
            follow.
        facts: Further facts about the model: ``model``, ``target``, ``engine``, ``precision``, ``bytes``, ``threads``
            (None leaves them to the engine), ``sha256`` of the program, and the ``tools`` that made it.
        can_be_timed: Whether its speed says something. That of a stand-in for a target's engine does not.
    """

    name: str
    labels: tuple[str, ...]
    input: Input
    run: Callable[[Video], NDArray[np.float32]]
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    can_be_timed: bool = True

    @classmethod
    def of(cls, recognizer: Recognizer, threads: int | None = None) -> Subject:
        """Return a loaded bundle, of any engine, as a model to measure.

        Args:
            recognizer: The bundle.
            threads: Number of threads that it was loaded with; None is the bundle's own number.
        """
        manifest = recognizer.manifest
        facts = {
            "model": manifest.name,
            "target": manifest.target,
            "engine": manifest.engine,
            "precision": manifest.precision,
            "bytes": sum(entry.size for entry in manifest.files.values()),
            "threads": threads if threads is not None else manifest.threads,
            "sha256": manifest.files[manifest.program].sha256 if manifest.program in manifest.files else None,
            "tools": dict(manifest.tools),
        }
        name = str(recognizer.bundle.path)
        if recognizer.labels == manifest.labels:
            return cls(name, manifest.labels, Input.of(manifest), recognizer.predict_video, facts)
        left_out = int(recognizer.labels[0] == NONE and not recognizer.can_reject)

        def run(video: Video) -> NDArray[np.float32]:
            """Return logits whose softmax are the scores, as a gallery's classes have no logits."""
            scores = recognizer.scores(recognizer.outputs(video))[:, left_out:]
            return np.log(np.maximum(scores, _LEAST_SCORE)).astype(np.float32)

        return cls(name, recognizer.labels[left_out:], Input.of(manifest), run, facts)


class Tally:
    """Runs a model on videos and collects its scores and times.

    Args:
        subject: The model.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._scores: list[NDArray[np.float32]] = []
        self._seconds: list[float] = []
        self._last: Video | None = None

    def add(self, videos: Video) -> None:
        """Run the model on each clip of a video, (clips, 3, T, S, S), and keep the mean scores."""
        classes = len(self.subject.labels)
        total = np.zeros(classes, np.float64)
        for i in range(len(videos)):
            start = time.perf_counter()
            logits = self.subject.run(videos[i : i + 1])
            self._seconds.append(time.perf_counter() - start)
            total += softmax(logits[0, :classes])
        self._scores.append((total / len(videos)).astype(np.float32))
        self._last = videos[-1:]

    def repeat(self) -> None:
        """Run the model on the last clip once more."""
        assert self._last is not None
        self.subject.run(self._last)

    def evaluation(
        self, entries: Sequence[Entry], skipped: Sequence[Skipped], damaged: Sequence[Skipped]
    ) -> Evaluation:
        """Return the results for the videos that were added, in their order."""
        subject = self.subject
        scores = np.stack(self._scores) if self._scores else np.zeros((0, len(subject.labels)), np.float32)
        seconds = np.array(self._seconds, np.float64)
        return Evaluation(
            subject.name,
            subject.labels,
            tuple(entries),
            scores,
            seconds,
            tuple(skipped),
            subject.facts,
            damaged=tuple(damaged),
        )


class StreamTally:
    """Runs a model on what a stream sees of videos.

    Args:
        subject: The model.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._tally = Tally(subject)
        self._entries: list[Entry] = []
        self._skipped: list[Skipped] = []

    def add(self, entry: Entry, windows: Video | str) -> None:
        """Run the model on the windows of a video, or keep why there are none."""
        if isinstance(windows, str):
            self._skipped.append(Skipped(entry.path, windows))
            return
        self._entries.append(entry)
        self._tally.add(windows)

    def evaluation(self) -> Evaluation:
        """Return the results for the videos that have windows."""
        return self._tally.evaluation(self._entries, self._skipped, ())
