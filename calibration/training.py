"""Training a model of the family, whatever the clips are: the loop, its schedule, and a checkpoint to go on from."""

from __future__ import annotations

import argparse
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
from vmp_edge.models import PRESETS, VideoMamba, load_checkpoint

from .distillation import adapter, features_loss, predictions_loss

# Filters over hundreds of correlated pixels take much smaller steps than matrices over a hundred channels.
PATCH_RATE = 0.02


@dataclass(frozen=True)
class Recipe:
    """What decides how a model is trained, but the clips and the machine.

    Attributes:
        epochs: passes over the clips.
        batch: clips in a step.
        learning_rate: at its highest.
        weight_decay: of matrices; not of biases, norms, embeddings and decay rates.
        smoothing: of the labels.
        auxiliary: weight of the loss on the mean of the patch tokens, which teaches them without going through the
            class token.
        average: how much of the averaged weights a step keeps.
        embed_dim: channels of the model's tokens.
        depth: the model's blocks.
        teacher: where a trained model is that this one learns from, besides the labels; empty for none.
        teacher_weight: of the loss on the teacher's predictions, the labels' being 1.
        temperature: by which both models' logits are divided there.
        feature_weight: of the loss on the teacher's final features, of all tokens.
        seed: of order, augmentation and initial weights.
    """

    epochs: int = 12
    batch: int = 25
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    auxiliary: float = 0.5
    average: float = 0.998
    embed_dim: int = PRESETS["egomotion-nano"].embed_dim
    depth: int = PRESETS["egomotion-nano"].depth
    teacher: str = ""
    teacher_weight: float = 1.0
    temperature: float = 2.0
    feature_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("teacher_weight", "feature_weight"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not self.temperature > 0:
            raise UsageError(f"temperature is {self.temperature}; it must be above 0")


@dataclass(frozen=True)
class Task:
    """What a model is trained on.

    Attributes:
        name: for the progress bar.
        batches: one epoch's batches, float32 (B, 3, T, S, S) and int64 (B,), all randomness from the generator.
        steps: batches in an epoch.
        validate: what is measured after every epoch, by name.
    """

    name: str
    batches: Callable[[np.random.Generator], Iterable[tuple[Tensor, Tensor]]]
    steps: int
    validate: Callable[[VideoMamba], dict[str, float]] = lambda model: {}


class Trainer:
    """A run: model, averaged model, optimiser, and what has been measured so far.

    Args:
        recipe: see `Recipe`.
        model: with its initial weights.
        task: see `Task`.
        checkpoint: where the run is kept after every epoch; one of the same recipe is taken up.
        teacher: see `load_teacher`; None where the labels alone teach.

    Raises:
        UsageError: the checkpoint is of a run with another recipe.
    """

    def __init__(
        self, recipe: Recipe, model: VideoMamba, task: Task, checkpoint: Path, teacher: VideoMamba | None = None
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
            progress: makes the run's progress bar, as `tqdm.tqdm` does.
        """
        steps, epochs = self.task.steps, self.recipe.epochs
        done = len(self.history)
        bar = progress(total=epochs * steps, initial=done * steps, desc=self.task.name, unit="step")
        measured: dict[str, float] = {}
        for epoch in range(done, epochs):
            start, losses = time.monotonic(), []
            rng = np.random.default_rng([self.recipe.seed, epoch])
            for i, (video, labels) in enumerate(self.task.batches(rng)):
                losses.append(self.step(epoch * steps + i, video, labels))
                shown = {"loss": float(np.mean(losses[-50:])), **measured}
                bar.set_postfix(epoch=epoch + 1, **{k: f"{v:.3f}" for k, v in shown.items()}, refresh=False)
                bar.update()
            seconds = time.monotonic() - start
            measured = self.task.validate(self.averaged_model())
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "loss": float(np.mean(losses)),
                    **measured,
                    "seconds": seconds,
                    "clips_per_second": len(losses) * self.recipe.batch / seconds,
                }
            )
            self._save()
        bar.close()

    def step(self, number: int, video: Tensor, labels: Tensor) -> float:
        """One step of the optimiser; returns the class token's loss."""
        rate = self.recipe.learning_rate * schedule(number / (self.recipe.epochs * self.task.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        tokens = self.model.forward_tokens(video)
        logits = self.model.head(tokens[:, 0])
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.smoothing)
        mean = self.model.head(tokens[:, 1:].mean(1))
        total = loss + self.recipe.auxiliary * F.cross_entropy(mean, labels, label_smoothing=self.recipe.smoothing)
        if self.teacher is not None:
            total = total + self._taught(self.teacher, video, tokens, (logits, mean))
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        keep = min(self.recipe.average, number / (number + 10))
        for name, value in self.model.state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)
        return loss.item()

    def _taught(self, teacher: VideoMamba, video: Tensor, tokens: Tensor, logits: tuple[Tensor, Tensor]) -> Tensor:
        """The loss on what the teacher says of a batch, by the class token and, as for labels, by the patches' mean."""
        recipe = self.recipe
        with torch.no_grad():
            theirs = teacher.forward_tokens(video)
            expected = teacher.head(theirs[:, 0])
        by_class, by_mean = (predictions_loss(ours, expected, recipe.temperature) for ours in logits)
        loss = recipe.teacher_weight * (by_class + recipe.auxiliary * by_mean)
        return loss + recipe.feature_weight * features_loss(self.adapter(tokens), theirs)

    def averaged_model(self) -> VideoMamba:
        """The model with the averaged weights, which is what a run is for."""
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
            raise UsageError(f"{self.checkpoint} is of a run with other settings: choose another --output")
        self.model.load_state_dict(content["model"])
        self.averaged = content["averaged"]
        self.adapter.load_state_dict(content["adapter"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.history = content["history"]


def load_teacher(path: Path, student: VideoMamba) -> VideoMamba:
    """A trained model to learn from, larger or smaller.

    Args:
        path: a checkpoint.
        student: the model that will be trained.

    Raises:
        UsageError: it takes other clips, makes other tokens of them, or tells other classes.
        CheckpointError: it cannot be loaded.
    """
    teacher = load_checkpoint(path).eval().requires_grad_(False)
    for name in ("num_frames", "image_size", "tubelet_size", "patch_size", "num_classes"):
        ours, theirs = (getattr(model.options, name) for model in (student, teacher))
        if ours != theirs:
            raise UsageError(f"{path} cannot teach this model: its {name} is {theirs}, not {ours}")
    return teacher


def schedule(progress: float) -> float:
    """Learning rate over the run (0 .. 1): a short warm-up, a quarter held, then half a cosine to nothing."""
    return min(1.0, progress / 0.02) * 0.5 * (1 + math.cos(math.pi * max(0.0, progress - 0.25) / 0.75))


def parameter_groups(model: VideoMamba, weight_decay: float) -> list[dict[str, Any]]:
    """What decays, what doesn't, and the patch filters, which learn more slowly."""
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
    """Write beside the place, then move: a file of this name is always whole."""
    with whole(path) as place:
        torch.save(content, place)


def recipe_options(
    parser: argparse.ArgumentParser, recipe: type[Recipe], arguments: list[str] | None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Read a training's command line, with an option for each of the recipe's fields and one for PyTorch's threads.

    Args:
        parser: with the training's own options.
        recipe: the fields' class.
        arguments: of the command line.

    Returns:
        All options, and those of the recipe that were given.
    """
    fields = dataclasses.fields(recipe)
    for field in fields:
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help=f"default: {field.default}")
    parser.add_argument("--threads", type=int, help="for training; PyTorch's own choice by default")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options, {one.name: value for one in fields if (value := getattr(options, one.name)) is not None}
