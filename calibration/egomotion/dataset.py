"""Draw pools of labelled clips, once and on all cores, keep them on disk, and make batches from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmp_edge.machine import cpu_count
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.progress import Bar

from ..clipset import ClipSet, Entry
from ..decoding import Progress, in_workers, start_worker
from ..train.geometry import write_lossless
from ..workers import spawning
from . import symmetry
from .camera import FPS, LABELS
from .clips import FRAMES, Clip, generate_clip

# The model's input. The shorter side of a picture is scaled to its size, so that a rotation stays a rotation.
IMAGE_SIZE = 64
PREPROCESSING = Preprocessing(IMAGE_SIZE, resize="crop")
SPLITS = {"train": 0, "validation": 1, "test": 2, "calibration": 4}  # first number of a clip's seed; `footage` uses 3


@dataclass(frozen=True)
class Pool:
    """Clips in memory or on disk.

    Attributes:
        clips: uint8 (N, T, S, S, 3), possibly memory-mapped.
        labels: Indices into `LABELS`, int64 (N,).
    """

    clips: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.clips)


def draw(split: str, index: int) -> tuple[Clip, int]:
    """Draw clip number ``index`` of a split, at the model's size. The labels take turns.

    Returns:
        The clip, uint8 (T, S, S, 3), and the label's index.
    """
    label = index % len(LABELS)
    clip = generate_clip(LABELS[label], (SPLITS[split], index))
    return shrink(clip, IMAGE_SIZE), label


def shrink(clip: Clip, size: int) -> Clip:
    """Scale square frames down as `PREPROCESSING` does."""
    return np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in clip]).astype(np.uint8)


def make_pool(split: str, count: int, path: Path, workers: int | None = None) -> Pool:
    """Draw a pool, or open the pool that an earlier run has finished.

    Args:
        split: A key of `SPLITS`.
        count: Number of clips.
        path: The ``.npy`` file; it appears only when it is complete.
        workers: Number of processes; None takes all cores.
    """
    labels = np.arange(count) % len(LABELS)
    shape = (count, FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3)
    if path.exists():
        clips = np.load(path, mmap_mode="r")
        if clips.shape == shape:
            return Pool(clips, labels)
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    clips = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    tasks = [(split, i) for i in range(count)]
    with spawning().Pool(workers or cpu_count(), start_worker) as processes:
        drawn = processes.imap(_draw, tasks, chunksize=16)
        for i, clip in enumerate(Bar(drawn, total=count, desc=f"{split} clips", unit="clip")):
            clips[i] = clip
    clips.flush()
    partial.replace(path)
    return Pool(np.load(path, mmap_mode="r"), labels)


@dataclass(frozen=True)
class DrawFile:
    """A job for `in_workers`: draw the clip whose number is the file's name, and write it without loss.

    Attributes:
        split: A key of `SPLITS`.
    """

    split: str

    def __call__(self, entry: Entry) -> None:
        """Draw the clip and write the file."""
        write_lossless(draw(self.split, int(entry.path.stem))[0], FPS, entry.path)


def write_clips(
    split: str, count: int, folder: Path, progress: Progress | None = None, workers: int | None = None
) -> ClipSet:
    """Draw clips into video files.

    Args:
        split: A key of `SPLITS`.
        count: Number of clips.
        folder: Gets the files.
        progress: Makes a progress bar, like `tqdm.tqdm`; None shows nothing.
        workers: See `in_workers`.

    Returns:
        The files with their labels.
    """
    entries = tuple(Entry(folder / f"{i}.avi", LABELS[i % len(LABELS)]) for i in range(count))
    with closing(in_workers(DrawFile(split), entries, workers)) as drawn:
        for _ in progress(drawn, total=count, desc=f"draw {split} clips", unit="clip") if progress else drawn:
            pass
    return ClipSet(f"{count} procedural clips ({split})", entries)


def _draw(task: tuple[str, int]) -> Clip:
    return draw(*task)[0]


def normalise(clips: Tensor) -> Tensor:
    """Normalise clips for the model, with mean and standard deviation of `PREPROCESSING`.

    Args:
        clips: uint8 or float (B, T, S, S, 3), 0 .. 255.

    Returns:
        float32 (B, 3, T, S, S).
    """
    mean, std = (255 * torch.tensor(values) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    return ((clips.float() - mean) / std).permute(0, 4, 1, 2, 3).contiguous()


def training_batches(pool: Pool, batch: int, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Make the batches of one pass over the pool, in random order, each batch augmented anew.

    Yields:
        float32 (B, 3, T, S, S) and int64 (B,).
    """
    order = rng.permutation(len(pool))
    for start in range(0, len(order) - batch + 1, batch):
        chosen = np.sort(order[start : start + batch])
        clips, labels = torch.from_numpy(pool.clips[chosen]), torch.from_numpy(pool.labels[chosen])
        yield augment(clips, labels, rng)


def augment(clips: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Augment a batch: each quarter by random symmetries of its own, each clip by random colours and contrast.

    Args:
        clips: uint8 (B, T, S, S, 3).
        labels: (B,).
        rng: Source of all randomness.

    Returns:
        The normalised clips, float32 (B, 3, T, S, S), and their labels, which symmetries may have changed.
    """
    parts = []
    for part, part_labels in zip(clips.chunk(4), labels.chunk(4), strict=False):
        for name in symmetry.SYMMETRIES:
            if rng.random() < 0.5:
                part, part_labels = symmetry.apply(name, part, part_labels)
        parts.append((part, part_labels))
    video = normalise(torch.cat([part for part, _ in parts]))
    count = len(video)
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.2, (count, 3, 1, 1, 1)))).float()
    offset = torch.from_numpy(rng.normal(0, 0.2, (count, 3, 1, 1, 1))).float()
    video = video[:, torch.from_numpy(rng.permutation(3))]
    return video * gain + offset, torch.cat([part_labels for _, part_labels in parts])


def evaluation_batches(pool: Pool, batch: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
    """Make batches of a pool in its order, without augmentation."""
    for start in range(0, len(pool), batch):
        part = slice(start, start + batch)
        yield normalise(torch.from_numpy(np.array(pool.clips[part]))), torch.from_numpy(pool.labels[part])
