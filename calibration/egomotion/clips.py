"""Draw labelled clips: scene layers and foreground objects seen by a moving camera, then the camera's own faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from . import textures
from .camera import LABELS, Array, CameraPath, sample_path

Clip = NDArray[np.uint8]

FRAMES = 8
SIZE = 112  # side of a drawn picture in pixels; the model's smaller input is scaled down from it
_CANVAS = 320  # side of the scene that the camera moves over


@dataclass(frozen=True)
class Layer:
    """A layer of the scene: a picture at a depth.

    Attributes:
        image: uint8 (S, S, 3).
        alpha: Opacity, float32 (S, S) in 0 .. 1; None for an opaque layer.
        gain: Parallax, see `CameraPath.homographies`.
        scale: Layer pixels in a picture width.
    """

    image: Clip
    alpha: NDArray[np.float32] | None
    gain: float
    scale: float


@dataclass(frozen=True)
class Sprite:
    """A foreground object that moves by itself.

    Attributes:
        image: uint8 (S, S, 3).
        alpha: Opacity, float32 (S, S) in 0 .. 1.
        path: (K, 4), for each frame x and y of the middle in picture widths, turn in radians, width in picture widths.
        follows: True if the camera's motion moves the object in the picture; False if the object moves along with the
            camera.
    """

    image: Clip
    alpha: NDArray[np.float32]
    path: Array
    follows: bool


def generate_clip(label: str, seed: tuple[int, ...], frames: int = FRAMES, size: int = SIZE) -> Clip:
    """Draw one clip; equal arguments give equal clips.

    Args:
        label: One of `LABELS`.
        seed: Any non-negative integers, such as the split and the clip's number.
        frames: T.
        size: Height and width in pixels.

    Returns:
        uint8 (T, size, size, 3) RGB.
    """
    rng = np.random.default_rng([*seed, LABELS.index(label)])
    path = sample_path(label, rng, frames)
    while True:
        layers = _scene(rng)
        sprites = _cast(rng, frames, 0.75 if label == "still" else 0.5)
        clip = render(path, layers, sprites, rng, frames, size)
        if _has_structure(clip[0]) and _has_structure(clip[-1]):
            return degrade(clip, rng)


def _has_structure(frame: Clip) -> bool:
    """Return whether a third of the picture has structure; on a blank wall no motion can be seen."""
    side = frame.shape[0] // 8
    grey = frame[: 8 * side, : 8 * side].mean(2).reshape(8, side, 8, side)
    return float(np.quantile(grey.std(axis=(1, 3)), 0.67)) > 6.0


def _scene(rng: np.random.Generator) -> list[Layer]:
    """Draw a far layer and sometimes one or two nearer layers with holes."""
    scale = SIZE * np.exp(rng.uniform(np.log(0.7), np.log(1.5)))
    far = textures.picture(_CANVAS, rng)
    if rng.random() < 0.5:
        turn = cv2.getRotationMatrix2D((_CANVAS / 2, _CANVAS / 2), rng.normal(0, 6), 1.0)
        far = np.asarray(cv2.warpAffine(far, turn, (_CANVAS, _CANVAS), borderMode=cv2.BORDER_REFLECT_101), np.uint8)
    layers = [Layer(far, None, 1.0, scale)]
    gain = 1.0
    for _ in range(rng.choice(3, p=[0.55, 0.3, 0.15])):
        gain *= rng.uniform(1.1, 1.6)
        height = textures.fractal(_CANVAS, rng, rng.uniform(0.15, 0.5))
        alpha = ((height - np.quantile(height, rng.uniform(0.6, 0.9))) * 40).clip(0, 1)
        layers.append(Layer(textures.picture(_CANVAS, rng), alpha.astype(np.float32), gain, scale))
    return layers


def _cast(rng: np.random.Generator, frames: int, chance: float) -> list[Sprite]:
    """Draw up to three foreground objects, with probability ``chance``; a large one fills a third of the picture."""
    if rng.random() > chance:
        return []
    count = int(rng.integers(1, 4))
    widest = 1.0 / np.sqrt(count)  # the body covers about 60% of the width's square
    return [_sprite(rng, frames, np.exp(rng.uniform(np.log(0.12), np.log(widest)))) for _ in range(count)]


def _sprite(rng: np.random.Generator, frames: int, width: float) -> Sprite:
    side = 96
    alpha = np.zeros((side, side), np.uint8)
    for _ in range(rng.integers(1, 5)):  # a body of overlapping ellipses
        middle = (rng.uniform(0.35, 0.65, 2) * side).astype(int).tolist()
        axes = (rng.uniform(0.12, 0.34, 2) * side).astype(int).tolist()
        cv2.ellipse(alpha, middle, axes, rng.uniform(0, 180), 0, 360, 255, -1)
    soft = cv2.GaussianBlur(alpha, (5, 5), 0).astype(np.float32) / 255
    times = np.arange(frames + 1.0)
    speed = rng.choice([0.0, 1.0], p=[0.15, 0.85]) * np.exp(rng.uniform(np.log(0.005), np.log(0.07)))
    heading = rng.uniform(0, 2 * np.pi)
    middle = times[:, None] - frames / 2
    place = rng.uniform(-0.35, 0.35, 2) + middle * speed * np.array([np.cos(heading), np.sin(heading)])
    place += rng.normal(0, rng.choice([0.0, 0.008]), place.shape)
    turn = rng.uniform(0, 2 * np.pi) + middle[:, 0] * rng.normal(0, 0.03)
    swell = width * np.exp(middle[:, 0] * rng.normal(0, 0.015))
    path = np.column_stack([place, turn, swell])
    image = textures.picture(side, rng)
    return Sprite(image, soft, path, bool(rng.random() < 0.5))


def render(
    path: CameraPath,
    layers: list[Layer],
    sprites: list[Sprite],
    rng: np.random.Generator,
    frames: int,
    size: int,
) -> Clip:
    """Film the scene along the path. With motion blur, a frame is the mean of pictures within its exposure."""
    blurred = rng.random() < 0.6
    exposure = np.linspace(0, rng.uniform(0.15, 0.9), 4) if blurred else np.zeros(1)
    times = (np.arange(frames)[:, None] + exposure).ravel()
    views = [layer_maps(path, layer, times, size) for layer in layers]
    camera = path.homographies(times)
    clip = np.empty((len(times), size, size, 3), np.float32)
    for i, time in enumerate(times):
        frame = warp(layers[0].image, views[0][i], size).astype(np.float32)
        for layer, maps in zip(layers[1:], views[1:], strict=True):
            assert layer.alpha is not None
            frame = _blend(frame, warp(layer.image, maps[i], size), warp(layer.alpha, maps[i], size))
        for sprite in sprites:
            to_sprite = _sprite_map(sprite, float(time), camera[i] if sprite.follows else np.eye(3), size)
            alpha = cv2.warpPerspective(sprite.alpha, to_sprite, (size, size), flags=_INVERSE)
            frame = _blend(frame, warp(sprite.image, to_sprite, size), alpha)
        clip[i] = frame
    clip = clip.reshape(frames, len(exposure), size, size, 3).mean(1)
    return np.asarray(clip.round(), np.uint8)


_INVERSE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def warp(image: NDArray[Any], to_image: Array, size: int) -> NDArray[Any]:
    """Sample ``image`` at ``to_image`` (3, 3) of every output pixel; beyond its border the image is mirrored."""
    flags, border = _INVERSE, cv2.BORDER_REFLECT_101
    return np.asarray(cv2.warpPerspective(image, to_image, (size, size), flags=flags, borderMode=border))


def _blend(under: NDArray[np.float32], over: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(under + (over - under) * alpha[..., None], np.float32)


def layer_maps(path: CameraPath, layer: Layer, times: Array, size: int) -> Array:
    """Return the maps from output pixels to the layer's pixels at each time, (N, 3, 3)."""
    middle = (layer.image.shape[0] - 1) / 2
    to_canvas = np.array([[layer.scale, 0, middle], [0, layer.scale, middle], [0, 0, 1]])
    return np.asarray(to_canvas @ path.homographies(times, layer.gain) @ from_pixels(size))


def from_pixels(size: int) -> Array:
    """Return the map from pixels to picture widths from the middle, (3, 3)."""
    middle = (size - 1) / 2
    return np.array([[1 / size, 0, -middle / size], [0, 1 / size, -middle / size], [0, 0, 1]])


def _sprite_map(sprite: Sprite, time: float, camera: Array, size: int) -> Array:
    """Return the map from output pixels to the sprite's pixels, (3, 3)."""
    knots = np.arange(len(sprite.path), dtype=np.float64)
    x, y, turn, width = (float(np.interp(time, knots, sprite.path[:, k])) for k in range(4))
    side = sprite.image.shape[0]
    cos, sin = np.cos(turn) / width * side, np.sin(turn) / width * side
    to_sprite = np.array([[cos, sin, side / 2], [-sin, cos, side / 2], [0, 0, 1]])
    shift = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    return np.asarray(to_sprite @ shift @ camera @ from_pixels(size))


def degrade(clip: Clip, rng: np.random.Generator) -> Clip:
    """Add the faults of cameras and codecs: focus, exposure, noise, overlays, dropped frames, compression."""
    clip = _soften(clip, rng)
    clip = _expose(clip, rng)
    if rng.random() < 0.6:
        sigma = rng.choice([rng.uniform(1, 8), rng.uniform(8, 22)], p=[0.8, 0.2])
        grain = rng.standard_normal(clip.shape, np.float32) * sigma
        clip = np.asarray((clip + grain).clip(0, 255), np.uint8)
    if rng.random() < 0.15:
        _overlay(clip, rng)
    if rng.random() < 0.10:  # the camera repeats a frame instead of delivering a new one
        repeated = int(rng.integers(1, len(clip)))
        clip[repeated] = clip[repeated - 1]
    if rng.random() < 0.4:
        clip = _compress(clip, int(rng.integers(20, 90)))
    return np.repeat(clip.mean(3, keepdims=True).astype(np.uint8), 3, axis=3) if rng.random() < 0.1 else clip


def _soften(clip: Clip, rng: np.random.Generator) -> Clip:
    """Simulate a low-resolution source, or a lens out of focus."""
    size = clip.shape[1]
    kind = rng.random()
    if kind < 0.25:
        small = max(8, int(size * rng.uniform(0.35, 0.8)))
        down = (cv2.resize(f, (small, small), interpolation=cv2.INTER_AREA) for f in clip)
        return np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_LINEAR) for f in down]).astype(np.uint8)
    if kind < 0.4:
        sigma = size * rng.uniform(0.004, 0.016)
        return np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in clip]).astype(np.uint8)
    return clip


def _expose(clip: Clip, rng: np.random.Generator) -> Clip:
    """Simulate automatic exposure that drifts, a lamp that flickers, or a dark scene."""
    count = len(clip)
    gains = np.ones(count)
    if rng.random() < 0.3:
        gains *= np.linspace(1.0, np.exp(rng.normal(0, 0.2)), count)
    if rng.random() < 0.15:
        gains *= np.exp(rng.normal(0, rng.uniform(0.02, 0.08), count))
    if rng.random() < 0.1:  # too dark
        gains *= rng.uniform(0.35, 0.7)
    if (gains == 1).all():
        return clip
    return np.asarray((clip * gains[:, None, None, None]).clip(0, 255), np.uint8)


def _overlay(clip: Clip, rng: np.random.Generator) -> None:
    """Draw writing or bars that stay in place onto ``clip``, like those of surveillance and broadcast pictures."""
    size, tint = clip.shape[1], textures.colour(rng)
    x, y = int(rng.integers(2, size // 2)), int(rng.choice([size // 9, size - size // 20]))
    text = "".join(chr(c) for c in rng.integers(48, 91, rng.integers(4, 14)))
    bar = int(size * rng.uniform(0.04, 0.1)) if rng.random() < 0.4 else 0
    scale = size / 112 * rng.uniform(0.25, 0.45)
    for frame in clip:
        if bar:
            frame[:bar] = frame[-bar:] = 0
        cv2.putText(frame, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, tint, 1, cv2.LINE_AA)


def _compress(clip: Clip, quality: int) -> Clip:
    """Compress each frame with JPEG, whose blocks and ringing do not move with the scene."""
    frames = []
    for frame in clip:
        _, coded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        frames.append(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8))
    return np.stack(frames)
