"""`OpencvDecoder`: reads files and network streams by OpenCV, for machines without PyAV. It can do less.

OpenCV does not say whether a frame cannot be decoded or the file is at its end, nor how long a web server's file is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from . import decoder as limits
from .decoder import USUAL_FPS, Patience, Picture, describe_damage
from .names import borrowed_name
from .probing import probe
from .times import FrameTimes

_TICKS = 1_000_000_000  # a second's
_MOST_TRIES = 300  # failed reads in a row after which a file counts as ended


class OpencvDecoder:
    """A video that OpenCV reads. The arguments are those of `open_decoder`."""

    def __init__(self, address: str, name: str, *, network: bool = False, live: bool | None = None) -> None:
        self._name = name
        self.undecodable = 0
        quieten_opencv()
        finite = False
        if network:
            finite = probe(address, name)  # because OpenCV holds up all others while a server says nothing
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1000 * limits.OPEN_TIMEOUT)]
            timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * limits.READ_TIMEOUT)]
            self._capture = _open(address, timeouts)
        else:
            with borrowed_name(Path(address)) as borrowed:
                self._capture = _open(borrowed)
        if not self._capture.isOpened():
            raise SourceError(f"{name} cannot be opened" + ("" if network else " as a video"))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = rate if 0 < rate <= 1000 else None
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.live = live if live is not None else network and count <= 0 and not finite
        self.frame_count: int | None = count if not self.live and count > 0 else None
        self._times = FrameTimes(self.fps or USUAL_FPS, Fraction(1, _TICKS), count / rate if count > 0 < rate else None)
        self._timed = True  # as long as the file's times advance
        self._read = 0
        self._ended = False

    def read(self) -> Picture | None:
        """Return the next frame that can be decoded and its time, or None at the end.

        Raises:
            SourceError: The stream is live, and was lost.
        """
        if self._ended:
            return None
        missing, patience = 0, Patience(self.live)
        while True:
            began = time.monotonic()
            success, image = self._capture.read()
            if success and image is not None:
                break
            missing += 1
            stalled = self.live and time.monotonic() - began > limits.READ_TIMEOUT / 2
            if stalled or patience.bad() or self._is_over(missing):
                if self.live:
                    raise SourceError(f"{self._name} gives no more frames")
                self._ended = True
                return None
        self.undecodable += missing
        self._read += 1
        ticks = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * (_TICKS / 1000))
        return as_bgr(image), self._times.next(ticks if ticks > 0 or self._read == 1 else None, missing)

    def damage(self) -> str | None:
        """Return what was wrong with the part that was read, as a phrase for messages. None if nothing was."""
        if self.live:
            return None
        total = self._read + self.undecodable
        short = self._ended and self.frame_count is not None and total < 0.98 * self.frame_count - 2
        return describe_damage(self._read, self.undecodable, total, self.frame_count if short else None)

    def close(self) -> None:
        """Close the video."""
        self._capture.release()

    def _is_over(self, missing: int) -> bool:
        """Return whether to take so many failed reads in a row for the end."""
        if self.live:
            return missing >= 10  # a bad picture or two; FFmpeg itself has tried more often
        if self.frame_count is not None:
            return self._read + self.undecodable + missing > self.frame_count or missing >= _MOST_TRIES
        return missing >= 10


def quieten_opencv() -> None:
    """Keep OpenCV's and FFmpeg's own warnings off the terminal: a SourceError says what matters."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5 moved it
    logging.setLogLevel(0)


def as_bgr(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a picture as uint8 (H, W, 3) BGR. Some cameras give grey pictures with one channel."""
    if image.ndim == 2 or image.shape[2] == 1:
        grey: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return grey
    return image


def _open(address: str, timeouts: Sequence[int] = ()) -> Any:
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts) if timeouts else cv2.VideoCapture(address)
