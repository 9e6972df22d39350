"""Raw frames, which do not say what they are: the user gives their format."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError, UsageError
from .base import LARGEST_SIDE

# For each format of pixels: bytes per pixel, and OpenCV's code for the conversion to BGR.
_PIXELS: dict[str, tuple[float, int | None]] = {
    "bgr": (3, None),
    "rgb": (3, cv2.COLOR_RGB2BGR),
    "grey": (1, cv2.COLOR_GRAY2BGR),
    "yuyv": (2, cv2.COLOR_YUV2BGR_YUY2),
    "nv12": (1.5, cv2.COLOR_YUV2BGR_NV12),
    "i420": (1.5, cv2.COLOR_YUV2BGR_I420),
}


@dataclass(frozen=True)
class RawFormat:
    """The format of raw frames on the standard input.

    Args:
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.
        pixels: Format of the pixels: `bgr`, `rgb`, `grey`, `yuyv`, `nv12` or `i420`, with no gaps between the rows.
        fps: Frames per second, or None if not known.

    Raises:
        UsageError: A value is out of range, or the format of the pixels needs even sides.
    """

    width: int
    height: int
    pixels: str
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.pixels not in _PIXELS:
            raise UsageError(f"unknown raw pixels {self.pixels!r}: there are {', '.join(_PIXELS)}")
        if not (0 < self.width <= LARGEST_SIDE and 0 < self.height <= LARGEST_SIDE):
            raise UsageError(f"raw frames of {self.width}x{self.height}: sides are from 1 to {LARGEST_SIDE}")
        if (self.width % 2 and self.pixels in ("yuyv", "nv12", "i420")) or (
            self.height % 2 and self.pixels in ("nv12", "i420")
        ):
            raise UsageError(f"{self.pixels} needs even sides, not {self.width}x{self.height}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"frames per second must be over 0 and at most 1000, not {self.fps:g}")

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read a text such as `raw:640x480:bgr` or `raw:640x480:bgr:30`.

        Raises:
            UsageError: The text has another form, or a value is out of range.
        """
        match = re.fullmatch(r"raw:(\d{1,5})x(\d{1,5}):(\w+)(?::(\d+(?:\.\d+)?))?", text)
        if match is None:
            raise UsageError(f"{text!r} is no raw format: give raw:WIDTHxHEIGHT:PIXELS:FPS, say raw:640x480:bgr:30")
        return cls(int(match[1]), int(match[2]), match[3].lower(), float(match[4]) if match[4] else None)

    @property
    def size(self) -> int:
        """Number of bytes of a frame."""
        return int(self.width * self.height * _PIXELS[self.pixels][0])

    def to_bgr(self, content: bytes) -> npt.NDArray[np.uint8]:
        """Convert the bytes of a frame to a picture, uint8 (height, width, 3) BGR."""
        flat = np.frombuffer(content, np.uint8)
        code = _PIXELS[self.pixels][1]
        planar = self.pixels in ("nv12", "i420")
        shape = (self.height * 3 // 2, self.width) if planar else (self.height, self.width, -1)
        packed: npt.NDArray[np.uint8] = flat.reshape(shape)
        image: npt.NDArray[np.uint8] = packed if code is None else cv2.cvtColor(packed, code)
        return image


class RawReader:
    """Reads raw frames from a stream.

    Args:
        stream: The stream, binary, readable and blocking.
        form: The format of the frames.
    """

    def __init__(self, stream: IO[bytes], form: RawFormat) -> None:
        self._stream = stream
        self._form = form
        self.fps = form.fps

    def read(self) -> npt.NDArray[np.uint8] | None:
        """Return the next frame, uint8 (H, W, 3) BGR, or None at the end.

        Raises:
            SourceError: The stream breaks off within a frame.
        """
        content = self._stream.read(self._form.size)
        if not content:
            return None
        if len(content) != self._form.size:
            raise SourceError("the raw frames break off within a frame: are size and pixels right?")
        return self._form.to_bgr(content)
