"""Make synthetic scenes to calibrate on, for benchmarks of speed or of the distance from the source model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt

from vmp_edge.calibration.train.geometry import write_lossless
from vmp_edge.compile.parity import moving_scene


def scenes(frames: int, size: int, count: int) -> list[npt.NDArray[np.uint8]]:
    """Draw different scenes, uint8 (frames, size, size, 3) RGB each."""
    shape = SimpleNamespace(manifest=SimpleNamespace(frames=frames, image_size=size))
    return [moving_scene(seed, shape) for seed in range(count)]


def write(videos: Sequence[npt.NDArray[np.uint8]], folder: Path) -> Path:
    """Write scenes as files, and return a text file with their paths, as `--calibrate` takes it."""
    places = [folder / f"{seed}.avi" for seed in range(len(videos))]
    for scene, place in zip(videos, places, strict=True):
        write_lossless(scene, 15, place)
    clips = folder / "clips.txt"
    clips.write_text("".join(f"{place}\n" for place in places))
    return clips
