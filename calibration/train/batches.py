"""Make training batches from decoded clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmp_edge.errors import UsageError
from vmp_edge.preprocessing import Preprocessing

from ..decoding import Clip
from .augment import augment
from .mirror import mirrored
from .mixing import mix
from .parallel import Part
from .recipe import ClipsRecipe


class Clips(Protocol):
    """Decoded clips to make batches of."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The index of each clip's label, (N,)."""
        ...

    @property
    def frames(self) -> int:
        """The model's frames, T."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """The model's preprocessing."""
        ...

    def window(self, index: int, rng: np.random.Generator) -> Clip:
        """Return a part of a clip that `augment` chooses a video from, uint8 (F, H, W, 3)."""
        ...


def steps(clips: int, batch: int) -> int:
    """Return the number of batches in a pass over the clips."""
    return -(-clips // batch)


def batches(
    clips: Clips, names: Sequence[str], recipe: ClipsRecipe, rng: np.random.Generator, part: Part
) -> Iterator[tuple[Tensor, Tensor]]:
    """Make a process's part of the batches of one pass over the clips, in random order, each clip augmented anew.

    The last batch is filled up with clips that were seen before in the pass.

    Args:
        clips: The clips.
        names: Names of the classes. They tell which clips may be mirrored, and which class these show then.
        recipe: Says how large a batch is, and how clips are augmented and mixed.
        rng: Source of all randomness. What happens to a clip does not depend on the part.
        part: The process's part of each batch.

    Yields:
        float32 (B, 3, T, S, S), and int64 (B,), or float32 (B, classes) if clips are mixed.

    Raises:
        UsageError: The processes cannot divide a batch evenly.
    """
    count, size = len(clips.labels), recipe.batch
    needed = steps(count, size) * size
    order = np.concatenate([rng.permutation(count) for _ in range(-(-needed // count))])[:needed]
    seed = int(rng.integers(1 << 62))
    images = mirrored(names) if recipe.mirror else [None] * len(names)
    mine = part.of(size)
    mixes = bool(recipe.mixup or recipe.cutmix)
    if mixes and (mine.stop - mine.start) % 2:
        raise UsageError(f"a batch of {size} clips cannot be divided into pairs among {part.count} processes")
    for start in range(0, len(order), size):
        videos, chosen = [], []
        for place in range(start + mine.start, start + mine.stop):
            own = np.random.default_rng([seed, place])
            index = int(order[place])
            label = int(clips.labels[index])
            image = images[label]
            mirrors = image is not None and own.random() < 0.5
            window = clips.window(index, own)
            window = window[:, :, ::-1] if mirrors else window
            videos.append(augment(window, clips.frames, clips.preprocessing, own, recipe.augmentation))
            chosen.append(image if mirrors else label)
        video, labels = torch.from_numpy(np.concatenate(videos)), torch.tensor(chosen)
        if mixes:
            video, labels = mix(video, labels, len(names), recipe.mixup, recipe.cutmix, (seed, start + mine.start))
        yield video, labels
