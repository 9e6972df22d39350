"""All settings of a training, and the options of a command line for them."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from vmp_edge.errors import UsageError
from vmp_edge.models import PRESETS


@dataclass(frozen=True)
class TrainingRecipe:
    """All settings that decide how a model is trained, apart from the clips and the machine.

    Attributes:
        epochs: Passes over the clips.
        batch: Clips in a step of the optimiser.
        learning_rate: Highest learning rate.
        weight_decay: Applies to matrices, not to biases, norms, embeddings and decay rates.
        smoothing: Label smoothing.
        auxiliary: Weight of the loss on the mean of the patch tokens, which trains these without going through the
            class token.
        average: Share of the averaged weights that a step keeps.
        embed_dim: Channels of the model's tokens.
        depth: Number of the model's blocks.
        teacher: Path of a trained model to learn from besides the labels; empty for none.
        teacher_weight: Weight of the loss on the teacher's predictions; the loss on the labels has weight 1.
        temperature: Divides both models' logits in the loss on predictions.
        feature_weight: Weight of the loss on the teacher's final features of all tokens.
        layer_decay: Factor of the learning rate from a layer to the one below it; 1 teaches all layers equally fast.
        drop_path: Share of clips that skip the last block in a step, see `DropPath`.
        patience: Epochs without a higher top-1 on held-out clips after which the training stops; 0 never stops early.
        mixed: Compute in 16 bits where that is accurate enough, on a GPU; a CPU always computes in single precision.
        seed: Decides order, augmentation and initial weights.

    Raises:
        UsageError: A value is out of range.
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
    layer_decay: float = 1.0
    drop_path: float = 0.0
    patience: int = 0
    mixed: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("teacher_weight", "feature_weight", "patience", "seed"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for name in ("epochs", "batch"):
            if not getattr(self, name) >= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("temperature", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay is {self.layer_decay}; it must be above 0 and at most 1")
        if not 0 <= self.drop_path < 1:
            raise UsageError(f"drop_path is {self.drop_path}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class ClipsRecipe(TrainingRecipe):
    """All settings that decide how a model is trained on clips in files.

    Attributes:
        augmentation: Strength of augmentation from 0 to 1, see `augment`.
        mirror: Whether half of the clips are mirrored. Clips of a class whose name tells a side become clips of the
            class for the other side, or stay as they are if there is none, see `mirrored`.
        mixup: Parameter of the Beta distribution of the shares in which two clips are averaged; 0 averages none.
        cutmix: That of the shares of the picture that two clips exchange; 0 exchanges nothing.

    Raises:
        UsageError: A value is out of range.
    """

    epochs: int = 60
    batch: int = 8
    learning_rate: float = 1e-3
    smoothing: float = 0.1
    average: float = 0.99
    augmentation: float = 0.5
    mirror: bool = True
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.augmentation <= 1:
            raise UsageError(f"augmentation is {self.augmentation}; it must be from 0 to 1")
        for name in ("mixup", "cutmix"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if (self.mixup or self.cutmix) and self.batch % 2:
            raise UsageError(f"batch is {self.batch}; it must be even, because clips are mixed in pairs")


_DEEP = 12  # blocks from which a trained model is fine-tuned layer by layer, as the published ones are


def recipe_for(clips_per_class: float, depth: int = ClipsRecipe.depth, is_trained: bool = True) -> ClipsRecipe:
    """Return the settings to start with for 5 to 50 clips a class. Fewer clips are seen more often.

    VideoMamba's training scripts (OpenGVLab/VideoMamba, video_sm/exp) fine-tune deep models after masked pre-training
    with a layer decay of 0.8, and give its tiny model a drop path of 0.1 and a weight decay of 0.1, for 30 to 70
    epochs. A deep model that is trained already gets these values here. Their learning rates are for batches of several
    hundred clips; for a batch of 8 it was chosen anew. A model of few blocks is small enough to learn all over.

    Args:
        clips_per_class: Mean number of clips of a class.
        depth: Blocks of the model.
        is_trained: Whether the model has weights that are worth keeping, or random ones.
    """
    seen = 600 if is_trained else 900  # times that the clips of a class are seen
    if is_trained and depth >= _DEEP:
        epochs = _between(20, 0.5 * seen / clips_per_class, 50)
        return ClipsRecipe(
            epochs=epochs,
            patience=max(10, epochs // 3),
            learning_rate=2e-4,
            weight_decay=0.1,
            layer_decay=0.8,
            drop_path=0.1,
        )
    epochs = _between(30, seen / clips_per_class, 120)
    return ClipsRecipe(epochs=epochs, patience=max(15, epochs // 3))


def _between(least: int, value: float, most: int) -> int:
    return max(least, min(most, round(value)))


def recipe_options(
    parser: argparse.ArgumentParser, recipe: type[TrainingRecipe], arguments: list[str] | None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Read a training's command line, with an option for each of the recipe's fields and one for PyTorch's threads.

    Args:
        parser: Has the training's own options; the others are added to it.
        recipe: The recipe's class.
        arguments: The command line; None reads that of the process.

    Returns:
        All options, and the values of the recipe's fields that are on the command line.
    """
    fields = dataclasses.fields(recipe)
    for field in fields:
        kind: Any = type(field.default)
        how = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        parser.add_argument(f"--{field.name.replace('_', '-')}", help=f"default: {field.default}", **how)
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: PyTorch's own choice)")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    return options, {field.name: value for field in fields if (value := getattr(options, field.name)) is not None}
