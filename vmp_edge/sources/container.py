"""Video files that come through a pipe, decoded by PyAV while they come."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import IO, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError, SourceError
from ..installation import install_command
from .base import USUAL_FPS

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_PIECE = 1 << 16  # bytes
_LONGEST_HEADER = 1 << 16  # bytes; where an MP4 file's index is looked for
_SMALL_BOXES = frozenset({b"ftyp", b"free", b"skip", b"wide", b"uuid"})


class _Input(Protocol):
    """What a `ContainerReader` reads from."""

    def read(self, size: int = -1, /) -> bytes | None:
        """Wait for bytes, and return up to so many, none at the end."""
        ...

    def peek(self, size: int, /) -> bytes:
        """Return the next bytes without taking them."""
        ...


class ContainerReader:
    """Reads a video file of any format that FFmpeg knows from a pipe.

    The index of many MP4 files is at their end. Such a file is taken to a temporary file first.

    Args:
        stream: The pipe.

    Attributes:
        fps: Frames per second, or None if the file does not say.
        time: Seconds of the last picture, counted from the first one.

    Raises:
        SourceError: It is no video.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, stream: _Input) -> None:
        try:
            import av
        except (ImportError, OSError) as error:
            raise MissingDependencyError(f"for video files from a pipe, run {install_command('video')}") from error
        self.fps: float | None = None
        self.time = 0.0
        self._errors = av.error.FFmpegError
        self._adapter = _Adapter(stream)
        try:
            self._container: Any = av.open(
                _spooled(stream) if _index_comes_last(stream) else self._adapter, metadata_errors="replace"
            )
            video = self._container.streams.video[0]
        except (self._errors, IndexError, ValueError) as error:
            self._adapter.check()
            raise SourceError("and no video that FFmpeg can read") from error
        rate = float(video.average_rate or video.guessed_rate or 0)
        self.fps = rate if 0 < rate <= 1000 else None
        self._frames = self._decode(video)
        self._first: float | None = None

    def read(self) -> npt.NDArray[np.uint8] | None:
        """Return the next picture that can be decoded, uint8 (H, W, 3) BGR, or None at the end."""
        frame = next(self._frames, None)
        self._adapter.check()
        if frame is None:
            return None
        step = 1 / (self.fps or USUAL_FPS)
        if self._first is None:
            self._first = frame.time or 0.0
            self.time = 0.0
        else:
            seconds = self.time + step if frame.time is None else frame.time - self._first
            self.time = seconds if seconds > self.time else self.time + step
        image: npt.NDArray[np.uint8] = frame.to_ndarray(format="bgr24")
        turn = _TURNS.get(round(getattr(frame, "rotation", 0)) % 360)  # as phones note it in their videos
        return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)

    def _decode(self, video: Any) -> Iterator[Any]:
        """Give the frames that can be decoded, and pass over the others."""
        packets = self._container.demux(video)
        while True:
            try:
                packet = next(packets, None)
            except self._errors:  # the file breaks off
                return
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._errors:
                continue


class _Adapter:
    """What PyAV takes for a file. It does not wait until all bytes that PyAV asks for are there.

    PyAV would lose an interrupt that comes while it reads. So the file ends for PyAV, and `check` raises the interrupt.
    """

    def __init__(self, stream: _Input) -> None:
        self._stream = stream
        self._failure: BaseException | None = None

    def read(self, size: int) -> bytes:
        if self._failure is not None:
            return b""
        try:
            return self._stream.read(size) or b""
        except BaseException as error:
            self._failure = error
            return b""

    def check(self) -> None:
        """Raise the failure or the interrupt that ended the reading, if any."""
        if self._failure is not None:
            raise self._failure


def _index_comes_last(stream: _Input) -> bool:
    """Return whether this is an MP4 file whose frames come before their index."""
    position = 0
    while position < _LONGEST_HEADER:
        header = stream.peek(position + 8)[position:]
        size, kind = int.from_bytes(header[:4], "big"), header[4:]
        if position == 0 and kind != b"ftyp":
            return False
        if kind not in _SMALL_BOXES or size < 8:
            return kind == b"mdat"
        position += size
    return False


def _spooled(stream: _Input) -> IO[bytes]:
    """Take a stream to its end, and return it as a temporary file.

    Raises:
        SourceError: There is no room for it.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the reader keeps it
    try:
        while content := stream.read(_PIECE):
            file.write(content)
    except OSError as error:
        file.close()
        raise SourceError(f"there is no room for it in {tempfile.gettempdir()}: {error.strerror}") from error
    file.seek(0, io.SEEK_SET)
    return file
