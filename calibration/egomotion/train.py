"""Train egomotion-nano: ``python -m vmp_edge.calibration.egomotion.train --output DIR``.

Draws the clips (kept in the output folder), trains, and writes ``egomotion-nano.pth`` and ``history.json`` there.
A stopped run goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vmp_edge.calibration.egomotion import dataset
from vmp_edge.calibration.egomotion.camera import FPS, LABELS
from vmp_edge.calibration.egomotion.dataset import PREPROCESSING, Pool
from vmp_edge.calibration.egomotion.initialise import initialise
from vmp_edge.errors import UsageError, VmpError
from vmp_edge.models import VideoMamba, create

NAME = "egomotion-nano"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, but the machine.

    Attributes:
        clips: drawn clips of the training pool.
        validation: drawn clips that are looked at after every epoch.
        epochs: passes over the pool.
        batch: clips in a step.
        learning_rate: at its highest.
        weight_decay: of matrices; not of biases, norms, embeddings and decay rates.
        smoothing: of the labels.
        auxiliary: weight of the loss on the mean of the patch tokens, which teaches them without going through the
            class token.
        average: how much of the averaged weights a step keeps.
        seed: of order, augmentation and initial weights; the pools have seeds of their own.
    """

    clips: int = 10000
    validation: int = 1000
    epochs: int = 12
    batch: int = 25
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.05
    smoothing: float = 0.05
    auxiliary: float = 0.5
    average: float = 0.998
    seed: int = 0


QUICK = Recipe(clips=160, validation=40, epochs=2, batch=16, learning_rate=1e-3)
# Filters over hundreds of correlated pixels take much smaller steps than matrices over a hundred channels.
_PATCH_RATE = 0.02


class Trainer:
    """A run: model, averaged model, optimiser, and what has been measured so far.

    Args:
        recipe: see `Recipe`.
        train: the pool to learn from.
        validation: the pool to look at after every epoch.
        folder: where the checkpoint is kept; one of the same recipe is taken up.

    Raises:
        UsageError: the folder holds a run with another recipe.
    """

    def __init__(self, recipe: Recipe, train: Pool, validation: Pool, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.train, self.validation = recipe, train, validation
        self.checkpoint = folder / "checkpoint.pt"
        self.model: VideoMamba = create(NAME, num_classes=len(LABELS)).train()
        first, _ = next(dataset.evaluation_batches(train))
        initialise(self.model, first, np.random.default_rng(recipe.seed))
        self.averaged = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(parameter_groups(self.model, recipe.weight_decay), betas=(0.9, 0.98))
        self.steps_per_epoch = len(train) // recipe.batch
        self.history: list[dict[str, float]] = []
        if self.checkpoint.exists():
            self._resume()

    def run(self, progress: Callable[..., Any]) -> None:
        """Train to the end.

        Args:
            progress: makes an epoch's progress bar, as `tqdm.tqdm` does.
        """
        while (epoch := len(self.history)) < self.recipe.epochs:
            start, losses = time.monotonic(), []
            bar = progress(total=self.steps_per_epoch, desc=f"epoch {epoch + 1}/{self.recipe.epochs}", unit="step")
            rng = np.random.default_rng([self.recipe.seed, epoch])
            for i, (video, labels) in enumerate(dataset.training_batches(self.train, self.recipe.batch, rng)):
                losses.append(self.step(epoch * self.steps_per_epoch + i, video, labels))
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
                bar.update()
            bar.close()
            seconds = time.monotonic() - start
            self.history.append(
                {
                    "epoch": epoch + 1,
                    "loss": float(np.mean(losses)),
                    "validation_loss": (measured := measure(self.averaged_model(), self.validation))[0],
                    "validation_accuracy": measured[1],
                    "seconds": seconds,
                    "clips_per_second": len(losses) * self.recipe.batch / seconds,
                }
            )
            self._save()
            print(json.dumps(self.history[-1]), flush=True)

    def step(self, number: int, video: Tensor, labels: Tensor) -> float:
        """One step of the optimiser; returns the class token's loss."""
        rate = self.recipe.learning_rate * schedule(number / (self.recipe.epochs * self.steps_per_epoch))
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


def measure(model: VideoMamba, pool: Pool) -> tuple[float, float]:
    """Mean loss and top-1 accuracy."""
    logits, labels = predict(model, pool)
    return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def predict(model: VideoMamba, pool: Pool) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of a pool."""
    with torch.inference_mode():
        results = [(model(video), labels) for video, labels in dataset.evaluation_batches(pool)]
    return torch.cat([logits for logits, _ in results]), torch.cat([labels for _, labels in results])


def save(content: Any, path: Path) -> None:
    """Write beside the place, then move: a file of this name is always whole."""
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)


def save_weights(trainer: Trainer, path: Path) -> None:
    """The file that `vmp_edge.models.zoo` loads; what the model reaches is filled in by ``evaluate``."""
    content = {
        "model": {name: value.half() for name, value in trainer.averaged.items()},
        "options": dataclasses.asdict(trainer.model.options),
        "labels": list(LABELS),
        "preprocessing": PREPROCESSING.to_manifest(),
        "frame_rate": FPS,
        "accuracy": {},
        "recipe": dataclasses.asdict(trainer.recipe),
    }
    save(content, path)


def train(recipe: Recipe, folder: Path, workers: int | None = None) -> Trainer:
    """Draw the pools, train, and write weights and history into ``folder``.

    Raises:
        UsageError: the folder holds a run with another recipe.
    """
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    pool = dataset.make_pool("train", recipe.clips, folder / "train.npy", workers)
    validation = dataset.make_pool("validation", recipe.validation, folder / "validation.npy", workers)
    trainer = Trainer(recipe, pool, validation, folder)
    trainer.run(tqdm)
    save_weights(trainer, folder / f"{NAME}.pth")
    partial = folder / "history.json.partial"
    partial.write_text(json.dumps({"recipe": dataclasses.asdict(recipe), "epochs": trainer.history}, indent=1) + "\n")
    partial.replace(folder / "history.json")
    return trainer


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vmp_edge.calibration.egomotion.train", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for clips, checkpoint, weights and history")
    parser.add_argument("--quick", action="store_true", help="a smoke test of seconds; the weights are worth nothing")
    for field in dataclasses.fields(Recipe):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help=f"default {field.default}")
    parser.add_argument("--threads", type=int, help="for training; PyTorch's own choice by default")
    parser.add_argument("--workers", type=int, help="processes that draw clips; all cores by default")
    options = parser.parse_args(arguments)
    names = [field.name for field in dataclasses.fields(Recipe)]
    chosen = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        train(dataclasses.replace(QUICK if options.quick else Recipe(), **chosen), options.output, options.workers)
    except VmpError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last whole epoch", file=sys.stderr)
        return 130
    print(f"wrote {options.output / NAME}.pth; now: python -m vmp_edge.calibration.egomotion.evaluate {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
