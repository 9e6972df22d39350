"""What a training minimises: the loss on the labels, and on what a teacher says."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vmp_edge.models import VideoMamba

from ..distillation import adapter, features_loss, predictions_loss
from .recipe import TrainingRecipe
from .teacher import TrainedTeacher


class AnyObjective(nn.Module):
    """What a training minimises: called with a batch, it returns the loss, and the part of it that is shown.

    Attributes:
        adapter: Layers that are trained with the model and are no part of it.
    """

    adapter: nn.Module


class Objective(AnyObjective):
    """The loss of a model on a batch.

    Attributes:
        adapter: Maps the student's features to the teacher's channels; it is not part of the trained model.

    Args:
        recipe: See `TrainingRecipe`.
        model: The model to train.
        teacher: A trained model to learn from besides the labels, or None.
    """

    def __init__(self, recipe: TrainingRecipe, model: VideoMamba, teacher: TrainedTeacher | None = None) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model
        self._teacher = (teacher,)  # in a tuple it is no part of this module: it has no gradients to share
        width = model.options.embed_dim
        self.adapter = adapter(width, width if teacher is None else teacher.width)
        self.adapter.to(next(model.parameters()).device)

    def forward(self, video: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the losses.

        Args:
            video: float32 (B, 3, T, S, S).
            labels: int64 (B,), or the share of each class, float32 (B, classes).

        Returns:
            The loss to minimise, and the part of it that is due to the model's readout and the labels.
        """
        recipe = self.recipe
        tokens = self.model.forward_tokens(video)
        logits = _logits(self.model, tokens)
        losses = [F.cross_entropy(values, labels, label_smoothing=recipe.smoothing) for values in logits]
        total = losses[0] + recipe.auxiliary * sum(losses[1:])
        if self._teacher[0] is not None:
            total = total + self._teacher_loss(self._teacher[0], video, labels, tokens, logits)
        return total, losses[0]

    def _teacher_loss(
        self, teacher: TrainedTeacher, video: Tensor, labels: Tensor, tokens: Tensor, logits: list[Tensor]
    ) -> Tensor:
        """Return the loss on the teacher's predictions and features.

        Args:
            teacher: The teacher.
            video: The batch.
            labels: Its labels. What a teacher thinks of clips of classes that it does not know does not count.
            tokens: The student's tokens after its last block.
            logits: The student's logits, see `_logits`.
        """
        recipe = self.recipe
        expected, teacher_tokens = teacher.answer(video)
        loss = recipe.feature_weight * features_loss(self.adapter(tokens), teacher_tokens)
        if teacher.classes:
            own = [teacher.of_student(values) for values in logits]
            shares = teacher.shares(labels)
            losses = [predictions_loss(values, expected, recipe.temperature, shares) for values in own]
            loss = loss + recipe.teacher_weight * (losses[0] + recipe.auxiliary * sum(losses[1:]))
        return loss


def _logits(model: VideoMamba, tokens: Tensor) -> list[Tensor]:
    """Return the logits (B, classes) of a model's readout, and of the patch tokens' mean where that is not the readout.

    The latter trains the patch tokens without going through the class token.
    """
    mean = model.head(tokens[:, 1:].mean(1))
    return [mean] if model.options.readout == "mean" else [model.head(tokens[:, 0]), mean]
