"""Draw procedural pictures: noise, cells, lines, writing, shapes, and simple indoor and outdoor scenes.

Functions that draw take a size and a random generator and return a uint8 (size, size, 3) RGB picture. Nothing is read
from files, so that the training data has the project's own licence.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]


def picture(size: int, rng: np.random.Generator) -> Image:
    """Draw a random picture: a texture, a scene, or two of these joined, under random lighting."""
    image = _draw(size, rng)
    if rng.random() < 0.25:
        mask = (fractal(size, rng, roughness=rng.uniform(0.3, 0.6)) > rng.uniform(0.35, 0.65))[..., None]
        image = np.where(mask, image, _draw(size, rng))
    if rng.random() < 0.6:
        image = grain(image, rng, rng.uniform(0.03, 0.25))
    return light(image, rng)


def _draw(size: int, rng: np.random.Generator) -> Image:
    return _KINDS[int(rng.choice(len(_KINDS), p=_WEIGHTS))](size, rng)


def light(image: Image, rng: np.random.Generator) -> Image:
    """Change lighting, contrast and gamma at random, so that no texture keeps its own brightness."""
    size = image.shape[0]
    lamp = cv2.resize(rng.uniform(0.55, 1.25, (3, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    table = np.linspace(0, 1, 256) ** rng.uniform(0.6, 1.7)
    low = rng.uniform(0, 0.3)
    table = 255 * (low + (rng.uniform(max(low + 0.25, 0.5), 1.0) - low) * table)
    out = cv2.LUT(image, table.round().astype(np.uint8)) * lamp[..., None]
    mean, spread = out.mean(), out.std()
    out = mean + (out - mean) * max(1.0, 24 / (spread + 1e-6))  # gives every picture some contrast
    return np.asarray(out.clip(0, 255), np.uint8)


def colour(rng: np.random.Generator, vivid: float = 0.4) -> Colour:
    """Return a random colour. The smaller ``vivid`` is, the closer it is to grey, like most of the world."""
    grey, tint = rng.uniform(15, 240), rng.uniform(-128, 128, 3) * vivid
    r, g, b = (int(np.clip(grey + t, 0, 255)) for t in tint)
    return r, g, b


def fractal(size: int, rng: np.random.Generator, roughness: float = 0.5) -> NDArray[np.float32]:
    """Return noise with energy at every scale, (size, size) in 0 .. 1.

    Args:
        size: Side of the picture.
        rng: Source of all randomness.
        roughness: Gain from octave to octave.
    """
    total = np.zeros((size, size), np.float32)
    cells, gain = int(rng.integers(2, 5)), 1.0
    while cells < size:
        grid = rng.random((cells + 1, cells + 1), np.float32)
        total += gain * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, gain = cells * 2, gain * roughness
    low, high = total.min(), total.max()
    return np.asarray((total - low) / (high - low + 1e-6), np.float32)


def palette(values: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """Colour a map (H, W) in 0 .. 1 by interpolating three to five random colours."""
    stops = np.array([colour(rng) for _ in range(rng.integers(3, 6))], np.float32)
    table = np.stack([np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(stops)), stops[:, c]) for c in range(3)])
    return np.asarray(table.T.astype(np.uint8)[(values * 255).astype(np.uint8)], np.uint8)


def noise(size: int, rng: np.random.Generator) -> Image:
    """Draw fractal noise, like clouds, foliage or gravel."""
    return palette(fractal(size, rng, rng.uniform(0.45, 0.85)), rng)


def cells(size: int, rng: np.random.Generator) -> Image:
    """Draw Voronoi cells, flat or shaded towards their centres."""
    seeds = np.full((size, size), 255, np.uint8)
    count = int(np.exp(rng.uniform(np.log(15), np.log(400))))
    seeds[rng.integers(0, size, count), rng.integers(0, size, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.array([colour(rng) for _ in range(int(labels.max()) + 1)], np.float32)
    shade = 1 - rng.uniform(0, 0.6) * (distance / (distance.max() + 1e-6))
    return np.asarray(colours[labels] * shade[..., None], np.uint8)


def checkers(size: int, rng: np.random.Generator) -> Image:
    """Draw tiles of uneven brightness, seen at an angle."""
    step = int(rng.integers(14, 60))
    count = size // step + 2
    tones = np.where((np.indices((count, count)).sum(0) % 2)[..., None] > 0, colour(rng), colour(rng)).astype(
        np.float32
    )
    tones += rng.normal(0, rng.uniform(0, 40), (count, count, 1))
    board = cv2.resize(tones.clip(0, 255).astype(np.uint8), None, fx=step, fy=step, interpolation=cv2.INTER_NEAREST)
    return _tilt(board, size, rng)


def _tilt(image: Image, size: int, rng: np.random.Generator) -> Image:
    """Turn a picture by any angle and slant it a little."""
    turn = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), rng.uniform(0, 360), 1.0)
    slant = np.eye(3)
    slant[2, :2] = rng.uniform(-0.6, 0.6, 2) / size
    matrix = slant @ np.vstack([turn, [0, 0, 1]])
    return np.asarray(cv2.warpPerspective(image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def lines(size: int, rng: np.random.Generator) -> Image:
    """Draw straight edges of any width on a smooth ground."""
    image = palette(fractal(size, rng, 0.25), rng)
    for _ in range(rng.integers(8, 60)):
        a, b = rng.integers(-size // 4, size * 5 // 4, (2, 2)).tolist()
        cv2.line(image, a, b, colour(rng, 0.7), int(rng.integers(1, 10)), cv2.LINE_AA)
    return image


def writing(size: int, rng: np.random.Generator) -> Image:
    """Draw rows of characters, like those on signs, pages and screens."""
    image = palette(fractal(size, rng, 0.3), rng)
    for _ in range(rng.integers(6, 30)):
        text = "".join(chr(c) for c in rng.integers(33, 122, rng.integers(3, 14)))
        place = rng.integers(-size // 8, size, 2).tolist()
        scale, width = rng.uniform(0.4, 2.2), int(rng.integers(1, 5))
        cv2.putText(image, text, place, int(rng.integers(0, 8)), scale, colour(rng, 0.6), width, cv2.LINE_AA)
    return image


def shapes(size: int, rng: np.random.Generator) -> Image:
    """Draw overlapping ellipses and polygons, filled and shaded."""
    image = palette(fractal(size, rng, rng.uniform(0.2, 0.7)), rng)
    for _ in range(rng.integers(6, 70)):
        middle, radius = rng.integers(0, size, 2), size * np.exp(rng.uniform(np.log(0.015), np.log(0.2)))
        if rng.random() < 0.5:
            axes = (radius * rng.uniform(0.4, 1.0, 2)).astype(int).tolist()
            cv2.ellipse(image, middle.tolist(), axes, rng.uniform(0, 180), 0, 360, colour(rng), -1, cv2.LINE_AA)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            corners = middle + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(image, [corners.astype(np.int32)], colour(rng), cv2.LINE_AA)
    return image


def grain(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Give flat surfaces a fine texture."""
    fine = fractal(image.shape[0], rng, rng.uniform(0.7, 1.0)) - 0.5
    return np.asarray((image + strength * 255 * fine[..., None]).clip(0, 255), np.uint8)


def street(size: int, rng: np.random.Generator) -> Image:
    """Draw sky, ground with markings that run to the horizon, and houses with windows."""
    image = np.empty((size, size, 3), np.uint8)
    horizon = int(size * rng.uniform(0.35, 0.65))
    sky = np.linspace(0, 1, horizon)[:, None, None]
    image[:horizon] = (1 - sky) * np.array(colour(rng)) + sky * np.array(colour(rng))
    image[horizon:] = colour(rng, 0.25)
    vanish = int(rng.integers(0, size))
    for _ in range(rng.integers(2, 12)):
        foot = int(rng.integers(-size, 2 * size))
        cv2.line(image, (vanish, horizon), (foot, size), colour(rng, 0.2), int(rng.integers(1, 5)), cv2.LINE_AA)
    for _ in range(rng.integers(3, 14)):
        width, height = (int(v) for v in rng.uniform(0.05, 0.3, 2) * size)
        _house(image, int(rng.integers(-width, size)), horizon + int(rng.integers(0, size // 8)), width, height, rng)
    for _ in range(rng.integers(0, 8)):  # poles and trunks
        x, foot = int(rng.integers(0, size)), horizon + int(rng.integers(0, size // 3))
        cv2.line(image, (x, foot), (x, foot - int(rng.integers(10, size // 2))), colour(rng), int(rng.integers(1, 8)))
    return grain(image, rng, rng.uniform(0.03, 0.3))


def _house(image: Image, x: int, foot: int, width: int, height: int, rng: np.random.Generator) -> None:
    cv2.rectangle(image, (x, foot - height), (x + width, foot), colour(rng), -1)
    step, window = int(rng.integers(8, 24)), colour(rng)
    for wx in range(x + step // 3, x + width - step // 2, step):
        for wy in range(foot - height + step // 3, foot - step // 2, step):
            cv2.rectangle(image, (wx, wy), (wx + step // 2, wy + step // 2), window, -1)


def room(size: int, rng: np.random.Generator) -> Image:
    """Draw walls, a floor, and rectangles that could be doors, pictures, shelves and screens."""
    image = np.empty((size, size, 3), np.uint8)
    corner, floor = int(size * rng.uniform(0.2, 0.8)), int(size * rng.uniform(0.5, 0.85))
    image[:, :corner], image[:, corner:] = colour(rng, 0.2), colour(rng, 0.2)
    slope = int(rng.integers(-size // 6, size // 6))
    ground = [(0, floor + slope), (corner, floor), (size, floor - slope), (size, size), (0, size)]
    cv2.fillPoly(image, [np.array(ground, np.int32)], colour(rng, 0.25))
    for _ in range(rng.integers(4, 20)):
        x, y = rng.integers(-size // 10, size, 2).tolist()
        width, height = (int(v) for v in size * np.exp(rng.uniform(np.log(0.03), np.log(0.35), 2)))
        cv2.rectangle(image, (x, y), (x + width, y + height), colour(rng), -1)
        if rng.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + width, y + height), colour(rng), int(rng.integers(1, 5)))
        for shelf in range(y, y + height, int(rng.integers(8, 60))):
            cv2.line(image, (x, shelf), (x + width, shelf), colour(rng), 1)
    return grain(image, rng, rng.uniform(0.02, 0.25))


_KINDS: tuple[Callable[[int, np.random.Generator], Image], ...] = (
    noise, cells, checkers, lines, writing, shapes, street, room,
)  # fmt: skip
_WEIGHTS = (0.16, 0.12, 0.06, 0.08, 0.08, 0.16, 0.17, 0.17)
