"""Clips of one colour, for bundles whose features are the mean of each colour."""

from __future__ import annotations

import numpy as np

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


def clip_of(colour, count=4):
    """Return a clip of one colour, uint8 (count, 24, 32, 3) RGB. Its noise makes every frame different."""
    noise = np.random.default_rng(sum(COLOURS[colour]) + count).integers(0, 20, (count, 24, 32, 3))
    return (np.array(COLOURS[colour]) + noise).astype(np.uint8)
