"""Define the ten labels: random camera paths, and the homographies that they cause in the picture.

A pose is four numbers: pan and tilt in picture widths (how far the optical axis has moved over the scene, right and
up positive), roll in radians (clockwise as seen from behind the camera positive) and zoom as the natural logarithm of
the magnification. Picture coordinates are x to the right and y down, so that the picture moves against the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LABELS = (
    "still",
    "pan-left",
    "pan-right",
    "tilt-up",
    "tilt-down",
    "zoom-in",
    "zoom-out",
    "roll-clockwise",
    "roll-counter-clockwise",
    "shake",
)
FPS = 15.0  # frame rate of all speeds below
PAN, TILT, ROLL, ZOOM = range(4)
# label -> (axis of the pose, sign)
DIRECTIONS = {
    "pan-left": (PAN, -1),
    "pan-right": (PAN, 1),
    "tilt-up": (TILT, 1),
    "tilt-down": (TILT, -1),
    "zoom-in": (ZOOM, 1),
    "zoom-out": (ZOOM, -1),
    "roll-clockwise": (ROLL, 1),
    "roll-counter-clockwise": (ROLL, -1),
}
# Slowest and fastest mean speed per frame: picture widths, picture widths, radians, log magnification.
# Zoom and roll act over half a picture, hence twice the numbers for the same speed at the border.
SPEEDS = {PAN: (0.007, 0.06), TILT: (0.007, 0.06), ROLL: (0.014, 0.10), ZOOM: (0.014, 0.075)}
# Amounts of motion on the four axes that count as equal
_SCALE = np.array([1.0, 1.0, 2.0, 2.0])
_SUBSTEPS = 8


@dataclass(frozen=True)
class CameraPath:
    """A camera's poses over one clip.

    Attributes:
        label: One of `LABELS`.
        knots: Poses (K, 4) at the times 0, 1/8, 2/8 .. T in frames. The time after frame T - 1 is for its exposure.
        fov: Horizontal angle of view in radians.
        centre: The fixed point of zoom and roll, in picture widths from the middle.
    """

    label: str
    knots: Array
    fov: float
    centre: tuple[float, float]

    def poses(self, times: Array) -> Array:
        """Return the poses (N, 4) at ``times`` (N,), in frames."""
        grid = np.arange(len(self.knots)) / _SUBSTEPS
        return np.stack([np.interp(times, grid, self.knots[:, axis]) for axis in range(4)], axis=1)

    def homographies(self, times: Array, gain: float = 1.0) -> Array:
        """Return the maps from picture to scene, (N, 3, 3), both in picture widths from the middle.

        Args:
            times: (N,), in frames.
            gain: Parallax: how many times as fast as the far scene this layer moves when the camera pans, tilts or
                zooms.
        """
        poses = self.poses(times) * np.array([gain, gain, 1.0, gain])
        return homographies(poses, self.fov, self.centre)


def homographies(poses: Array, fov: float, centre: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Return the rotation homography K R K_t^-1 of each pose, from picture to scene.

    Args:
        poses: (N, 4), see the module's docstring.
        fov: Horizontal angle of view in radians at zoom 0.
        centre: The fixed point of zoom and roll.

    Returns:
        (N, 3, 3); coordinates are in picture widths from the middle.
    """
    focal = 0.5 / np.tan(fov / 2)
    yaw, pitch, roll = poses[:, PAN] / focal, poses[:, TILT] / focal, poses[:, ROLL]
    zero, one = np.zeros(len(poses)), np.ones(len(poses))

    def matrix(*rows: tuple[Array, Array, Array]) -> Array:
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    look_right = matrix((np.cos(yaw), zero, np.sin(yaw)), (zero, one, zero), (-np.sin(yaw), zero, np.cos(yaw)))
    look_up = matrix((one, zero, zero), (zero, np.cos(pitch), -np.sin(pitch)), (zero, np.sin(pitch), np.cos(pitch)))
    # Zoom and roll come first. They act on the picture, around the fixed point.
    scale = np.exp(-poses[:, ZOOM])
    cos, sin = scale * np.cos(roll), scale * np.sin(roll)
    cx, cy = centre
    in_picture = matrix((cos, -sin, cx - cos * cx + sin * cy), (sin, cos, cy - sin * cx - cos * cy), (zero, zero, one))
    to_ray = np.diag([1 / focal, 1 / focal, 1.0])
    return np.diag([focal, focal, 1.0]) @ look_right @ look_up @ to_ray @ in_picture


def sample_path(label: str, rng: np.random.Generator, frames: int = 8) -> CameraPath:
    """Draw a random camera path.

    Args:
        label: One of `LABELS`.
        rng: Source of all randomness.
        frames: Number of frames of the clip.

    Returns:
        A path whose pose in the middle of the clip is zero.
    """
    times = np.arange(frames * _SUBSTEPS + 1) / _SUBSTEPS
    knots = np.zeros((len(times), 4))
    if label == "shake":
        knots += shake(times, rng)
    elif label != "still":
        axis, sign = DIRECTIONS[label]
        slow, fast = SPEEDS[axis]
        speed = np.exp(rng.uniform(np.log(slow), np.log(fast)))
        knots += _drift(times, axis, sign * speed, rng)
    tremor = rng.choice([0.0, 1.0], p=[0.25, 0.75]) * rng.uniform(0, 0.0015)
    knots += _tremor(times, tremor, rng)
    knots -= knots[len(knots) // 2]
    centre = tuple(rng.uniform(-0.12, 0.12, 2)) if label.startswith(("zoom", "roll")) else (0.0, 0.0)
    return CameraPath(label, knots, float(np.deg2rad(rng.uniform(20, 65))), (float(centre[0]), float(centre[1])))


def _drift(times: Array, axis: int, speed: float, rng: np.random.Generator) -> Array:
    """Return knots of a motion along one axis at a changing speed, with up to 30% of it along the other axes."""
    ramp = np.ones_like(times)
    if rng.random() < 0.6:  # eased: speeds up, slows down, or swells
        phase, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
        ramp = 1 + depth * np.sin(np.pi * times / times[-1] * rng.uniform(0.5, 1.5) + phase)
        ramp /= ramp.mean()
    direction = rng.normal(0, 0.10, 4).clip(-0.3, 0.3) * _SCALE / _SCALE[axis]
    direction[axis] = 1.0
    distance = np.concatenate([[0.0], np.cumsum(ramp[:-1])]) / _SUBSTEPS * speed
    return np.outer(distance, direction)


def shake(times: Array, rng: np.random.Generator) -> Array:
    """Return knots of two to four waves of 2.5 to 6.5 Hz along a random direction, without net drift."""
    angle = rng.uniform(0, 2 * np.pi)
    main = np.array([np.cos(angle), np.sin(angle), rng.normal(0, 0.5), rng.normal(0, 0.1)])
    knots = np.zeros((len(times), 4))
    for _ in range(rng.integers(2, 5)):
        frequency = rng.uniform(2.5, 6.5) / FPS
        wave = np.sin(2 * np.pi * (frequency * times + rng.random()))
        knots += np.outer(wave, rng.uniform(0.4, 1.0) * (main + rng.normal(0, 0.35, 4) * _SCALE))
    frame = times == np.floor(times)
    slope = np.polyfit(times[frame], knots[frame], 1)[0]
    knots -= np.outer(times, slope)
    step = np.abs(np.diff(knots[frame], axis=0) / _SCALE).sum(1).mean()
    return np.asarray(knots / step * np.exp(rng.uniform(np.log(0.014), np.log(0.07))))


def _tremor(times: Array, amplitude: float, rng: np.random.Generator) -> Array:
    """Return knots of a hand that tries to hold still: smooth noise of a few thousandths of the picture, no trend."""
    nodes = np.arange(int(times[-1]) + 2)
    noise = rng.normal(0, amplitude, (len(nodes), 4)) * np.array([1.0, 1.0, 1.0, 0.5])
    slope = np.polyfit(nodes, noise, 1)[0]
    noise -= np.outer(nodes, slope)
    return np.stack([np.interp(times, nodes, noise[:, axis]) for axis in range(4)], axis=1)


PathSampler = Callable[[str, np.random.Generator, int], CameraPath]
