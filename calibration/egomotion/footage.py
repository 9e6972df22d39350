"""Make a test set from real video: its frames, seen through a view that moves along a known camera path.

The protocol was fixed before the first result was known:

1. From every video of at least 14 frames per second, windows of eight frames at 15 frames per second are taken,
   evenly spread over the video. Objects that move in the scene keep moving.
2. A window only counts if its own camera stands still. Corners are tracked from each frame to the next and a
   similarity is fitted with RANSAC. The window is left out if fewer than 12 corners are tracked, if fewer than half
   of them agree, if any step moves the picture's corners by more than 0.4% of its height, or if all steps together
   move them by more than 0.8%.
3. A view of half to 62% of the frame's height moves over the frames by a random path of the training's distribution
   with seeds of its own; half of the clips have motion blur. Nothing else is added: noise, compression and lighting
   are the video's.
4. Labels take turns over the windows that count, in the order of the files' names, so that each label has a tenth.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vmp_edge.errors import SourceError
from vmp_edge.sources import open_source

from ..clipset import SUFFIXES
from .camera import FPS, LABELS, CameraPath, sample_path
from .clips import FRAMES, SIZE, Clip, from_pixels, warp
from .dataset import IMAGE_SIZE, Pool, shrink

SEED = 3  # differs from the seeds of `dataset.SPLITS`
MIN_FPS = 14.0
MIN_CORNERS, MIN_AGREEMENT = 12, 0.5
MAX_STEP, MAX_DRIFT = 0.004, 0.008  # of the picture's height


def make_footage_pool(folder: Path, windows_per_video: int = 5) -> tuple[Pool, dict[str, int]]:
    """Build the test set from every video under a folder.

    Args:
        folder: Searched recursively.
        windows_per_video: Number of windows to try in each video.

    Returns:
        The clips; and the numbers of videos and windows, with the reasons why some were left out.
    """
    counts = {"videos": 0, "videos_too_slow": 0, "windows": 0, "own_motion_or_unknown": 0, "used": 0}
    clips: list[Clip] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")):
        counts["videos"] += 1
        windows = list(read_windows(path, windows_per_video))
        counts["videos_too_slow"] += not windows
        for window in windows:
            counts["windows"] += 1
            if not stands_still(window):
                counts["own_motion_or_unknown"] += 1
                continue
            index = len(clips)
            label = LABELS[index % len(LABELS)]
            clips.append(shrink(film(window, label, np.random.default_rng([SEED, index])), IMAGE_SIZE))
    counts["used"] = len(clips)
    return Pool(np.stack(clips), np.arange(len(clips)) % len(LABELS)), counts


def read_windows(path: Path, count: int) -> Iterator[Clip]:
    """Yield windows of eight frames at 15 frames per second, uint8 (T, H, W, 3) RGB; none if the video is too slow.

    A video that cannot be read gives none, too.
    """
    try:
        video = open_source(str(path.absolute()))
    except SourceError:
        return
    fps = video.fps or 0.0
    frames = []
    with closing(video):
        while fps >= MIN_FPS and (frame := video.read()) is not None:
            frames.append(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB))
    offsets = np.round(np.arange(FRAMES) * fps / FPS).astype(int)
    room = len(frames) - 1 - int(offsets[-1])
    if room < 0:
        return
    for start in sorted({int(s) for s in np.linspace(0, room, count).round()}):
        yield np.stack([frames[start + o] for o in offsets]).astype(np.uint8)


def stands_still(window: Clip) -> bool:
    """Return whether the camera of these frames does not move, by rule 2."""
    height, width = window.shape[1:3]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in window]
    total = np.eye(3)
    for before, after in itertools.pairwise(grey):
        step = _similarity(before, after)
        if step is None or _corner_motion(step, width, height) > MAX_STEP:
            return False
        total = step @ total
    return _corner_motion(total, width, height) <= MAX_DRIFT


def _similarity(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the motion of most of the picture, (3, 3), or None if the tracked corners do not agree."""
    corners = cv2.goodFeaturesToTrack(before, 300, 0.01, 6)
    if corners is None:
        return None
    ends, status, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)
    tracked = status.ravel() == 1
    if tracked.sum() < MIN_CORNERS:
        return None
    fit, agree = cv2.estimateAffinePartial2D(
        corners[tracked], ends[tracked], method=cv2.RANSAC, ransacReprojThreshold=0.7
    )
    if fit is None or agree.mean() < MIN_AGREEMENT:
        return None
    return np.vstack([fit, [0, 0, 1]])


def _corner_motion(step: NDArray[np.float64], width: int, height: int) -> float:
    """Return the largest motion of a corner of the picture, in picture heights."""
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64).T
    return float(np.linalg.norm((step @ corners - corners)[:2], axis=0).max() / height)


def film(window: Clip, label: str, rng: np.random.Generator, size: int = SIZE) -> Clip:
    """Look at the frames through a moving view.

    Args:
        window: uint8 (T, H, W, 3).
        label: The motion of the view.
        rng: Source of all randomness.
        size: Side of the result in pixels.

    Returns:
        uint8 (T, size, size, 3).
    """
    height, width = window.shape[1:3]
    path = sample_path(label, rng, len(window))
    side = min(height, width) * rng.uniform(0.5, 0.62)
    middle_x = width / 2 + rng.uniform(-0.5, 0.5) * max(0.0, width - height)
    to_frame = np.array([[side, 0, middle_x], [0, side, height / 2], [0, 0, 1.0]])
    exposure = np.linspace(0, rng.uniform(0.15, 0.9), 4) if rng.random() < 0.5 else np.zeros(1)
    return np.stack([_expose(frame, path, t + exposure, to_frame, size) for t, frame in enumerate(window)])


def _expose(
    frame: Clip, path: CameraPath, times: NDArray[np.float64], to_frame: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    maps = to_frame @ path.homographies(times) @ from_pixels(size)
    views = [warp(frame, to_pixels, size).astype(np.float32) for to_pixels in maps]
    return np.asarray(np.mean(views, axis=0).round(), np.uint8)
