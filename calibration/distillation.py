"""What a student model is taught by a teacher: its predictions, and its features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def predictions_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far a student's predictions are from its teacher's, both softened (Hinton et al., arXiv 1503.02531).

    Args:
        logits: (B, classes), the student's.
        teacher: (B, classes), the teacher's.
        temperature: by which both are divided; the higher, the more the unlikely classes matter.

    Returns:
        Kullback-Leibler divergence, mean over the batch, times the squared temperature, which keeps the gradients'
        size.
    """
    ours, theirs = ((x / temperature).log_softmax(1) for x in (logits, teacher))
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean") * temperature**2


def features_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """How far a student's final features are from its teacher's: the L2 loss of VideoMamba's self-distillation.

    VideoMamba (arXiv 2403.06977, self-distillation) aligns the final feature maps of a large student with a small, well
    trained teacher's. Here the mean squared difference is taken relative to the teacher's mean square, so that one
    weight serves all models.

    Args:
        features: (..., C), the student's, with the teacher's number of channels.
        teacher: (..., C), the teacher's.
    """
    return F.mse_loss(features, teacher) / teacher.square().mean()


def adapter(student: int, teacher: int) -> nn.Module:
    """What brings a student's features to its teacher's number of channels: a linear layer, thrown away in the end."""
    return nn.Identity() if student == teacher else nn.Linear(student, teacher)
