"""Models with the clips that they are calibrated and measured on, for `quantisation.py` and `fp16.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import vmp_edge
from vmp_edge.calibration import clipset
from vmp_edge.calibration.decoding import Input, Prepare, Skipped, Video, in_workers
from vmp_edge.calibration.egomotion import dataset, footage
from vmp_edge.calibration.train.measuring import SAMPLING
from vmp_edge.compile import graph
from vmp_edge.compile.parity import moving_scene
from vmp_edge.models import VideoMamba, load_checkpoint, zoo
from vmp_edge.preprocessing import Preprocessing

CALIBRATION = 64  # clips


@dataclass(frozen=True)
class Case:
    """A model, the clips to calibrate it on, and the videos to measure it on.

    Attributes:
        data: Name of the data set; cases with the same name are its folds.
        model: The source model.
        calibration: float32 (N, 3, T, S, S).
        videos: float32 (clips, 3, T, S, S) each; the scores of a video's clips are averaged.
        labels: Index of each video's label; None if the true labels are not known.
    """

    data: str
    model: VideoMamba
    calibration: Video
    videos: list[Video]
    labels: NDArray[np.int64] | None


def egomotion(calibration: str, test: str, count: int, folder: Path) -> Iterator[Case]:
    """Yield egomotion-nano on procedural clips.

    Args:
        calibration: Split to calibrate on.
        test: Split to measure on.
        count: Number of clips to measure on.
        folder: Keeps the drawn clips.
    """
    model = zoo.load("egomotion-nano").module
    calibration_clips = dataset.normalise(torch.from_numpy(draw_clips(calibration, CALIBRATION, folder))).numpy()
    videos = dataset.normalise(torch.from_numpy(draw_clips(test, count, folder))).numpy()
    labels = np.arange(count) % 10
    yield Case(f"egomotion-nano, {test} clips", model, calibration_clips, [*videos[:, None]], labels)


def egomotion_footage(videos_folder: Path, folder: Path) -> Iterator[Case]:
    """Yield egomotion-nano on windows of real footage under a known camera path.

    Args:
        videos_folder: The footage.
        folder: Keeps the drawn clips to calibrate on.
    """
    model = zoo.load("egomotion-nano").module
    calibration_clips = dataset.normalise(torch.from_numpy(draw_clips("calibration", CALIBRATION, folder))).numpy()
    pool = footage.make_footage_pool(videos_folder)[0]
    videos = dataset.normalise(torch.from_numpy(np.array(pool.clips))).numpy()
    yield Case("egomotion-nano, real footage", model, calibration_clips, [*videos[:, None]], pool.labels)


def draw_clips(split: str, count: int, folder: Path) -> NDArray[np.uint8]:
    """Draw procedural clips, uint8 (N, T, S, S, 3), or take those that the folder keeps."""
    return np.array(dataset.make_pool(split, count, folder / f"{split}-{count}.npy").clips)


def folds(name: str, folder: Path, count: int | None = None) -> Iterator[Case]:
    """Yield the models of a data set's folds, each with the videos that it was not trained on.

    Args:
        name: The data set's name.
        folder: Output of `vmp-edge train --folds`.
        count: Number of folds; None takes all.
    """
    clips = clipset.read(folder / "clips.csv")
    labels = [line for line in (folder / "labels.txt").read_text().splitlines() if line]
    content = torch.load(folder / f"fold-{clips.folds[0]}.pth", weights_only=True)
    options = content["options"]
    preprocessing = Preprocessing.from_manifest(content["preprocessing"], options["image_size"])
    job = Prepare((Input(options["num_frames"], preprocessing),), SAMPLING)
    with closing(in_workers(job, clips.shuffled().entries)) as results:
        decoded = [
            (entry, result[0])
            for entry, result in tqdm(results, total=len(clips), desc=name, disable=None)
            if not isinstance(result, Skipped)
        ]
    for fold in clips.folds[:count]:
        others = [videos[len(videos) // 2] for entry, videos in decoded if entry.fold != fold]
        held_out = [(labels.index(str(entry.label)), videos) for entry, videos in decoded if entry.fold == fold]
        yield Case(
            name,
            load_checkpoint(folder / f"fold-{fold}.pth"),
            np.stack(others[:CALIBRATION]),
            [videos for _, videos in held_out],
            np.array([label for label, _ in held_out]),
        )


def tiny(count: int = 8) -> Iterator[Case]:
    """Yield videomambapro-tiny, with random weights of the sizes of a trained model's, on synthetic scenes."""
    torch.manual_seed(0)
    model = vmp_edge.models.create("videomambapro-tiny", num_frames=8, image_size=224)
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if name.endswith(("embed", "embedding", "token")):
            parameter.data = 0.3 * noise
        elif name.endswith(("norm.weight", "norm_f.weight")):
            parameter.data += 0.1 * noise
        elif name.endswith((".D", "A_log", "A_b_log", "dt_proj.bias")):
            parameter.data += 0.3 * noise
        elif name.endswith(("x_proj.weight", "head.weight")):
            parameter.data = noise / parameter.shape[1] ** 0.5
        elif name.endswith("out_proj.weight"):  # each block adds about as much as its input
            parameter.data = 3 * noise / parameter.shape[1] ** 0.5
        elif name == "patch_embed.proj.weight":
            parameter.data = 0.09 * noise
    shape = SimpleNamespace(manifest=SimpleNamespace(frames=8, image_size=224))
    scenes = [Preprocessing(224).clip(moving_scene(seed, shape)) for seed in range(2 * count)]
    yield Case("videomambapro-tiny, 8x224x224", model, np.concatenate(scenes[:count]), scenes[count:], None)


def frames(case: Case, video: Video) -> torch.Tensor:
    """Return a clip in the shape of the case's program."""
    return graph.fold_frames(torch.from_numpy(np.ascontiguousarray(video)), case.model.options.tubelet_size)
