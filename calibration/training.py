"""Training a model of the family, whatever the clips are: the loop, its schedule, and a checkpoint to go on from."""

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
from vmp_edge.models import VideoMamba

# Filters over hundreds of correlated pixels take much smaller steps than matrices over a hundred channels.
_PATCH_RATE = 0.02


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
        seed: of order, augmentation and initial weights.
    """

    epochs: int = 12
    batch: int = 25
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    auxiliary: float = 0.5
    average: float = 0.998
    seed: int = 0


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

    Raises:
        UsageError: the checkpoint is of a run with another recipe.
    """

    def __init__(self, recipe: Recipe, model: VideoMamba, task: Task, checkpoint: Path) -> None:
        self.recipe, self.task, self.checkpoint = recipe, task, checkpoint
        self.model = model.train()
        self.averaged = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, recipe.weight_decay), betas=(0.9, 0.98))
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
        loss = F.cross_entropy(self.model.head(tokens[:, 0]), labels, label_smoothing=self.recipe.smoothing)
        mean = self.model.head(tokens[:, 1:].mean(1))
        total = loss + self.recipe.auxiliary * F.cross_entropy(mean, labels, label_smoothing=self.recipe.smoothing)
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        keep = min(self.recipe.average, number / (number + 10))
        for name, value in self.model.state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)
        return loss.item()

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
        self.optimiser.load_state_dict(content["optimiser"])
        self.history = content["history"]


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
        {"params": groups["patches"], "weight_decay": 0.0, "rate": _PATCH_RATE},
    ]


def save(content: Any, path: Path) -> None:
    """Write beside the place, then move: a file of this name is always whole."""
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)
