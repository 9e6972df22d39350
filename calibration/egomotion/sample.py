"""Draw the demo's clip: ``python -m vmp_edge.calibration.egomotion.sample --output assets``.

The clip shows a town that is in no training clip. The camera makes all ten motions, with a rest after each. The command
writes the clip, ``egomotion-sample.mp4``, and the true label of every moment, ``egomotion-sample.yaml``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from vmp_edge.files import whole
from vmp_edge.video import open_encoder

from . import textures
from .camera import DIRECTIONS, FPS, LABELS, PAN, ROLL, TILT, ZOOM, Array, homographies
from .camera import shake as shake_knots

SEED = 4  # differs from the seeds of `dataset.SPLITS` and `footage`
NAME = "egomotion-sample"
WIDTH, HEIGHT, RATE = 480, 270, 15.0
MOVE, REST = 2.5, 0.9  # seconds
# How far each axis goes in a move: picture heights, picture heights, radians, log magnification
_TRAVEL = {PAN: 0.85, TILT: 0.55, ROLL: 1.1, ZOOM: 0.75}
_FOV = np.deg2rad(38.0)
_CANVAS = 1400
_SCALE = 380  # canvas pixels to a picture height
_SHAKE = 0.03  # mean step per frame, picture heights
_SUBFRAMES = 4
_EXPOSURE = 0.4  # share of a frame's duration
_SOFTNESS = 0.7  # pixels; with a sharper picture OpenCV's encoder writes more than 2 MB


@dataclass(frozen=True)
class Segment:
    """One label from ``start`` to ``end``, in seconds."""

    label: str
    start: float
    end: float


def script() -> list[Segment]:
    """Return the camera's motions in order: each label once, and ``still`` between them."""
    segments = [Segment("still", 0.0, REST + 1.0)]
    for label in LABELS[1:]:
        start = segments[-1].end
        segments.append(Segment(label, start, start + MOVE))
        segments.append(Segment("still", start + MOVE, start + MOVE + REST))
    return [Segment(s.label, round(s.start, 3), round(s.end, 3)) for s in segments]


def poses(times: Array, segments: list[Segment], rng: np.random.Generator) -> Array:
    """Return camera poses (N, 4) at ``times`` (N,) in seconds."""
    path = np.zeros((len(times), 4))
    for segment in segments:
        inside = (times >= segment.start) & (times < segment.end)
        if segment.label == "shake":
            frames = np.arange(0, (segment.end - segment.start) * FPS * 8 + 1) / 8
            knots = shake_knots(frames, rng)
            knots *= _SHAKE / np.abs(np.diff(knots[::8], axis=0)).sum(1).mean()
            edge = np.minimum(1, 4 * np.minimum(frames, frames[-1] - frames) / FPS)[:, None]
            at = (times[inside] - segment.start) * FPS
            path[inside] += np.stack([np.interp(at, frames, (knots * edge)[:, k]) for k in range(4)], axis=1)
        elif segment.label in DIRECTIONS:
            axis, sign = DIRECTIONS[segment.label]
            share = np.clip((times - segment.start) / (segment.end - segment.start), 0, 1)
            path[:, axis] += sign * _TRAVEL[axis] * _ease(share)
    return path


def _ease(share: Array, ramp: float = 0.12) -> Array:
    """Map 0 .. 1 to 0 .. 1 at a constant speed, apart from a soft start and a soft end of length ``ramp``."""
    speed = 1 / (1 - ramp)
    start, end = speed * share**2 / (2 * ramp), 1 - speed * (1 - share) ** 2 / (2 * ramp)
    return np.where(share < ramp, start, np.where(share > 1 - ramp, end, speed * (share - ramp / 2)))


def town(rng: np.random.Generator) -> textures.Image:
    """Draw houses under a cloudy sky, (1400, 1400, 3)."""
    size = _CANVAS
    horizon = size // 2 + 110
    clouds = cv2.GaussianBlur(textures.fractal(size, rng, 0.5), (0, 0), 3)
    blue = np.linspace(0, 1, size)[:, None, None] * np.array([70, 60, 30]) + np.array([110, 150, 200])
    white = (2.2 * clouds - 0.9).clip(0, 1)[..., None]
    image: textures.Image = (blue + (245 - blue) * white).astype(np.uint8)
    hills = horizon - 60 - (110 * np.interp(np.arange(size), np.linspace(0, size, 9), rng.random(9))).astype(int)
    for x in range(size):
        image[hills[x] :, x] = (96, 122, 92)
    for row, (foot, count) in enumerate(((horizon, 15), (horizon + 60, 11), (horizon + 150, 8))):
        for place in np.linspace(-60, size, count):
            _house(image, int(place + rng.integers(-30, 30)), foot, 70 + 34 * row, rng)
        image[foot : foot + 60 + 60 * row] = (126 - 14 * row, 134 - 8 * row, 112 - 18 * row)
    image[horizon + 190 :] = (92, 92, 98)
    for x in range(-200, size, 150):
        stripe = np.array(
            [(x, horizon + 290), (x + 80, horizon + 290), (x + 70, horizon + 306), (x - 14, horizon + 306)]
        )
        cv2.fillPoly(image, [stripe.astype(np.int32)], (225, 225, 215), cv2.LINE_AA)
    for _ in range(16):
        x, foot = int(rng.integers(0, size)), horizon + int(rng.integers(30, 210))
        _tree(image, x, foot, int(rng.integers(50, 110)), rng)
    return image


def _house(image: textures.Image, x: int, foot: int, width: int, rng: np.random.Generator) -> None:
    """Draw a house with a roof, windows and a door."""
    width = int(width * rng.uniform(0.8, 1.3))
    height = int(width * rng.uniform(0.8, 1.9))
    wall = tuple(int(v) for v in rng.uniform(105, 235) + rng.uniform(-35, 35, 3))
    cv2.rectangle(image, (x, foot - height), (x + width, foot), wall, -1)
    roof = np.array(
        [(x - 6, foot - height), (x + width + 6, foot - height), (x + width // 2, foot - height - width // 3)]
    )
    cv2.fillPoly(image, [roof.astype(np.int32)], (int(rng.integers(110, 190)), 70, 55), cv2.LINE_AA)
    step = max(18, width // 4)
    glass = (55, 70, 95) if rng.random() < 0.7 else (240, 220, 140)
    for wx in range(x + step // 3, x + width - step // 2, step):
        for wy in range(foot - height + step // 2, foot - step, step):
            cv2.rectangle(image, (wx, wy), (wx + step // 2, wy + step // 2), glass, -1)
            cv2.rectangle(image, (wx, wy), (wx + step // 2, wy + step // 2), (235, 235, 230), 1)
    cv2.rectangle(image, (x + width // 2 - 7, foot - 24), (x + width // 2 + 7, foot), (80, 55, 45), -1)


def _tree(image: textures.Image, x: int, foot: int, height: int, rng: np.random.Generator) -> None:
    cv2.line(image, (x, foot), (x, foot - height // 2), (85, 62, 45), max(3, height // 12))
    for _ in range(9):
        dx, dy = rng.normal(0, height / 6, 2)
        green = (int(rng.integers(40, 80)), int(rng.integers(95, 150)), int(rng.integers(40, 75)))
        place = (int(x + dx), int(foot - height * 0.75 + dy))
        cv2.circle(image, place, int(height * rng.uniform(0.12, 0.24)), green, -1, cv2.LINE_AA)


def frames(rng: np.random.Generator, segments: list[Segment]) -> NDArray[np.uint8]:
    """Film the town, where two balls bounce along the street: (N, 270, 480, 3) RGB at 15 frames per second."""
    scene = town(rng)
    moments = np.arange(round(segments[-1].end * RATE)) / RATE
    exposure = np.linspace(0, _EXPOSURE / RATE, _SUBFRAMES)
    track = poses((moments[:, None] + exposure).ravel(), segments, rng)
    to_picture = np.array(
        [[1 / HEIGHT, 0, -(WIDTH - 1) / 2 / HEIGHT], [0, 1 / HEIGHT, -(HEIGHT - 1) / 2 / HEIGHT], [0, 0, 1]]
    )
    middle = (_CANVAS - 1) / 2
    to_scene = np.array([[_SCALE, 0, middle], [0, _SCALE, middle + 90], [0, 0, 1.0]])
    maps = (to_scene @ homographies(track, float(_FOV)) @ to_picture).reshape(len(moments), _SUBFRAMES, 3, 3)
    clip = np.empty((len(moments), HEIGHT, WIDTH, 3), np.uint8)
    for i, moment in enumerate(moments):
        live = scene.copy()
        for start, speed, tint in ((300, 52, (215, 60, 50)), (1150, -38, (240, 190, 40))):
            bounce = 46 * abs(np.sin(3.1 * moment + start))
            place = (int(start + speed * moment), int(middle + 240 - bounce))
            cv2.circle(live, place, 20, tint, -1, cv2.LINE_AA)
        views = [warp_wide(live, to_pixels) for to_pixels in maps[i]]
        clip[i] = cv2.GaussianBlur(np.mean(views, axis=0), (0, 0), _SOFTNESS).round()
    return clip


def warp_wide(image: textures.Image, to_image: Array) -> NDArray[np.float32]:
    """Warp like `clips.warp`, in the sample's shape and at twice its size, which is then halved to avoid aliasing."""
    flags, border = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101
    finer = to_image @ np.diag([0.5, 0.5, 1.0])
    view = cv2.warpPerspective(image, finer, (2 * WIDTH, 2 * HEIGHT), flags=flags, borderMode=border)
    return np.asarray(cv2.resize(view, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA), np.float32)


def write(folder: Path) -> None:
    """Write the clip and its true labels into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, segments = np.random.default_rng(SEED), script()
    with whole(folder / f"{NAME}.mp4") as place:
        encoder = open_encoder(place, RATE, (WIDTH, HEIGHT))
        for frame in frames(rng, segments):
            encoder.write(np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), np.uint8))
        encoder.close()
    truth = {
        "video": f"{NAME}.mp4",
        "labels": list(LABELS),
        "segments": [{"label": s.label, "start": s.start, "end": s.end} for s in segments],
    }
    (folder / f"{NAME}.yaml").write_text(
        "# What the camera does in the clip, in seconds. Drawn by calibration/egomotion/sample.py.\n"
        + yaml.safe_dump(truth, sort_keys=False, default_flow_style=None)
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vmp_edge.calibration.egomotion.sample", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the clip and its true labels")
    write(parser.parse_args(arguments).output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
