"""What OpenCV reads: cameras, video files, URLs, and pipelines where it was built with GStreamer."""

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

_TIMEOUT_MS = 10_000  # for a network stream to open or to give its next frame


class Capture:
    """OpenCV's VideoCapture: cameras, files, URLs, and pipelines where OpenCV was built with GStreamer."""

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
        self._reading = threading.Lock()  # releasing a capture while it reads crashes

    def read(self) -> Frame | None:
        """Waits for the next frame; None at a file's end, and after `close`.

        Raises:
            SourceError: It is live, and gives no more frames.
        """
        with self._reading:
            if self._closed:
                return None
            image, self._first = self._first, None
            if image is None:
                found, image = self._capture.read()
                if not found or image is None:
                    if self.live:
                        raise SourceError(f"{self.name} gives no more frames")
                    return None
        timestamp = time.monotonic() if self.live else self._index / (self.fps or USUAL_FPS)
        self._index += 1
        return Frame(as_bgr(image), timestamp)

    def close(self) -> None:
        """Ends it."""
        self._closed = True
        # A camera that hangs in `read` is left to the end of the process rather than waited for.
        if self._reading.acquire(timeout=2.0):
            self._capture.release()
            self._reading.release()


def open_capture(what: int | str, name: str, live: bool | None, backend: int = cv2.CAP_ANY) -> Capture:
    """Opens a VideoCapture and reads its first frame: many sources open but give nothing.

    Args:
        what: As OpenCV takes it.
        name: For messages.
        live: None to find out: what has no number of frames is live.
        backend: OpenCV's.

    Raises:
        SourceError: It cannot be opened, or gives no frame.
    """
    quieten_opencv()
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
    is_url = isinstance(what, str) and "://" in what and backend == cv2.CAP_ANY
    capture = cv2.VideoCapture(what, cv2.CAP_FFMPEG, timeouts) if is_url else cv2.VideoCapture(what, backend)
    found, image = capture.read() if capture.isOpened() else (False, None)
    if not found or image is None:
        opened = capture.isOpened()
        capture.release()
        unopened = "cannot be opened" if live else "cannot be opened as a video"
        raise SourceError(f"{name} {'has no frames that can be read' if opened else unopened}")
    if live is None:
        live = capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0
    return Capture(capture, image, name, live)


def quieten_opencv() -> None:
    """Keeps OpenCV's and FFmpeg's own warnings off the terminal: what matters is said by SourceError."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5 moved it
    logging.setLogLevel(0)


def as_bgr(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Some cameras are grey, and say so."""
    if image.ndim == 2 or image.shape[2] == 1:
        grey: npt.NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        return grey
    return image
