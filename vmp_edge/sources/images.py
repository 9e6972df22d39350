"""Folders of pictures, which are played as a video."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError
from .base import USUAL_FPS, Frame
from .capture import quieten_opencv

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFolder:
    """The pictures of a folder, sorted by the numbers in their names: `2.png` comes before `10.png`.

    Args:
        folder: The folder. Files that are not pictures, hidden files (`._1.png`), and folders in it are ignored.
        fps: Pictures per second. None takes 30.

    Raises:
        SourceError: The folder has no pictures, or cannot be read.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        quieten_opencv()
        self.name = str(folder)
        self.live = False
        self.fps: float | None = fps or USUAL_FPS
        try:
            pictures = [path for path in folder.iterdir() if _is_picture(path)]
        except OSError as error:
            raise SourceError(f"the folder {folder} cannot be read: {error.strerror}") from error
        if not pictures:
            raise SourceError(f"the folder {folder} has no pictures ({', '.join(sorted(SUFFIXES))}) in it")
        self.frame_count: int | None = len(pictures)
        self._paths = sorted(pictures, key=_sort_key)
        self._index = 0
        self._closed = False

    def read(self) -> Frame | None:
        """Return the next picture, or None at the end and after `close`.

        Raises:
            SourceError: The file cannot be read as a picture.
        """
        if self._closed or self._index == len(self._paths):
            return None
        path, timestamp = self._paths[self._index], self._index / (self.fps or USUAL_FPS)
        self._index += 1
        try:
            content = np.fromfile(path, np.uint8)  # OpenCV cannot open every name, but it can decode what is read
            image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}") from error
        except cv2.error:  # for example a picture with too many pixels
            image = None
        if image is None:
            raise SourceError(f"{path} cannot be read as a picture: take it out of the folder")
        return Frame(np.asarray(image, np.uint8), timestamp)

    def close(self) -> None:
        """Close the source."""
        self._closed = True


def _is_picture(path: Path) -> bool:
    """Return whether a file is a picture by its name. Hidden files are none: macOS writes `._1.png` beside `1.png`."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _sort_key(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts the numbers in names by value, and the text between them without regard to case."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
