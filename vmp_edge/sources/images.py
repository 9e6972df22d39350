"""Folders of pictures, played as a video."""

from __future__ import annotations

import re
from pathlib import Path

import cv2

from ..errors import SourceError
from .base import USUAL_FPS, Frame
from .capture import quieten_opencv

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class ImageFolder:
    """The pictures of a folder, sorted as people count: `2.png` before `10.png`.

    Args:
        folder: Other files and folders in it are left out.
        fps: Pictures per second; None takes 30.

    Raises:
        SourceError: There is no picture in it, or it cannot be read.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        quieten_opencv()
        self.name = str(folder)
        self.live = False
        self.fps: float | None = fps or USUAL_FPS
        try:
            found = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
        except OSError as error:
            raise SourceError(f"the folder {folder} cannot be read: {error.strerror}") from error
        if not found:
            raise SourceError(f"the folder {folder} has no pictures ({', '.join(sorted(SUFFIXES))}) in it")
        self.frame_count: int | None = len(found)
        self._paths = sorted(found, key=_as_people_count)
        self._index = 0
        self._closed = False

    def read(self) -> Frame | None:
        """The next picture; None at the end, and after `close`.

        Raises:
            SourceError: It cannot be read as a picture.
        """
        if self._closed or self._index == len(self._paths):
            return None
        path, timestamp = self._paths[self._index], self._index / (self.fps or USUAL_FPS)
        self._index += 1
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"{path} cannot be read as a picture: take it out of the folder")
        return Frame(image, timestamp)

    def close(self) -> None:
        """Ends it."""
        self._closed = True


def _as_people_count(path: Path) -> list[tuple[int, str]]:
    """A key that sorts numbers by value and the words between them without regard to case."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
