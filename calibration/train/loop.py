"""The training loop: its model, its averaged weights, a checkpoint to resume from, and the history of the epochs.

`torchrun` runs it in several processes, see ``parallel``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from vmp_edge.errors import UsageError
from vmp_edge.files import whole
from vmp_edge.models import VideoMamba

from . import parallel
from .depth import DropPath
from .objective import AnyObjective, Objective
from .optimiser import parameter_groups, schedule
from .parallel import Part
from .recipe import TrainingRecipe
from .teacher import TrainedTeacher

TOP1 = "top1"  # the figure of `Task.validate` that decides which weights are the best

Batches = Iterable[tuple[Tensor, Tensor]]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Task:
    """The data of a training.

    Attributes:
        name: Shown at the progress bar.
        batches: Function from a random generator and a process's part to the part of one epoch's batches: videos,
            float32 (B, 3, T, S, S), and labels, int64 (B,), or the share of each class, float32 (B, classes). The same
            generator gives the same batches, however many processes divide them; see `divided`.
        steps: Batches in an epoch.
        validate: Function from a model in evaluation mode, on the trainer's device, to figures by name; called after
            every epoch. The figure ``top1``, on clips that are held out, decides which weights are the best, and when
            the training stops early.
    """

    name: str
    batches: Callable[[np.random.Generator, Part], Batches]
    steps: int
    validate: Callable[[VideoMamba], dict[str, float]] = lambda model: {}


def divided(batches: Batches, part: Part) -> Batches:
    """Return a process's part of each batch, for batches that every process makes as a whole."""
    for video, labels in batches:
        chosen = part.of(len(video))
        yield video[chosen], labels[chosen]


class Trainer:
    """A training run. Its result is `best`.

    Attributes:
        history: A record of each epoch: ``epoch``, ``loss``, the figures of `Task.validate`, ``learning_rate``,
            ``seconds`` and ``clips_per_second``.
        averaged: The averaged weights after the last step.
        device: Where the model is: this process's GPU if there is one.

    Args:
        recipe: See `TrainingRecipe`.
        model: Has its initial weights. It moves to the device.
        task: See `Task`.
        checkpoint: File that the run is saved to after every epoch. If it exists, the run resumes from it.
        teacher: See `load_teacher`; None learns from the labels alone.
        objective: What is minimised instead, with `model` in it.

    Raises:
        UsageError: The checkpoint belongs to a run with another recipe, or the processes cannot divide a batch evenly.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        model: VideoMamba,
        task: Task,
        checkpoint: Path,
        teacher: TrainedTeacher | None = None,
        objective: AnyObjective | None = None,
    ) -> None:
        self.recipe, self.task, self.checkpoint = recipe, task, checkpoint
        self.part, self.device = parallel.current(), parallel.training_device()
        self.part.of(recipe.batch)
        self.model = model.to(self.device).train()
        self.drop_path = DropPath(self.model, recipe.drop_path, recipe.seed)
        if objective is None:
            objective = Objective(recipe, self.model, teacher.to(self.device) if teacher is not None else None)
        self.objective = objective
        self.adapter = self.objective.adapter
        groups = parameter_groups(self.model, recipe.weight_decay, recipe.layer_decay)
        if parameters := [*self.adapter.parameters()]:
            groups.append({"params": parameters, "weight_decay": 0.0, "rate": 1.0})
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.number_type = _mixed_type(self.device) if recipe.mixed and self.device.type == "cuda" else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.number_type is torch.float16)
        self.history: list[dict[str, float]] = []
        self._best: Weights | None = None
        # It gives all processes the first one's weights.
        self._loss = DistributedDataParallel(self.objective) if self.part.count > 1 else self.objective
        self.averaged = {name: value.clone() for name, value in self.model.state_dict().items()}
        if parallel.agree(self.checkpoint.exists()):
            self._resume()

    @property
    def best(self) -> Weights:
        """The averaged weights after the epoch with the highest ``top1``, or after the last one if it is not measured.

        They are on the CPU.
        """
        weights = self._best if self._best is not None else self.averaged
        return {name: value.cpu() for name, value in weights.items()}

    @property
    def finished(self) -> bool:
        """Whether the run is at its end: all epochs are done, or ``top1`` has not risen for the recipe's patience."""
        figures = [record[TOP1] for record in self.history if TOP1 in record]
        waited = len(figures) - 1 - _last_highest(figures) if figures else 0
        return len(self.history) >= self.recipe.epochs or 0 < self.recipe.patience <= waited

    def run(self, progress: Callable[..., Any]) -> None:
        """Train to the end.

        Args:
            progress: Makes the run's progress bar, like `tqdm.tqdm`.
        """
        steps, done = self.task.steps, len(self.history)
        bar = progress(total=self.recipe.epochs * steps, initial=done * steps, desc=self.task.name, unit="step")
        validation = {name: value for name, value in (self.history or [{}])[-1].items() if name == TOP1}
        while not self.finished:
            epoch, start, losses = len(self.history), time.monotonic(), []
            rng = np.random.default_rng([self.recipe.seed, epoch])
            for i, (video, labels) in enumerate(self.task.batches(rng, self.part)):
                losses.append(self.step(epoch * steps + i, video, labels))
                figures = {"loss": float(np.mean(losses[-50:])), **validation}
                bar.set_postfix(epoch=epoch + 1, **{k: f"{v:.3f}" for k, v in figures.items()}, refresh=False)
                bar.update()
            seconds = time.monotonic() - start
            validation = self._validate()
            record = {
                "epoch": epoch + 1,
                "loss": parallel.mean(float(np.mean(losses))),
                **validation,
                "learning_rate": self.recipe.learning_rate * schedule(epoch / self.recipe.epochs),
                "seconds": seconds,
                "clips_per_second": len(losses) * self.recipe.batch / seconds,
            }
            self.history.append(parallel.agree(record))
            self._keep_best()
            self._save()
        bar.close()

    def step(self, number: int, video: Tensor, labels: Tensor) -> float:
        """Do one step of the optimiser.

        Args:
            number: Step within the whole run, from 0; decides the learning rate.
            video: This process's part of the batch, float32 (B, 3, T, S, S).
            labels: int64 (B,), or float32 (B, classes).

        Returns:
            The loss of the model's readout.
        """
        rate = self.recipe.learning_rate * schedule(number / (self.recipe.epochs * self.task.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        self.drop_path.draw(number, len(video), self.part, self.device)
        with torch.autocast(self.device.type, self.number_type, enabled=self.number_type is not None):
            total, loss = self._loss(video.to(self.device), labels.to(self.device))
        self.optimiser.zero_grad()
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        keep = min(self.recipe.average, number / (number + 10))
        for name, value in self.model.state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)
        return float(loss.item())

    def averaged_model(self) -> VideoMamba:
        """Return the model with the averaged weights, in evaluation mode, on the trainer's device."""
        model = VideoMamba(self.model.options).to(self.device).eval()
        model.load_state_dict(self.averaged)
        return model

    def _validate(self) -> dict[str, float]:
        """Measure the averaged weights in the first process, while the others wait."""
        return parallel.agree(self.task.validate(self.averaged_model()) if self.part.index == 0 else {})

    def _keep_best(self) -> None:
        figures = [record[TOP1] for record in self.history if TOP1 in record]
        if figures and _last_highest(figures) == len(figures) - 1:
            self._best = {name: value.cpu().clone() for name, value in self.averaged.items()}

    def _save(self) -> None:
        content = {
            "recipe": dataclasses.asdict(self.recipe),
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "best": self._best,
            "adapter": self.adapter.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
        }
        if self.part.index == 0:
            save(content, self.checkpoint)
        parallel.wait()

    def _resume(self) -> None:
        """Go on from the checkpoint, which only the first process needs to have."""
        content = torch.load(self.checkpoint, "cpu", weights_only=True) if self.part.index == 0 else None
        content = parallel.agree(content)
        assert content is not None
        if content["recipe"] != dataclasses.asdict(self.recipe):
            raise UsageError(f"{self.checkpoint} belongs to a run with other settings: choose another --output")
        self.model.load_state_dict(content["model"])
        self.averaged = {name: value.to(self.device) for name, value in content["averaged"].items()}
        self._best = content["best"]
        self.adapter.load_state_dict(content["adapter"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        self.history = content["history"]


def _last_highest(figures: list[float]) -> int:
    """Return the index of the highest figure; of equal ones the last, which has trained the longest."""
    return max(range(len(figures)), key=lambda i: (figures[i], i))


def _mixed_type(device: torch.device) -> torch.dtype:
    """Return the 16-bit type that a GPU is fast at."""
    with torch.cuda.device(device):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float16


def save(content: Any, path: Path) -> None:
    """Save with PyTorch; the file replaces an old one only when it is complete."""
    with whole(path) as place:
        torch.save(content, place)
