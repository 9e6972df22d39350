"""Sources that OpenCV reads: cameras, video files, URLs, and pipelines if it was built with GStreamer."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from .base import USUAL_FPS, Frame

_TIMEOUT_MS = 10_000  # for opening a network stream, and for its next frame


class Capture:
    """A source that is read by OpenCV's VideoCapture. `open_capture` makes it.

    Args:
        capture: The VideoCapture, from which one frame has been read.
        first: That frame, as VideoCapture gave it.
        name: The source's name for messages.
        live: Whether the source is live.
    """

    def __init__(self, capture: Any, first: npt.NDArray[np.uint8], name: str, live: bool) -> None:
        self.name = name
        self.live = live
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = rate if 0 < rate <= 1000 else None
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count: int | None = count if not live and count > 0 else None
        self._capture = capture
        self._first: npt.NDArray[np.uint8] | None = first
        self._index = 0
        self._closed = False
        self._reading = threading.Lock()  # releasing a VideoCapture that another thread reads crashes

    def read(self) -> Frame | None:
        """Wait for the next frame. Return None at a file's end, and after `close`.

        Raises:
            SourceError: The source is live, and gives no more frames.
        """
        with self._reading:
            if self._closed:
                return None
            image, self._first = self._first, None
            if image is None:
                success, image = self._capture.read()
                if not success or image is None:
                    if self.live:
                        raise SourceError(f"{self.name} gives no more frames")
                    return None
        timestamp = time.monotonic() if self.live else self._index / (self.fps or USUAL_FPS)
        self._index += 1
        return Frame(as_bgr(image), timestamp)

    def close(self) -> None:
        """Close the source."""
        self._closed = True
        # A camera that hangs in `read` stays open until the process ends: nobody should wait for it.
        if self._reading.acquire(timeout=2.0):
            self._capture.release()
            self._reading.release()


def open_capture(address: int | str, name: str, live: bool | None, backend: int = cv2.CAP_ANY) -> Capture:
    """Open a VideoCapture and read its first frame, because many sources can be opened but give no frames.

    Args:
        address: A camera's number, a path, a URL or a pipeline, as OpenCV takes it.
        name: The source's name for messages.
        live: Whether the source is live. None finds out: a source without a number of frames is live.
        backend: OpenCV's backend.

    Raises:
        SourceError: The source cannot be opened, or gives no frame.
    """
    quieten_opencv()
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
    is_url = isinstance(address, str) and "://" in address and backend == cv2.CAP_ANY
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts) if is_url else cv2.VideoCapture(address, backend)
    success, image = capture.read() if capture.isOpened() else (False, None)
    if not success or image is None:
        problem = "cannot be opened" if live else "cannot be opened as a video"
        if capture.isOpened():
            problem = "has no frames that can be read"
        capture.release()
        raise SourceError(f"{name} {problem}")
    if live is None:
        live = capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    return Capture(capture, image, name, live)


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
