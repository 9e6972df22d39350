"""Train one model on some of the clips, and measure how fast that goes."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vmp_edge.errors import UsageError
from vmp_edge.models import VideoMamba

from ..decoding import Progress
from . import batches, head, parallel
from .footage import Footage
from .head import Head
from .loop import TOP1, Task, Trainer, save
from .recipe import ClipsRecipe
from .start import Start
from .teacher import load_teacher

_TRIAL_SECONDS = 4.0  # for which the speed is measured
_TRIAL_STEPS = 4
_AT_ONCE = 8  # clips that are measured at once


@dataclass(frozen=True)
class Job:
    """One model to train.

    Attributes:
        name: For messages and the names of files: ``held-out``, ``fold-0``, ``model``.
        start: The model to start from.
        recipe: See `ClipsRecipe`.
        labels: Names of the classes.
        footage: The clips to train on.
        held_out: The clips that decide when to stop; None trains for all epochs.
        teacher: File of a model to learn from, or None.
        facts: What else the model's file should hold.
    """

    name: str
    start: Start
    recipe: ClipsRecipe
    labels: tuple[str, ...]
    footage: Footage
    held_out: Footage | None = None
    teacher: Path | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def checkpoint(self, folder: Path) -> Path:
        """Return the file from which an unfinished training goes on."""
        return folder / f"{self.name}.checkpoint"

    def trainer(self, checkpoint: Path, words: str) -> Trainer:
        """Make the training run.

        Args:
            checkpoint: See `Trainer`.
            words: What is shown at the progress bar.
        """
        model = self.start.with_classes(len(self.labels), self.recipe.seed)
        teacher = None
        if self.teacher is not None:
            features_count = self.recipe.feature_weight > 0
            teacher = load_teacher(self.teacher, model, self.labels, self.footage.preprocessing, features_count)
        footage, recipe = self.footage, self.recipe
        task = Task(
            name=words,
            batches=lambda rng, part: batches.batches(footage, self.labels, recipe, rng, part),
            steps=batches.steps(len(footage), recipe.batch),
            validate=self._validate,
        )
        return Trainer(recipe, model, task, checkpoint, teacher)

    def _validate(self, model: VideoMamba) -> dict[str, float]:
        return measure(model, self.held_out) if self.held_out is not None else {}


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        path: Its file.
        history: A record of each epoch, see `Trainer`.
    """

    path: Path
    history: list[dict[str, float]]

    @property
    def epoch(self) -> int:
        """The number of the epoch whose weights were kept, from 1; 0 without any epochs."""
        figures = [record.get(TOP1) for record in self.history]
        if not figures or any(figure is None for figure in figures):
            return len(figures)
        return max(range(len(figures)), key=lambda i: (figures[i] or 0.0, i)) + 1


def fit(job: Job, folder: Path, words: str, progress: Progress) -> Trained:
    """Train a model, or go on where an earlier call stopped, or keep what it has finished.

    Args:
        job: The model.
        folder: Gets ``NAME.pth``, and ``NAME.checkpoint`` as long as the training is not finished.
        words: What is shown at the progress bar.
        progress: Makes a progress bar, like `tqdm.tqdm`.

    Raises:
        UsageError: The folder holds a run with other settings, or the teacher is for other clips or classes.
        KeyboardInterrupt: The training was stopped; the checkpoint stays.
    """
    path, checkpoint = folder / f"{job.name}.pth", job.checkpoint(folder)
    recipe = dataclasses.asdict(job.recipe)
    if parallel.agree(path.exists()):
        content = torch.load(path, weights_only=True)
        if content["recipe"] != recipe:
            raise UsageError(f"{path} belongs to a run with other settings: choose another --output")
        return Trained(path, content["history"])
    trainer = job.trainer(checkpoint, words)
    trainer.run(progress)
    if trainer.part.index == 0:
        write(job, trainer.best, trainer.history, path)
        checkpoint.unlink(missing_ok=True)
    parallel.wait()
    return Trained(path, trainer.history)


def fit_head(
    job: Job, features: NDArray[np.float32], groups: Sequence[str], folder: Path, progress: Progress
) -> tuple[Trained, Head]:
    """Fit the last layer of a model on features of its clips, and write its file.

    Args:
        job: The model.
        features: Of the job's clips, float32 (N, V, C), see `head.features`.
        groups: The group of each clip.
        folder: Gets ``NAME.pth``.
        progress: Makes a progress bar, like `tqdm.tqdm`.
    """
    names = [job.labels[i] for i in job.footage.labels]
    fitted = head.fit(features, names, groups, progress)
    model = head.put_into(job.start.with_classes(len(job.labels), 0), fitted)
    path = folder / f"{job.name}.pth"
    write(job, model.state_dict(), [], path)
    return Trained(path, []), fitted


def write(job: Job, weights: dict[str, torch.Tensor], history: list[dict[str, float]], path: Path) -> None:
    """Write a model's file, from which `vmp-edge build --checkpoint` knows all that it needs.

    Args:
        job: The model.
        weights: Its weights.
        history: Its epochs.
        path: The file.
    """
    footage = job.footage
    content = {
        "model": weights,
        "options": dataclasses.asdict(job.start.with_classes(len(job.labels), 0).options),
        "labels": list(job.labels),
        "preprocessing": footage.preprocessing.to_manifest(),
        "sampling": {"frames": footage.frames, "span": footage.span},
        "recipe": dataclasses.asdict(job.recipe),
        "history": history,
        **job.facts,
    }
    save(content, path)


def epochs_done(job: Job, folder: Path) -> int:
    """Return how many epochs an earlier call has done, or a large number if its training is finished.

    Args:
        job: The model.
        folder: See `fit`.
    """
    if (folder / f"{job.name}.pth").exists():
        return sys.maxsize
    checkpoint = job.checkpoint(folder)
    return len(torch.load(checkpoint, "cpu", weights_only=True)["history"]) if checkpoint.exists() else 0


def keep_best(job: Job, folder: Path, path: Path) -> Trained | None:
    """Write the best weights of an unfinished training as a model's file.

    Args:
        job: The model.
        folder: See `fit`.
        path: The file.

    Returns:
        The model, or None if no epoch is done.
    """
    checkpoint = job.checkpoint(folder)
    if not checkpoint.exists():
        return None
    content = torch.load(checkpoint, "cpu", weights_only=True)
    write(job, content["best"] or content["averaged"], content["history"], path)
    return Trained(path, content["history"])


def measure(model: VideoMamba, footage: Footage) -> dict[str, float]:
    """Recognise the middle window of each clip.

    Args:
        model: In evaluation mode.
        footage: The clips.

    Returns:
        ``top1`` and the mean ``held_out_loss``.
    """
    device = next(model.parameters()).device
    logits = []
    with torch.inference_mode():
        for start in range(0, len(footage), _AT_ONCE):
            chosen = range(start, min(start + _AT_ONCE, len(footage)))
            video = torch.from_numpy(np.concatenate([footage.middle(i) for i in chosen]))
            logits.append(model(video.to(device)).float().cpu())
    scores, labels = torch.cat(logits), torch.from_numpy(footage.labels)
    return {
        TOP1: (scores.argmax(1) == labels).float().mean().item(),
        "held_out_loss": F.cross_entropy(scores, labels).item(),
    }


@dataclass(frozen=True)
class Speed:
    """How fast this machine trains.

    Attributes:
        step: Seconds of a step of the optimiser, with the making of its batch.
        clip: Seconds to recognise a clip.
    """

    step: float
    clip: float


def speed(job: Job, folder: Path) -> Speed:
    """Measure the speed by a few steps whose result is thrown away.

    Args:
        job: The model.
        folder: Of the run; nothing is left in it.
    """
    trainer = dataclasses.replace(job, held_out=None).trainer(folder / f".{job.name}.trial", "trial")
    rng = np.random.default_rng(0)
    seconds: list[float] = []
    begin = before = time.perf_counter()
    for number, (video, labels) in enumerate(trainer.task.batches(rng, trainer.part)):
        trainer.step(number, video, labels)
        now = time.perf_counter()
        seconds.append(now - before)
        before = now
        long = now - begin > _TRIAL_SECONDS and trainer.part.count == 1  # several processes do equally many steps
        if len(seconds) > _TRIAL_STEPS or long:
            break
    # the first step also makes the optimiser's memory
    return Speed(float(np.mean(seconds[1:] or seconds)), clip_seconds(trainer.averaged_model(), job.footage))


def clip_seconds(model: VideoMamba, footage: Footage) -> float:
    """Return the seconds that it takes to recognise a clip.

    Args:
        model: In evaluation mode.
        footage: Clips, of which the first few are recognised.
    """
    sample = dataclasses.replace(
        footage,
        clips=footage.clips[:_AT_ONCE],
        seconds=footage.seconds[:_AT_ONCE],
        labels=footage.labels[:_AT_ONCE],
        folds=footage.folds[:_AT_ONCE],
    )
    before = time.perf_counter()
    measure(model, sample)
    return (time.perf_counter() - before) / len(sample)
