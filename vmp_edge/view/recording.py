"""Recording to a video file, which gets its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import UsageError, VmpError
from ..files import partial_path
from ..sources import quieten_opencv
from ..video.encoder import SUFFIXES, Encoder, EncodingError, open_encoder
from ..video.names import borrowed_name, is_utf8


class RecordingError(VmpError):
    """A recording cannot be written."""


class Recorder:
    """Writes pictures to a video file at a constant frame rate.

    Pictures are repeated or left out as needed, so that the video plays in real time.

    Args:
        path: The video file. An existing file is replaced when the recording is finished, not before.
        fps: Frames per second of the video.
        tell: Called with a message if browsers will not play the video.

    Raises:
        UsageError: The suffix of the file's name is not that of a known video format.
        RecordingError: The folder does not exist or cannot be written to.
    """

    def __init__(self, path: Path, fps: float, tell: Callable[[str], None] = lambda message: None) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"cannot record to {path}: its name must end in one of {', '.join(SUFFIXES)}")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise RecordingError(f"cannot record to {path}: {path.parent} is not a folder that can be written to")
        if path.is_dir():
            raise RecordingError(f"cannot record to {path}: it is a folder")
        quieten_opencv()
        self.path = path
        self._fps = fps
        self._tell = tell
        self._partial = partial_path(path if is_utf8(Path(path.name)) else path.with_name(f"recording{path.suffix}"))
        self._encoder: Encoder | None = None
        # A signal interrupts only the main thread. So in a thread of its own, no picture is left half encoded.
        self._encoding = ThreadPoolExecutor(1, "vmp-edge recording")
        self._failure: str | None = None  # why nothing more is written
        self._size = (0, 0)
        self._start = 0.0
        self._written = 0
        self._encoded = 0  # pictures in the file, which can be more than were written since the last gap

    def write(self, image: npt.NDArray[np.uint8], timestamp: float) -> None:
        """Add a picture.

        Args:
            image: Picture, uint8 (H, W, 3) BGR. The first picture sets the video's size, and later pictures are scaled
                to it.
            timestamp: The picture's time in seconds.

        Raises:
            RecordingError: The video file cannot be opened.
        """
        if self._failure is not None:
            return
        if self._encoder is None:
            self._open(image, timestamp)
        assert self._encoder is not None
        if image.shape[1::-1] != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        until = int((timestamp - self._start) * self._fps + 0.5) + 1
        if until > self._written + 60 * self._fps:  # a gap of over a minute: do not fill it with one picture
            self._start, self._written, until = timestamp, 0, 1
        try:
            self._encoding.submit(self._encode, self._encoder, image, until - self._written).result()
        except EncodingError as error:  # recognition goes on; `finish` says what happened
            self.discard()
            self._failure = f"{self.path} cannot be written: {error}"
            return
        self._written = max(self._written, until)

    def finish(self) -> Path | None:
        """Close the file and give it its name.

        Returns:
            The file's path, or None, without a file, if no picture was written.

        Raises:
            RecordingError: The file cannot be completed or read back, for example because the disk is full.
        """
        encoder, self._encoder = self._encoder, None
        if self._failure is not None:
            raise RecordingError(self._failure)
        if encoder is None:
            return None
        try:
            self._encoding.submit(encoder.close).result()
            if not _is_whole(self._partial, self._encoded):  # not every encoder reports a write that failed
                raise RecordingError(f"{self.path} could not be written completely: is the disk full?")
            self._partial.replace(self.path)
        except EncodingError as error:
            raise RecordingError(f"{self.path} cannot be written: {error}") from error
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be written: {error.strerror}") from error
        finally:
            self.discard()
        return self.path

    def discard(self) -> None:
        """Remove the file unless it was finished."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            with contextlib.suppress(EncodingError):
                self._encoding.submit(encoder.close).result()
        self._encoding.shutdown(wait=False)
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def _encode(self, encoder: Encoder, image: npt.NDArray[np.uint8], times: int) -> None:
        for _ in range(times):
            encoder.write(image)
            self._encoded += 1

    def _open(self, image: npt.NDArray[np.uint8], timestamp: float) -> None:
        self._size = (image.shape[1], image.shape[0])
        try:
            self._encoder = open_encoder(self._partial, self._fps, self._size)
        except EncodingError as error:
            self.discard()
            raise RecordingError(f"cannot record to {self.path}: {error}") from error
        if self._encoder.note is not None:
            self._tell(self._encoder.note)
        self._start = timestamp


def _is_whole(path: Path, frames: int) -> bool:
    """Return whether all frames of a video file are there, because OpenCV does not say when a write fails."""
    with borrowed_name(path) as name:
        capture = cv2.VideoCapture(name)
    try:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.set(cv2.CAP_PROP_POS_FRAMES, max(count - 1, 0))
        nearly_all = 0.98 * frames - 2  # OpenCV counts by the length in seconds in some formats
        return count >= nearly_all and bool(capture.read()[0])
    finally:
        capture.release()
