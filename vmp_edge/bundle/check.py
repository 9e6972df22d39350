"""The clip on which `vmp-edge verify` compares a bundle's output between machines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def check_clip(seed: int, frames: int, image_size: int) -> npt.NDArray[np.uint8]:
    """Make the check clip, which is the same on every machine, byte for byte.

    A coarse coloured pattern drifts over a finer one, with a little noise. The arithmetic uses only integers and
    `RandomState.randint`, whose sequence numpy keeps frozen, so that no rounding can differ. The clip has the model's
    size, so that nothing is resized.

    Args:
        seed: Seed of the pattern, its drift and its noise, from 0 to 2**32 - 1.
        frames: Number of frames T.
        image_size: Side S of the frames, in pixels.

    Returns:
        The clip, uint8 (T, S, S, 3).
    """
    random = np.random.RandomState(seed)
    coarse, fine = (
        np.repeat(np.repeat(random.randint(0, 256, (cells, cells, 3)), block, 0), block, 1)[:image_size, :image_size]
        for cells, block in ((4, -(-image_size // 4)), (16, -(-image_size // 16)))
    )
    drift = random.randint(-3, 4, 2)
    clip = np.empty((frames, image_size, image_size, 3), np.uint8)
    for index in range(frames):
        noise = random.randint(0, 32, clip.shape[1:])
        shifted = np.roll(coarse, tuple(int(step) * index for step in drift), (0, 1))
        clip[index] = (4 * shifted + 3 * fine + noise) // 8
    return clip
