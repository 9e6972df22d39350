"""Sources that OpenCV reads: cameras, and pipelines if it was built with GStreamer."""

from __future__ import annotations

import threading
import time
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from ..video.opencv import as_bgr, quieten_opencv
from .base import Frame

__all__ = ["Capture", "open_capture", "quieten_opencv"]

_TRIES = 10  # failed reads in a row after which a source counts as lost; one bad picture is none
_PAUSE = 0.02  # seconds between two tries
_STALL = 1.0  # seconds; OpenCV itself waits so long only for a source that gives nothing any more


class Capture:
    """A source that is read by OpenCV's VideoCapture. `open_capture` makes it.

    Args:
        capture: The VideoCapture, from which one frame has been read.
        first: That frame, as VideoCapture gave it.
        name: The source's name for messages.
        live: Whether the source goes on by itself.
    """

    def __init__(self, capture: Any, first: npt.NDArray[np.uint8], name: str, live: bool = True) -> None:
        self.name = name
        self.live = live
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = rate if 0 < rate <= 1000 else None
        self.frame_count: int | None = None
        self._capture = capture
        self._first: npt.NDArray[np.uint8] | None = first
        self._closed = False
        self._reading = threading.Lock()  # releasing a VideoCapture that another thread reads crashes

    def read(self) -> Frame | None:
        """Wait for the next frame. Return None after `close`.

        Raises:
            SourceError: The source gives no more frames.
        """
        with self._reading:
            if self._closed:
                return None
            image, self._first = self._first, None
            if image is None and (image := self._next()) is None:
                raise SourceError(f"{self.name} gives no more frames")
        return Frame(as_bgr(image), time.monotonic())

    def _next(self) -> npt.NDArray[np.uint8] | None:
        """Read the next picture that can be decoded. None if there is none after a few tries, or one takes too long."""
        for _ in range(_TRIES):
            began = time.monotonic()
            success, image = self._capture.read()
            if success and image is not None:
                return np.asarray(image, np.uint8)
            if self._closed or time.monotonic() - began > _STALL:
                break
            time.sleep(_PAUSE)
        return None

    def close(self) -> None:
        """Close the source."""
        self._closed = True
        # A camera that hangs in `read` stays open until the process ends: nobody should wait for it.
        if self._reading.acquire(timeout=2.0):
            self._capture.release()
            self._reading.release()


def open_capture(address: int | str, name: str, live: bool = True, backend: int = cv2.CAP_ANY) -> Capture:
    """Open a VideoCapture and read its first frame, because many sources can be opened but give no frames.

    Args:
        address: A camera's number, a device or a pipeline, as OpenCV takes it.
        name: The source's name for messages.
        live: Whether the source goes on by itself.
        backend: OpenCV's backend.

    Raises:
        SourceError: The source cannot be opened, or gives no frame.
    """
    quieten_opencv()
    capture = cv2.VideoCapture(address, backend)
    success, image = capture.read() if capture.isOpened() else (False, None)
    if not success or image is None:
        problem = "has no frames that can be read" if capture.isOpened() else "cannot be opened"
        capture.release()
        raise SourceError(f"{name} {problem}")
    return Capture(capture, image, name, live)
