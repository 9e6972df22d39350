"""The clip on which `vmp-edge verify` compares a bundle's output between machines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def check_clip(seed: int, frames: int, image_size: int) -> npt.NDArray[np.uint8]:
    """A clip that is the same, byte for byte, on every machine: what `verify` compares a bundle's output on.

    A coarse coloured pattern drifts over a finer one, with a little noise. Integers and `RandomState.randint` (whose
    stream numpy keeps frozen) only, so that no rounding can differ, and at the model's size, so that nothing resizes.

    Args:
        seed: Of the pattern, its drift and its noise; 0 to 2**32 - 1.
        frames: T.
        image_size: S.

    Returns:
        uint8 (T, S, S, 3).
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
        moved = np.roll(coarse, tuple(int(step) * index for step in drift), (0, 1))
        clip[index] = (4 * moved + 3 * fine + noise) // 8
    return clip
