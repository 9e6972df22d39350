"""Masked pre-training on unlabelled videos: a student that sees some rows predicts a teacher's features of them.

VideoMamba (arXiv 2403.06977, section 3.3) aligns the student's last tokens of the visible patches with those of a
frozen teacher through a linear layer. The class token learns to predict the mean of the teacher's whole clip besides,
so that a head on it has something to start from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from vmp_edge.errors import UsageError
from vmp_edge.models import VideoMamba

from ..decoding import Clip
from ..train import parallel
from ..train.grid import scaled
from ..train.loop import Task, Trainer, save
from ..train.objective import AnyObjective
from ..train.parallel import Part
from ..train.recipe import TrainingRecipe
from ..train.start import Start
from . import masks
from .pieces import Pieces
from .teachers import Teacher

_LARGEST_STORE = 16 << 30  # bytes of a teacher's features that are kept on the disk
_SAMPLE = 32  # pieces that the teacher's features are standardised by
_LEAST_SPREAD = 1e-4


@dataclass(frozen=True)
class PretrainingRecipe(TrainingRecipe):
    """All settings that decide a pre-training, apart from the videos, the models and the machine.

    Attributes:
        auxiliary: Weight of the loss of the class token.
        mask: Which rows are masked, one of `masks.MASKS`.
        mask_ratio: Share of the rows that is masked, at most.
        views: Views of each piece, for which the teacher's features are computed once; 0 takes new ones in each epoch.

    Raises:
        UsageError: A value is out of range.
    """

    epochs: int = 60
    batch: int = 16
    learning_rate: float = 1e-3
    average: float = 0.99
    auxiliary: float = 1.0
    mask: str = masks.CLIP_ROW
    mask_ratio: float = 0.8
    views: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask not in masks.MASKS:
            raise UsageError(f"the mask is {self.mask!r}; it must be one of {', '.join(masks.MASKS)}")
        if not 0 <= self.mask_ratio < 1:
            raise UsageError(f"the mask ratio is {self.mask_ratio:g}; it must be at least 0 and under 1")
        if self.views < 0:
            raise UsageError(f"there are {self.views} views; it must be at least 0")


@dataclass(frozen=True, eq=False)
class Targets:
    """What a student has to predict.

    Attributes:
        features: The teacher's features, standardised, (B, L, C).
        visible: Indices of the patches that the student sees, int64 (B, V).
    """

    features: Tensor
    visible: Tensor

    def to(self, device: torch.device) -> Targets:
        """Return the same on a device."""
        return Targets(self.features.to(device), self.visible.to(device))

    def __getitem__(self, chosen: slice) -> Targets:
        return Targets(self.features[chosen], self.visible[chosen])


class Decoder(nn.Module):
    """Two linear layers from a student's tokens to a teacher's channels; they are no part of the trained model.

    Args:
        student: Channels of the student.
        teacher: Channels of the teacher.
    """

    patches: nn.Linear
    clip: nn.Linear

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.patches = nn.Linear(student, teacher)
        self.clip = nn.Linear(student, teacher)


class Alignment(AnyObjective):
    """How far a student's predictions are from its teacher's features, as one minus their cosine.

    Attributes:
        adapter: See `Decoder`.

    Args:
        recipe: See `PretrainingRecipe`.
        model: The student, without a head.
        channels: Channels of the teacher.
    """

    adapter: Decoder

    def __init__(self, recipe: PretrainingRecipe, model: VideoMamba, channels: int) -> None:
        super().__init__()
        self.recipe, self.model = recipe, model
        self.adapter = Decoder(model.options.embed_dim, channels).to(next(model.parameters()).device)

    def forward(self, video: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Compute the losses.

        Args:
            video: float32 (B, 3, T, S, S).
            targets: See `Targets`.

        Returns:
            The loss to minimise, and the part of it that is due to the visible patches.
        """
        tokens = masks.forward_visible(self.model, video, targets.visible)
        wanted = targets.features.float()
        seen = wanted.gather(1, targets.visible[..., None].expand(-1, -1, wanted.shape[2]))
        patches = 1 - F.cosine_similarity(self.adapter.patches(tokens[:, 1:]).float(), seen, dim=-1).mean()
        clip = 1 - F.cosine_similarity(self.adapter.clip(tokens[:, 0]).float(), wanted.mean(1), dim=-1).mean()
        return patches + self.recipe.auxiliary * clip, patches


class Lessons:
    """The batches of a pre-training: views of pieces, with the features that the teacher has of them.

    With a number of views, the views are the same in each turn, and the teacher's features of a view are computed when
    it is seen for the first time, and kept in a file. A run that goes on finds them there.

    Args:
        recipe: See `PretrainingRecipe`.
        decoded: The pieces.
        start: The student's start.
        teacher: The teacher.
        folder: Where the features are kept.
    """

    def __init__(
        self, recipe: PretrainingRecipe, decoded: Pieces, start: Start, teacher: Teacher, folder: Path
    ) -> None:
        self.recipe, self.pieces, self.teacher = recipe, decoded, teacher
        self.preprocessing = start.preprocessing
        self.grid = start.model.options.grid
        self.device = parallel.training_device()
        count = min(len(decoded), _SAMPLE)
        sample = [
            decoded.view(i * len(decoded) // count, self._rng(i * len(decoded) // count, 0)) for i in range(count)
        ]
        features = np.concatenate([self._teach(sample[i : i + 4]) for i in range(0, count, 4)])
        features = features.reshape(-1, features.shape[-1]).astype(np.float32)
        self.mean, self.std = (parallel.agree(value) for value in (features.mean(0), features.std(0)))
        self.std = np.maximum(self.std, max(_LEAST_SPREAD, 1e-3 * float(self.std.max())))
        self.views = recipe.views
        shape = (len(decoded), self.views, self.grid[0] * self.grid[1] ** 2, len(self.mean))
        if int(np.prod(shape)) * 2 > _LARGEST_STORE:
            self.views = 0
        self._store = _Store(folder, shape) if self.views else None

    @property
    def channels(self) -> int:
        """Channels of the teacher's features."""
        return len(self.mean)

    @property
    def steps(self) -> int:
        """Batches in an epoch; the last one is filled up with other pieces."""
        return -(-len(self.pieces) // self.recipe.batch)

    def batches(self, rng: np.random.Generator, part: Part) -> Iterator[tuple[Tensor, Targets]]:
        """Make a process's part of an epoch's batches; see `Task.batches`."""
        size, mine = self.recipe.batch, part.of(self.recipe.batch)
        order = np.resize(rng.permutation(len(self.pieces)), self.steps * size)
        numbers = rng.integers(self.views or 1 << 31, size=len(order))
        for start in range(0, len(order), size):
            generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            visible = masks.draw(size, *self.grid, self.recipe.mask_ratio, self.recipe.mask, generator)
            looks = [np.random.default_rng(int(seed)) for seed in rng.integers(1 << 62, size=size)]
            chosen, number = order[start : start + size][mine], numbers[start : start + size][mine]
            views = [self.pieces.view(int(i), self._rng(int(i), int(n))) for i, n in zip(chosen, number, strict=True)]
            features = (self._features(chosen, number, views).astype(np.float32) - self.mean) / self.std
            video = np.concatenate([self._student_sees(*pair) for pair in zip(views, looks[mine], strict=True)])
            yield torch.from_numpy(video), Targets(torch.from_numpy(features), visible[mine])

    def _rng(self, piece: int, view: int) -> np.random.Generator:
        return np.random.default_rng([self.recipe.seed, 2, piece, view])

    def _student_sees(self, view: Clip, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a view in other colours and light, float32 (1, 3, T, S, S)."""
        video = self.preprocessing.clip(view)
        gain, offset = np.exp(rng.normal(0, 0.15, (3, 1, 1, 1))), rng.normal(0, 0.15, (3, 1, 1, 1))
        return np.asarray(video * gain + offset, np.float32)

    def _teach(self, views: list[Clip]) -> NDArray[np.float16]:
        """Return the teacher's features of views, (B, L, C)."""
        size = self.teacher.size
        rows = [scaled(torch.from_numpy(view).to(self.device).permute(3, 0, 1, 2) / 255, size) for view in views]
        features = self.teacher.features(torch.stack(rows), *self.grid)
        return np.asarray(features.flatten(1, 3).half().cpu().numpy())

    def _features(self, chosen: NDArray[np.int64], number: NDArray[np.int64], views: list[Clip]) -> NDArray[np.float16]:
        """Return the teacher's features of views: those that are known, or else new ones, which are kept."""
        if self._store is None:
            return self._teach(views)
        known = self._store.known[chosen, number] != 0
        if not known.all():
            self._store.add(chosen[~known], number[~known], self._teach([views[i] for i in np.flatnonzero(~known)]))
        return np.asarray(self._store.features[chosen, number])


class _Store:
    """A file of a teacher's features, which takes no more of the disk than was written to it.

    Args:
        folder: Where it lies. Each of several processes has its own.
        shape: Pieces, views, patches and channels.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        own = f"-{parallel.current().index}" if parallel.current().count > 1 else ""
        self.features = self._open(folder / f"features{own}.bin", np.float16, shape)
        self.known = self._open(folder / f"known{own}.bin", np.uint8, shape[:2])

    def add(self, chosen: NDArray[np.int64], number: NDArray[np.int64], features: NDArray[np.float16]) -> None:
        """Keep features of views, by the numbers of their pieces and of the views."""
        self.features[chosen, number] = features
        self.known[chosen, number] = 1

    def _open(self, path: Path, kind: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        needed = int(np.prod(shape)) * np.dtype(kind).itemsize
        if not path.exists() or path.stat().st_size != needed:
            with path.open("wb") as file:
                file.truncate(needed)
        return np.memmap(path, kind, "r+", shape=shape)


def make_trainer(
    recipe: PretrainingRecipe, start: Start, teacher: Teacher, decoded: Pieces, folder: Path, checkpoint: Path
) -> tuple[Trainer, Lessons]:
    """Make a training run, and its lessons.

    Args:
        recipe, start, teacher: See `pretrain`.
        decoded: The pieces.
        folder: Where the teacher's features are kept.
        checkpoint: See `Trainer`.
    """
    model = headless(start.model)
    lessons = Lessons(recipe, decoded, start, teacher, folder)
    torch.manual_seed(recipe.seed)
    objective = Alignment(recipe, model.to(parallel.training_device()), lessons.channels)
    batches: Any = lessons.batches  # whose second part is no tensor
    task = Task("pre-training", batches, lessons.steps)
    return Trainer(recipe, model, task, checkpoint, objective=objective), lessons


def headless(model: VideoMamba) -> VideoMamba:
    """Return a copy of a model without its head."""
    options = dataclasses.replace(model.options, num_classes=0)
    result = VideoMamba(options)
    result.load_state_dict({name: v for name, v in model.state_dict().items() if not name.startswith("head.")})
    return result


def write(
    weights: dict[str, Tensor],
    start: Start,
    recipe: PretrainingRecipe,
    teacher: Teacher,
    span: float,
    history: list[dict[str, float]],
    path: Path,
) -> None:
    """Write a backbone's file, from which `vmp-edge train --init` starts."""
    options = dataclasses.replace(start.model.options, num_classes=0)
    content = {
        "model": weights,
        "options": dataclasses.asdict(options),
        "labels": [],
        "preprocessing": start.preprocessing.to_manifest(),
        "sampling": {"frames": options.num_frames, "span": span},
        "recipe": dataclasses.asdict(recipe),
        "pretraining": {"start": start.name, "teacher": teacher.name, "teacher_identity": teacher.identity},
        "history": history,
    }
    save(content, path)
