"""Preprocessing: turn camera frames into the model's input.

The recogniser, the stream, calibration and training all use `Preprocessing`, and a bundle's manifest records its
options. A device thus prepares frames exactly as they were prepared in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from .errors import UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE_MODES = ("stretch", "crop", "letterbox")
INTERPOLATIONS = ("area", "linear")
LARGEST_IMAGE = 4096  # pixels
LARGEST_VALUE = 1000.0  # of mean and std, whose scale is from 0 to 1
SMALLEST_STD = 1e-6


@dataclass(frozen=True)
class Preprocessing:
    """Resizes frames, orders their channels as RGB and normalises them: `(pixel / 255 - mean) / std`.

    This is the arithmetic of the published models.

    Args:
        image_size: Side S of the square that the model takes, in pixels.
        resize: `stretch` scales both sides to S; `crop` scales the shorter side to S and keeps the centre; `letterbox`
            scales the longer side to S and fills the rest with the mean colour (0 after normalising).
        mean: Mean of each channel, red first, on a scale from 0 to 1.
        std: Standard deviation of each channel, red first, on the same scale.
        interpolation: `area` averages the covered pixels when shrinking, which avoids aliasing, so that distant motion
            does not flicker; when growing it is bilinear. `linear` is always bilinear.

    Raises:
        UsageError: A value is out of range or unknown.
    """

    image_size: int
    resize: str = "stretch"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "area"

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or isinstance(self.image_size, bool) or self.image_size < 1:
            raise UsageError(f"image_size must be a positive whole number, not {self.image_size!r}")
        if self.image_size > LARGEST_IMAGE:
            raise UsageError(f"image_size must be at most {LARGEST_IMAGE} pixels, not {self.image_size}")
        if self.resize not in RESIZE_MODES:
            raise UsageError(f"resize must be one of {', '.join(RESIZE_MODES)}, not {self.resize!r}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}")
        object.__setattr__(self, "mean", _three_numbers("mean", self.mean, -LARGEST_VALUE))
        object.__setattr__(self, "std", _three_numbers("std", self.std, SMALLEST_STD))

    @classmethod
    def from_manifest(cls, entry: Mapping[str, Any], image_size: int) -> Preprocessing:
        """Read a manifest's `preprocessing` entry.

        Raises:
            UsageError: A key is missing or unknown, or its value is out of range.
        """
        expected = {"resize", "mean", "std", "interpolation"}
        if set(entry) != expected:
            raise UsageError(f"expected the keys {', '.join(sorted(expected))}, found {', '.join(map(str, entry))}")
        return cls(image_size, **entry)

    def to_manifest(self) -> dict[str, Any]:
        """Return the manifest's `preprocessing` entry. The image size is not in it: it belongs to the `input` entry."""
        return {
            "resize": self.resize,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }

    def frame(self, frame: npt.NDArray[np.uint8], out: npt.NDArray[np.float32], bgr: bool = False) -> None:
        """Prepare one frame and write the result into `out`.

        Args:
            frame: Frame, uint8 (H, W, 3), of any H and W.
            out: Array float32 (3, S, S), which may be a view. Every value in it is written.
            bgr: True if the frame's channels are blue, green, red (OpenCV's order), not red, green, blue.

        Raises:
            UsageError: The frame has another shape or dtype.
        """
        check_frame(frame)
        size = self.image_size
        left, top, pixels = self._resize(frame)
        height, width = pixels.shape[:2]
        if (height, width) != (size, size):
            out[...] = 0.0
        for channel in range(3):
            plane = pixels[:, :, 2 - channel if bgr else channel]
            target = out[channel, top : top + height, left : left + width]
            np.take(self._table[channel], plane, out=target, mode="clip")  # "clip": no bounds check, no buffering

    def picture(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the resized frame, without normalising it.

        `frame` gives the same values for the returned picture as for the original frame.

        Args:
            frame: Frame, uint8 (H, W, 3), of any H and W.

        Returns:
            The picture, uint8 (h, w, 3), with h and w at most S and the channels in their original order. It may share
            the frame's memory.

        Raises:
            UsageError: The frame has another shape or dtype.
        """
        check_frame(frame)
        return self._resize(frame)[2]

    def clip(self, clip: npt.NDArray[np.uint8], out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Prepare a clip.

        Args:
            clip: Clip, uint8 (T, H, W, 3) RGB.
            out: Array float32 (1, 3, T, S, S) to write into. None allocates one with `empty_video`.

        Returns:
            The video, float32 (1, 3, T, S, S): `out`, or the allocated array.

        Raises:
            UsageError: The clip has another shape or dtype.
        """
        check_clip_shape(clip)
        if out is None:
            out = empty_video(len(clip), self.image_size)
        for index, frame in enumerate(clip):
            self.frame(frame, out[0, :, index])
        return out

    @cached_property
    def _table(self) -> npt.NDArray[np.float32]:
        """The normalised value of each pixel value, float32 (3, 256).

        Looking the values up takes one pass over the pixels and gives the same bits on every machine.
        """
        pixels = np.arange(256, dtype=np.float64) / 255
        table = (pixels - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return np.ascontiguousarray(table, dtype=np.float32)

    def _resize(self, frame: npt.NDArray[np.uint8]) -> tuple[int, int, npt.NDArray[np.uint8]]:
        """Resize a frame. Return the picture's position in the square (left, top), and the picture."""
        size = self.image_size
        height, width = frame.shape[:2]
        if self.resize == "crop":
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            return 0, 0, self._scale(frame[top : top + side, left : left + side], size, size)
        if self.resize == "letterbox":
            longer = max(height, width)
            new_width, new_height = max(1, round(width * size / longer)), max(1, round(height * size / longer))
            scaled = self._scale(frame, new_width, new_height)
            return (size - new_width) // 2, (size - new_height) // 2, scaled
        return 0, 0, self._scale(frame, size, size)

    def _scale(self, frame: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
        if frame.shape[:2] == (height, width):
            return frame
        shrinks = frame.shape[0] * frame.shape[1] > height * width
        method = cv2.INTER_AREA if self.interpolation == "area" and shrinks else cv2.INTER_LINEAR
        scaled: npt.NDArray[np.uint8] = cv2.resize(frame, (width, height), interpolation=method)
        return scaled


def empty_video(frames: int, image_size: int) -> npt.NDArray[np.float32]:
    """Allocate one video, float32 (1, 3, T, S, S), in which the memory of each frame is contiguous.

    Frames can then be written one by one, and an engine that takes frame after frame can read them in place.
    """
    frame_by_frame = np.empty((1, frames, 3, image_size, image_size), np.float32)
    return np.transpose(frame_by_frame, (0, 2, 1, 3, 4))


def check_frame(frame: object) -> None:
    """Raise UsageError unless `frame` is a uint8 (H, W, 3) array with at least one pixel."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise UsageError(f"a frame is a uint8 array (height, width, 3), not {describe_array(frame)}")
    if 0 in frame.shape:
        raise UsageError(f"a frame needs pixels, not the shape {frame.shape}")


def check_clip_shape(clip: object) -> None:
    """Raise UsageError unless `clip` is a uint8 (T, H, W, 3) array with at least one frame."""
    if not isinstance(clip, np.ndarray) or clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3:
        raise UsageError(f"a clip is a uint8 array (frames, height, width, 3), not {describe_array(clip)}")
    if 0 in clip.shape:
        raise UsageError(f"a clip needs at least one frame with pixels, not the shape {clip.shape}")


def check_array(name: str, array: object, shape: tuple[int, ...]) -> None:
    """Raise UsageError unless an array is float32, has the shape and is C-contiguous."""
    fits = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.shape == shape
    if not fits or not array.flags.c_contiguous:  # type: ignore[attr-defined]
        raise UsageError(f"{name} for this bundle: float32 {shape} in one piece, not {describe_array(array)}")


def describe_array(value: object) -> str:
    """Return the dtype and shape of an array, or the type of anything else, for error messages."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _three_numbers(name: str, values: Sequence[float], least: float) -> tuple[float, float, float]:
    numbers = tuple(values) if isinstance(values, (list, tuple)) else ()
    are_numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
    if len(numbers) != 3 or not are_numbers:
        raise UsageError(f"{name} must be three numbers (red, green, blue), not {values!r:.80}")
    if name == "std" and min(numbers) <= 0:
        raise UsageError(f"std must be positive, not {list(numbers)!r:.80}")
    if not all(least <= v <= LARGEST_VALUE for v in numbers):  # false for NaN, too
        raise UsageError(f"{name} must be three numbers from {least:g} to {LARGEST_VALUE:g}, not {list(numbers)!r:.80}")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
