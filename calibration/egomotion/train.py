"""Train egomotion-nano: ``python -m vmp_edge.calibration.egomotion.train --output DIR``.

Draws the clips, trains, and writes clips, ``egomotion-nano.pth`` and ``history.json`` into the output folder. A run
that was stopped resumes when the same command is given again. With ``--teacher FILE`` the model also learns from
another model, which may be larger or smaller than ``--embed-dim`` and ``--depth`` make this one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vmp_edge.cli.output import remark, say
from vmp_edge.cli.stopping import exit_code, stoppable
from vmp_edge.cli.streams import safe_streams
from vmp_edge.errors import UsageError, VmpError
from vmp_edge.files import make_output_folder, whole
from vmp_edge.models import VideoMamba, create
from vmp_edge.progress import Bar

from ..train.loop import Task, Trainer, divided, save
from ..train.recipe import TrainingRecipe, recipe_options
from ..train.teacher import TrainedTeacher, load_teacher
from . import dataset
from .camera import FPS, LABELS
from .dataset import PREPROCESSING, Pool
from .initialise import initialise

NAME = "egomotion-nano"


@dataclass(frozen=True)
class EgomotionTraining(TrainingRecipe):
    """All settings that decide the result, apart from the machine. The pools have seeds of their own.

    Attributes:
        clips: Number of clips to train on.
        validation: Number of clips to measure on after every epoch.
    """

    clips: int = 10000
    validation: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % 4:  # see `initialise`
            raise UsageError(f"embed_dim is {self.embed_dim}; it must be a multiple of 4")


QUICK = EgomotionTraining(clips=160, validation=40, epochs=2, batch=16, learning_rate=1e-3)


def make_trainer(recipe: EgomotionTraining, train: Pool, validation: Pool, folder: Path) -> Trainer:
    """Make a training run whose model is initialised as a motion detector.

    Args:
        recipe: See `EgomotionTraining`.
        train: The pool to train on.
        validation: The pool to measure on after every epoch.
        folder: Keeps the checkpoint; a run with the same recipe resumes.

    Raises:
        UsageError: The folder holds a run with another recipe, or the recipe's teacher is for other clips or labels.
        CheckpointError: The recipe's teacher cannot be loaded.
    """
    torch.manual_seed(recipe.seed)
    sizes = {"embed_dim": recipe.embed_dim, "depth": recipe.depth}
    model = create(NAME, num_classes=len(LABELS), **sizes).train()
    teacher = _teacher(recipe, model) if recipe.teacher else None
    first, _ = next(dataset.evaluation_batches(train))
    initialise(model, first, np.random.default_rng(recipe.seed))
    task = Task(
        name="training",
        batches=lambda rng, part: divided(dataset.training_batches(train, recipe.batch, rng), part),
        steps=len(train) // recipe.batch,
        validate=lambda model: measure(model, validation),
    )
    return Trainer(recipe, model, task, folder / "checkpoint.pt", teacher)


def _teacher(recipe: EgomotionTraining, model: VideoMamba) -> TrainedTeacher:
    return load_teacher(Path(recipe.teacher), model, LABELS, PREPROCESSING, recipe.feature_weight > 0)


def measure(model: VideoMamba, pool: Pool) -> dict[str, float]:
    """Return mean loss and top-1 accuracy on a pool."""
    logits, labels = predict(model, pool)
    return {
        "validation_loss": F.cross_entropy(logits, labels).item(),
        "validation_accuracy": (logits.argmax(1) == labels).float().mean().item(),
    }


def predict(model: VideoMamba, pool: Pool) -> tuple[Tensor, Tensor]:
    """Return a pool's logits (N, classes) and labels (N,)."""
    with torch.inference_mode():
        device = next(model.parameters()).device
        results = [(model(video.to(device)).cpu(), labels) for video, labels in dataset.evaluation_batches(pool)]
    return torch.cat([logits for logits, _ in results]), torch.cat([labels for _, labels in results])


def save_weights(trainer: Trainer, path: Path) -> None:
    """Write the file that `vmp_edge.models.zoo` loads. The module ``evaluate`` adds the accuracy later."""
    content = {
        "model": {name: value.half().cpu() for name, value in trainer.averaged.items()},
        "options": dataclasses.asdict(trainer.model.options),
        "labels": list(LABELS),
        "preprocessing": PREPROCESSING.to_manifest(),
        "frame_rate": FPS,
        "accuracy": {},
        "recipe": dataclasses.asdict(trainer.recipe),
    }
    save(content, path)


def train(recipe: EgomotionTraining, folder: Path, workers: int | None = None) -> Trainer:
    """Draw the pools, train, and write weights and history into ``folder``.

    Raises:
        UsageError: The folder holds a run with another recipe, or the recipe's teacher is for other clips or labels.
        CheckpointError: The recipe's teacher cannot be loaded.
    """
    make_output_folder(folder)
    if recipe.teacher:  # before the clips are drawn, which takes long
        _teacher(recipe, create(NAME, num_classes=len(LABELS)))
    pool = dataset.make_pool("train", recipe.clips, folder / "train.npy", workers)
    validation = dataset.make_pool("validation", recipe.validation, folder / "validation.npy", workers)
    trainer = make_trainer(recipe, pool, validation, folder)
    trainer.run(Bar)
    save_weights(trainer, folder / f"{NAME}.pth")
    with whole(folder / "history.json") as place:
        place.write_text(json.dumps({"recipe": dataclasses.asdict(recipe), "epochs": trainer.history}, indent=1) + "\n")
    return trainer


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vmp_edge.calibration.egomotion.train", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for clips, checkpoint, weights and history")
    parser.add_argument("--quick", action="store_true", help="a quick test of some seconds, whose weights are useless")
    parser.add_argument("--workers", type=int, help="processes that draw clips (default: all cores)")
    options, fields = recipe_options(parser, EgomotionTraining, arguments)
    try:
        train(
            dataclasses.replace(QUICK if options.quick else EgomotionTraining(), **fields),
            options.output,
            options.workers,
        )
    except VmpError as error:
        remark(str(error))
        return 1
    except KeyboardInterrupt as stop:
        remark("stopped; the same command resumes after the last complete epoch")
        return exit_code(stop)
    say(f"wrote {options.output / NAME}.pth; now: python -m vmp_edge.calibration.egomotion.evaluate {options.output}")
    return 0


if __name__ == "__main__":
    with safe_streams(), stoppable():
        raise SystemExit(main())
