"""Frames from pipes: YUV4MPEG2, raw pixels, or a video file that another program writes."""

from __future__ import annotations

import io
import os
import select
import stat
import threading
from pathlib import Path
from typing import IO, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError, SourceError
from .base import USUAL_FPS, Frame, Message
from .container import ContainerReader
from .raw import RawFormat, RawReader
from .waiting import wait
from .y4m import MAGIC, Y4mReader

_SLICE_MS = 200  # within which a reader notices that it was cancelled


class _Reader(Protocol):
    """Gives the pictures in a stream of bytes.

    Attributes:
        fps: Frames per second, or None if the stream does not say.
    """

    fps: float | None

    def read(self) -> npt.NDArray[np.uint8] | None:
        """Return the next picture, uint8 (H, W, 3) BGR, or None at the end.

        Raises:
            SourceError: The stream breaks off within a frame, or is damaged.
        """
        ...


class PipeSource:
    """Frames that another program writes to a pipe. No frame is lost, because the writer waits.

    Args:
        descriptor: The file descriptor to read from.
        name: The pipe's name for messages.
        form: The format of raw frames. None reads YUV4MPEG2, or a video file of a format that FFmpeg knows: both
            describe themselves.
        fps: Frames per second, if the format does not give them. None takes 30.
        owned: Whether the descriptor is closed with the source.
        cancelled: Another thread may set this to close the source, also while it is being opened.

    Raises:
        SourceError: The pipe does not begin with YUV4MPEG2 or a video if it should.
    """

    def __init__(
        self,
        descriptor: int,
        name: str,
        form: RawFormat | None,
        fps: float | None = None,
        owned: bool = False,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.name = name
        self.live = False
        self.frame_count: int | None = None
        self._input = InterruptibleReader(descriptor, owned, cancelled)
        try:
            self._reader = self._make_reader(form)
        except BaseException:
            self.close()
            raise
        self.fps: float | None = self._reader.fps or fps or USUAL_FPS
        self._index = 0

    def read(self) -> Frame | None:
        """Wait for the next frame. Return None at the end, and after `close`.

        Raises:
            SourceError: The input breaks off within a frame.
        """
        try:
            image = self._reader.read()
        except SourceError:
            if self._input.ended:
                return None
            raise
        if image is None or self._input.ended:
            return None
        timestamp = self._index / (self.fps or USUAL_FPS)
        if isinstance(self._reader, ContainerReader):
            timestamp = self._reader.time
        self._index += 1
        return Frame(image, timestamp)

    def close(self) -> None:
        """Close the source. A `read` that waits returns."""
        self._input.end()

    def _make_reader(self, form: RawFormat | None) -> _Reader:
        if form is not None:
            return RawReader(cast(IO[bytes], io.BufferedReader(self._input, 1 << 16)), form)
        if self._input.peek(len(MAGIC)) == MAGIC:
            return Y4mReader(cast(IO[bytes], io.BufferedReader(self._input, 1 << 16)))
        form_of_raw = "raw:WIDTHxHEIGHT:PIXELS:FPS"
        advice = f"for raw frames, say {form_of_raw}"
        if self._input.owned:  # a named pipe
            advice = f"raw frames go to the standard input, as {form_of_raw}"
        if not self._input.peek(1):
            raise SourceError(f"{self.name} is no YUV4MPEG2 (it is empty): {advice}")
        try:
            return ContainerReader(self._input)
        except (SourceError, MissingDependencyError) as error:
            raise type(error)(f"{self.name} is no YUV4MPEG2 ({error}): {advice}") from error


def open_pipe(path: Path, fps: float | None, tell: Message, cancelled: threading.Event) -> PipeSource:
    """Open a named pipe, or a pipe that a shell made (`<(...)`), and wait for another program to write to it.

    Args:
        path: The pipe.
        fps: Frames per second, if the format does not give them. None takes 30.
        tell: Called with a message if nobody writes for a while.
        cancelled: Ends the waiting when it is set.

    Raises:
        SourceError: The pipe cannot be read, or gives no frame.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else it waits for a writer right here
    except OSError as error:
        raise SourceError(f"the pipe {path} cannot be read: {error.strerror}") from error
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        wait(lambda seconds: bool(poll.poll(1000 * seconds)), f"the pipe {path}", tell, cancelled)
    except BaseException:
        os.close(descriptor)
        raise
    return PipeSource(descriptor, f"the pipe {path}", None, fps, owned=True, cancelled=cancelled)


class InterruptibleReader(io.RawIOBase):
    """Reads a file descriptor until another thread ends the reading.

    Closing the descriptor itself would not end a read that waits. So a read also waits for a pipe, which `end` closes.

    Args:
        descriptor: The file descriptor.
        owned: Whether `end` closes the descriptor.
        cancelled: Another thread may set this, too, to end the reading.
    """

    def __init__(self, descriptor: int, owned: bool = False, cancelled: threading.Event | None = None) -> None:
        self._descriptor = descriptor
        self.owned = owned
        self._can_block = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._end_reader, self._end_writer = os.pipe()
        self._ahead = b""  # bytes that `peek` has read
        self._reading = threading.Lock()
        self._ended = False
        self._cancelled = cancelled or threading.Event()

    @property
    def ended(self) -> bool:
        """Whether the reading was ended."""
        return self._ended or self._cancelled.is_set()

    def readable(self) -> bool:
        """Return True: `io.BufferedReader` asks."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Wait for bytes and read them into the buffer. Return their number, 0 at the end."""
        content, self._ahead = self._ahead[: len(buffer)], self._ahead[len(buffer) :]
        content = content or self._receive(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def peek(self, size: int) -> bytes:
        """Return the next bytes without taking them: so many, or fewer if the end comes first."""
        while len(self._ahead) < size and (content := self._receive(size - len(self._ahead))):
            self._ahead += content
        return self._ahead[:size]

    def end(self) -> None:
        """End the reading: a read that waits, and every later one, comes to the end of the file."""
        if self._ended:
            return
        self._ended = True
        os.close(self._end_writer)  # from now on, polling the other end returns at once
        if self.owned:
            with self._reading:
                os.close(self._descriptor)

    def close(self) -> None:
        """End the reading and close the pipe."""
        if not self.closed:
            self.end()
            os.close(self._end_reader)
        super().close()

    def _receive(self, size: int) -> bytes:
        with self._reading:
            while not self.ended:
                poll = select.poll()
                poll.register(self._end_reader, select.POLLIN)
                if self._can_block:
                    poll.register(self._descriptor, select.POLLIN)
                    if not poll.poll(_SLICE_MS):
                        continue
                if self.ended:
                    break
                try:
                    return os.read(self._descriptor, size)
                except BlockingIOError:  # another reader was faster
                    continue
                except OSError as error:
                    raise SourceError(f"the pipe cannot be read: {error.strerror}") from error
        return b""
