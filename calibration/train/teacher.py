"""A trained model that a student learns from besides the labels, whatever its size, its clips and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vmp_edge import zoo
from vmp_edge.errors import UsageError
from vmp_edge.models import VideoMamba, load_checkpoint
from vmp_edge.models.training_facts import TrainingFacts
from vmp_edge.preprocessing import Preprocessing

from .grid import on_grid, patch_maps, scaled


@dataclass
class TrainedTeacher:
    """A trained model that sees a student's clips as it is used to, and answers in the student's terms.

    Attributes:
        model: In evaluation mode, without gradients.
        student: Options of the student.
        classes: For each class that both have, its index in the student's and in the teacher's head.
        rescale: What is multiplied and added, by channel, so that the student's frames are normalised as the teacher's;
            None if they are already.
    """

    model: VideoMamba
    student: VideoMamba
    classes: tuple[tuple[int, int], ...]
    rescale: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def to(self, device: torch.device) -> TrainedTeacher:
        """Move the model to a device, and return self."""
        self.model.to(device)
        return self

    @property
    def width(self) -> int:
        """Channels of the teacher's tokens."""
        return self.model.options.embed_dim

    @torch.no_grad()
    def answer(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Recognise a student's clips.

        Args:
            video: The student's clips, float32 (B, 3, T, S, S).

        Returns:
            The logits of the classes that both have, (B, common), and tokens on the student's grid, (B, L, C).
        """
        tokens = self.model.forward_tokens(self._as_used_to(video))
        logits = _readout(self.model, tokens)[:, [theirs for _, theirs in self.classes]]
        if self.model.options.grid != self.student.options.grid:
            maps = on_grid(patch_maps(self.model, tokens), *self.student.options.grid)
            tokens = torch.cat([tokens[:, :1], maps.flatten(1, 3)], dim=1)
        return logits, tokens

    def shares(self, labels: Tensor) -> Tensor:
        """Return how much of each clip is of classes that both have, (B,), for labels (B,) or shares (B, classes)."""
        own = torch.tensor([ours for ours, _ in self.classes], device=labels.device, dtype=torch.int64)
        if labels.ndim == 1:
            return torch.isin(labels, own).float()
        return labels[:, own].sum(1)

    def of_student(self, logits: Tensor) -> Tensor:
        """Return a student's logits of the classes that both have, (B, common)."""
        return logits[:, [ours for ours, _ in self.classes]]

    def _as_used_to(self, video: Tensor) -> Tensor:
        """Return the same clips with the teacher's number of frames, size and normalisation."""
        options, frames = self.model.options, video.shape[2]
        if options.num_frames != frames:
            chosen = [(2 * i + 1) * frames // (2 * options.num_frames) for i in range(options.num_frames)]
            video = video[:, :, chosen]
        size = options.image_size
        if size != video.shape[-1]:
            pictures = video.transpose(1, 2).flatten(0, 1)
            video = scaled(pictures, size).reshape(len(video), -1, 3, size, size).transpose(1, 2)
        if self.rescale is not None:
            gain, offset = (torch.tensor(v, device=video.device)[:, None, None, None] for v in self.rescale)
            video = video * gain + offset
        return video.contiguous()


def load_teacher(
    path: Path,
    student: VideoMamba,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    features_count: bool = False,
) -> TrainedTeacher:
    """Load a trained model to learn from; it may be larger or smaller, and see other frames and know other classes.

    Classes of the same name are the same. If the file or the caller does not name them, both models must have as many,
    in the same order.

    Args:
        path: The checkpoint.
        student: The model to train.
        labels: Its classes; None if they have no names.
        preprocessing: How its frames are prepared; None takes the teacher's.
        features_count: Whether the student learns from features, too, so that no common classes are needed.

    Raises:
        UsageError: There is nothing to learn: the classes are others, and features do not count.
        CheckpointError: The checkpoint cannot be loaded.
    """
    model = load_checkpoint(path).eval().requires_grad_(False)
    if model.options.readout == "pooled_frames":
        raise UsageError(f"{path} is a video-text model, which cannot teach: it has no classes")
    facts = TrainingFacts.read(path)
    theirs = facts.labels if facts is not None else _published_labels(path, model.options.num_classes)
    classes = _common(path, student.options.num_classes, model.options.num_classes, labels, theirs, features_count)
    rescale = None
    if preprocessing is not None and facts is not None:
        own, used = preprocessing, facts.preprocessing
        if (own.mean, own.std) != (used.mean, used.std):
            gain = tuple(a / b for a, b in zip(own.std, used.std, strict=True))
            offset = tuple((a - b) / c for a, b, c in zip(own.mean, used.mean, used.std, strict=True))
            rescale = (gain, offset)
    return TrainedTeacher(model, student, classes, rescale)


def _published_labels(path: Path, classes: int) -> tuple[str, ...] | None:
    """Return the labels of the data that a published file's model was trained on, or None if they are not known."""
    published = zoo.find_file(path.name)
    known = zoo.read_list(published.data) if published is not None and published.data in zoo.LABEL_LISTS else ()
    return known if classes and len(known) == classes else None


def _common(
    path: Path,
    ours: int,
    theirs: int,
    labels: Sequence[str] | None,
    known: Sequence[str] | None,
    features_count: bool,
) -> tuple[tuple[int, int], ...]:
    """Return the indices of the classes that a student and its teacher both have."""
    if labels and known:
        places = {label: index for index, label in enumerate(known)}
        common = tuple((index, places[label]) for index, label in enumerate(labels) if label in places)
    else:
        common = tuple((index, index) for index in range(ours)) if ours == theirs else ()
    if len(common) >= 2:
        return common
    if features_count:
        return ()
    if labels and known:
        reason = f"it knows none of the classes, or one alone: its classes are {', '.join(known[:5])}" + (
            ", ..." if len(known) > 5 else ""
        )
    else:
        reason = f"its num_classes is {theirs}, not {ours}, and it does not name them"
    raise UsageError(
        f"{path} cannot teach this model by its predictions: {reason}; let it teach by its features alone, "
        "with a feature_weight above 0"
    )


def _readout(model: VideoMamba, tokens: Tensor) -> Tensor:
    """Return a model's logits of its tokens, (B, classes)."""
    read = tokens[:, 1:].mean(1) if model.options.readout == "mean" else tokens[:, 0]
    logits: Tensor = model.head(read)
    return logits
