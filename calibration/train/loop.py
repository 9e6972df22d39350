"""Train a model of the family on any clips: the loop, its schedule, and a checkpoint to resume from."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vmp_edge.errors import UsageError
from vmp_edge.files import whole
from vmp_edge.models import VideoMamba, load_checkpoint

from ..distillation import adapter, features_loss, predictions_loss
from .recipe import TrainingRecipe

# Filters over hundreds of correlated pixels take much smaller steps than matrices over a hundred channels.
PATCH_RATE = 0.02


@dataclass(frozen=True)
class Task:
    """The data of a training.

    Attributes:
        name: Shown at the progress bar.
        batches: Function from a random generator to one epoch's batches, float32 (B, 3, T, S, S) and int64 (B,).
        steps: Batches in an epoch.
        validate: Function from a model to figures by name; called after every epoch.
    """

    name: str
    batches: Callable[[np.random.Generator], Iterable[tuple[Tensor, Tensor]]]
    steps: int
    validate: Callable[[VideoMamba], dict[str, float]] = lambda model: {}


class Trainer:
    """A training run: the model, its averaged weights, the optimiser, and the history of the epochs.

    Args:
        recipe: See `TrainingRecipe`.
        model: Has its initial weights.
        task: See `Task`.
        checkpoint: File that the run is saved to after every epoch. If it exists, the run resumes from it.
        teacher: See `load_teacher`; None learns from the labels alone.

    Raises:
        UsageError: The checkpoint belongs to a run with another recipe.
    """

    def __init__(
        self, recipe: TrainingRecipe, model: VideoMamba, task: Task, checkpoint: Path, teacher: VideoMamba | None = None
    ) -> None:
        self.recipe, self.task, self.checkpoint, self.teacher = recipe, task, checkpoint, teacher
        self.model = model.train()
        self.averaged = {name: value.clone() for name, value in self.model.state_dict().items()}
        groups = parameter_groups(self.model, recipe.weight_decay)
        width = model.options.embed_dim
        self.adapter = adapter(width, width if teacher is None else teacher.options.embed_dim)
        if parameters := [*self.adapter.parameters()]:
            groups.append({"params": parameters, "weight_decay": 0.0, "rate": 1.0})
        self.optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.history: list[dict[str, float]] = []
        if self.checkpoint.exists():
            self._resume()

    def run(self, progress: Callable[..., Any]) -> None:
        """Train to the end.

        Args:
            progress: Makes the run's progress bar, like `tqdm.tqdm`.
        """
        steps, epochs = self.task.steps, self.recipe.epochs
        done = len(self.history)
        bar = progress(total=epochs * steps, initial=done * steps, desc=self.task.name, unit="step")
        validation: dict[str, float] = {}
        for epoch in range(done, epochs):
            start, losses = time.monotonic(), []
            rng = np.random.default_rng([self.recipe.seed, epoch])
            for i, (video, labels) in enumerate(self.task.batches(rng)):
                losses.append(self.step(epoch * steps + i, video, labels))
                figures = {"loss": float(np.mean(losses[-50:])), **validation}
                bar.set_postfix(epoch=epoch + 1, **{k: f"{v:.3f}" for k, v in figures.items()}, refresh=False)
                bar.update()
            seconds = time.monotonic() - start
            validation = self.task.validate(self.averaged_model())
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "loss": float(np.mean(losses)),
                    **validation,
                    "seconds": seconds,
                    "clips_per_second": len(losses) * self.recipe.batch / seconds,
                }
            )
            self._save()
        bar.close()

    def step(self, number: int, video: Tensor, labels: Tensor) -> float:
        """Do one step of the optimiser.

        Args:
            number: Step within the whole run, from 0; decides the learning rate.
            video: float32 (B, 3, T, S, S).
            labels: int64 (B,).

        Returns:
            The loss of the class token.
        """
        rate = self.recipe.learning_rate * schedule(number / (self.recipe.epochs * self.task.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        tokens = self.model.forward_tokens(video)
        logits = self.model.head(tokens[:, 0])
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)
        mean = self.model.head(tokens[:, 1:].mean(1))
        total = loss + self.recipe.auxiliary * F.cross_entropy(mean, labels, label_smoothing=self.recipe.smoothing)
        if self.teacher is not None:
            total = total + self._teacher_loss(self.teacher, video, tokens, (logits, mean))
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        keep = min(self.recipe.average, number / (number + 10))
        for name, value in self.model.state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)
        return loss.item()

    def _teacher_loss(
        self, teacher: VideoMamba, video: Tensor, tokens: Tensor, logits: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the loss on the teacher's predictions and features.

        Args:
            teacher: The teacher.
            video: The batch.
            tokens: The student's tokens after its last block.
            logits: The student's logits from the class token, and from the mean of the patch tokens.
        """
        recipe = self.recipe
        with torch.no_grad():
            teacher_tokens = teacher.forward_tokens(video)
            expected = teacher.head(teacher_tokens[:, 0])
        by_class, by_mean = (predictions_loss(student, expected, recipe.temperature) for student in logits)
        loss = recipe.teacher_weight * (by_class + recipe.auxiliary * by_mean)
        return loss + recipe.feature_weight * features_loss(self.adapter(tokens), teacher_tokens)

    def averaged_model(self) -> VideoMamba:
        """Return the model with the averaged weights, which are the result of a run."""
        model = VideoMamba(self.model.options).eval()
        model.load_state_dict(self.averaged)
        return model

    def _save(self) -> None:
        content = {
            "recipe": dataclasses.asdict(self.recipe),
            "model": self.model.state_dict(),
            "averaged": self.averaged,
            "adapter": self.adapter.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        save(content, self.checkpoint)

    def _resume(self) -> None:
        content = torch.load(self.checkpoint, weights_only=True)
        if content["recipe"] != dataclasses.asdict(self.recipe):
            raise UsageError(f"{self.checkpoint} belongs to a run with other settings: choose another --output")
        self.model.load_state_dict(content["model"])
        self.averaged = content["averaged"]
        self.adapter.load_state_dict(content["adapter"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.history = content["history"]


def load_teacher(path: Path, student: VideoMamba) -> VideoMamba:
    """Load a trained model to learn from; it may be larger or smaller than the student.

    Args:
        path: The teacher's checkpoint.
        student: The model to train.

    Raises:
        UsageError: The teacher's clips, tokens or number of classes differ from the student's.
        CheckpointError: The checkpoint cannot be loaded.
    """
    teacher = load_checkpoint(path).eval().requires_grad_(False)
    for name in ("num_frames", "image_size", "tubelet_size", "patch_size", "num_classes"):
        needed, value = (getattr(model.options, name) for model in (student, teacher))
        if value != needed:
            raise UsageError(f"{path} cannot teach this model: its {name} is {value}, not {needed}")
    return teacher


def schedule(progress: float) -> float:
    """Return the learning rate as a share of the highest: a short warm-up, constant for a quarter, half a cosine to 0.

    Args:
        progress: Share of the run that is done, 0 to 1.
    """
    return min(1.0, progress / 0.02) * 0.5 * (1 + math.cos(math.pi * max(0.0, progress - 0.25) / 0.75))


def parameter_groups(model: VideoMamba, weight_decay: float) -> list[dict[str, Any]]:
    """Group the parameters for the optimiser: with decay, without decay, and the slowly learning patch filters.

    Returns:
        Groups with ``params``, ``weight_decay`` and ``rate``, a factor for the learning rate.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {"matrices": [], "others": [], "patches": []}
    for name, parameter in model.named_parameters():
        if name == "patch_embed.proj.weight":
            groups["patches"].append(parameter)
        elif parameter.ndim > 1 and not name.endswith(("embed", "embedding", "token", "A_log", "A_b_log")):
            groups["matrices"].append(parameter)
        else:
            groups["others"].append(parameter)
    return [
        {"params": groups["matrices"], "weight_decay": weight_decay, "rate": 1.0},
        {"params": groups["others"], "weight_decay": 0.0, "rate": 1.0},
        {"params": groups["patches"], "weight_decay": 0.0, "rate": PATCH_RATE},
    ]


def save(content: Any, path: Path) -> None:
    """Save with PyTorch; the file replaces an old one only when it is complete."""
    with whole(path) as place:
        torch.save(content, place)
