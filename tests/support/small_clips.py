"""Small clips whose class a tiny model learns in seconds: the colour of a square that moves a little."""

from __future__ import annotations

import cv2
import numpy as np

COLOURS = {"red": (40, 40, 255), "green": (40, 255, 40), "blue": (255, 40, 40)}


def write_clip(path, colour, seed, count=24, size=(64, 48), fps=15.0, scene=None):
    """Write a clip.

    Args:
        path: The file.
        colour: A key of `COLOURS`.
        seed: Of the square's place and motion.
        count: Number of frames.
        size: Width and height.
        fps: Frames per second.
        scene: Seed of the background; None takes `seed`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, place = np.random.default_rng(seed if scene is None else scene), np.random.default_rng(seed)
    background = cv2.resize(rng.integers(0, 60, (6, 8, 3), dtype=np.uint8), size, interpolation=cv2.INTER_NEAREST)
    left, top = place.integers(0, (size[0] - 30, size[1] - 30))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for _ in range(count):
        frame, shift = background.copy(), int(place.integers(0, 3))
        cv2.rectangle(
            frame, (int(left) + shift, int(top)), (int(left) + shift + 28, int(top) + 28), COLOURS[colour], -1
        )
        writer.write(frame)
    writer.release()
    return path


def write_clips(folder, each=6, colours=tuple(COLOURS)):
    """Write a folder of class folders."""
    for number, colour in enumerate(colours):
        for i in range(each):
            write_clip(folder / colour / f"{colour}-{i}.avi", colour, 100 * number + i)
    return folder
