"""Encoding of video files: H.264 if any encoder for it is there, because no browser plays what OpenCV writes.

`open_encoder` tries PyAV, the program `ffmpeg`, OpenCV's H.264, and at last OpenCV's MPEG-4 part 2, with a note.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError, VmpError
from ..installation import install_command
from .names import borrowed_name

SUFFIXES = (".mp4", ".m4v", ".mkv", ".avi")
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mkv": "matroska"}  # FFmpeg's names
QUALITY = 23  # of H.264 as FFmpeg counts it: 18 looks like the original, 28 is visibly worse


class EncodingError(VmpError):
    """A video file cannot be written."""


class Encoder(Protocol):
    """Writes pictures of one size to a video file.

    Attributes:
        note: What the user should know about the file, as a sentence. None if there is nothing to know.
    """

    note: str | None

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Add a picture, uint8 (H, W, 3) BGR.

        Raises:
            EncodingError: The picture cannot be encoded or written, for example because the disk is full.
        """
        ...

    def close(self) -> None:
        """Complete the file.

        Raises:
            EncodingError: The file cannot be completed.
        """
        ...


def open_encoder(path: Path, fps: float, size: tuple[int, int]) -> Encoder:
    """Open a video file to write it.

    Args:
        path: The file. Its suffix decides: `.mp4`, `.m4v` and `.mkv` become H.264, `.avi` becomes MJPEG.
        fps: Frames per second.
        size: Width and height of the pictures. An odd side gets one more pixel in H.264, which has no odd sides.

    Raises:
        EncodingError: The file cannot be opened, or no encoder takes the size.
    """
    suffix = path.suffix.lower()
    if suffix == ".avi":
        return OpencvEncoder(path, fps, size, "MJPG")
    problems: list[str] = []
    for make in _h264_encoders():
        try:
            encoder: Encoder = make(path, exact_rate(fps), size)
        except EncodingError as error:
            problems.append(str(error))
            continue
        return encoder
    try:
        return OpencvEncoder(path, fps, size, "avc1")
    except EncodingError:
        encoder = OpencvEncoder(path, fps, size, "mp4v")
    encoder.note = "there is no encoder for H.264, so clips and recordings are MPEG-4 part 2, which no browser plays; "
    encoder.note += (
        f"run: {install_command('video')}" if not problems else f"what is there cannot write this ({problems[0]})"
    )
    return encoder


def _h264_encoders() -> Iterator[Any]:
    """Yield the classes of encoders that may work here. Each is imported only when its turn comes."""
    if importlib.util.find_spec("av") is not None:
        try:
            from .pyav_encoder import PyavEncoder

            yield PyavEncoder
        except (ImportError, OSError):  # a library that PyAV needs is missing
            pass
    from .ffmpeg_encoder import FfmpegEncoder, has_h264

    if has_h264():
        yield FfmpegEncoder


def exact_rate(fps: float) -> Fraction:
    """Return a frame rate as a fraction: 29.97 and the like are thousands over 1001."""
    return Fraction(fps).limit_denominator(1001)


def even(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a picture with even sides: an odd side gets its last row or column twice."""
    bottom, right = image.shape[0] % 2, image.shape[1] % 2
    if not bottom and not right:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)


class OpencvEncoder:
    """A video file that OpenCV writes. OpenCV does not say when a write fails.

    Args:
        path: The file.
        fps: Frames per second.
        size: Width and height of the pictures.
        codec: Four characters.

    Raises:
        EncodingError: OpenCV cannot write this codec, format or size.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int], codec: str) -> None:
        self.note: str | None = None
        try:
            with borrowed_name(path) as name:
                self._writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*codec), fps, size)
        except SourceError as error:
            raise EncodingError(str(error)) from error
        if not self._writer.isOpened():
            self._writer.release()
            raise EncodingError(f"OpenCV cannot write {codec} to {path.suffix} in the size {size[0]}x{size[1]}")

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Add a picture, uint8 (H, W, 3) BGR."""
        self._writer.write(image)

    def close(self) -> None:
        """Complete the file."""
        self._writer.release()
