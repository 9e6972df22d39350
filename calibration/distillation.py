"""Losses by which a student model learns from a teacher: from its predictions, and from its features."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def predictions_loss(logits: Tensor, teacher: Tensor, temperature: float, shares: Tensor | None = None) -> Tensor:
    """Compare softened predictions of student and teacher (Hinton et al., arXiv 1503.02531).

    Args:
        logits: The student's logits, (B, classes).
        teacher: The teacher's logits, (B, classes).
        temperature: Divides both; the higher it is, the more the unlikely classes matter.
        shares: How much each clip counts, (B,); None counts all as 1.

    Returns:
        Kullback-Leibler divergence, mean over the batch, times the squared temperature, which keeps the size of the
        gradients.
    """
    student_log, teacher_log = ((x / temperature).log_softmax(1) for x in (logits, teacher))
    if shares is None:
        return F.kl_div(student_log, teacher_log, log_target=True, reduction="batchmean") * temperature**2
    each = F.kl_div(student_log, teacher_log, log_target=True, reduction="none").sum(1)
    return (each * shares).mean() * temperature**2


def features_loss(features: Tensor, teacher: Tensor) -> Tensor:
    """Compare final features of student and teacher by the L2 loss of VideoMamba's self-distillation.

    VideoMamba (arXiv 2403.06977, self-distillation) aligns the final feature maps of a large student with those of a
    small, well-trained teacher. Here the mean squared difference is divided by the teacher's mean square, so that one
    weight suits all models.

    Args:
        features: The student's features, (..., C), with the teacher's number of channels.
        teacher: The teacher's features, (..., C).
    """
    return F.mse_loss(features, teacher) / teacher.square().mean()


def adapter(student: int, teacher: int) -> nn.Module:
    """Make the layer that maps a student's features to its teacher's channels; it is not part of the trained model.

    Args:
        student: Number of the student's channels.
        teacher: Number of the teacher's channels.
    """
    return nn.Identity() if student == teacher else nn.Linear(student, teacher)
