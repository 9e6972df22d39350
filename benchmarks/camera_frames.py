"""Frames of a camera that moves over a coarse pattern, for `per_frame.py` and `embedded.py`."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 640, 480


def make_frames(count: int) -> npt.NDArray[np.uint8]:
    """Draw frames, uint8 (count, HEIGHT, WIDTH, 3) BGR."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (40, 60, 3), np.uint8), (3 * WIDTH, 2 * HEIGHT))
    places = [(i * 4 % (2 * WIDTH), i * 2 % HEIGHT) for i in range(count)]
    return np.stack([scene[y : y + HEIGHT, x : x + WIDTH] for x, y in places])
