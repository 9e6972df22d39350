"""Frames from the standard input."""

from __future__ import annotations

import os
import threading

from ..errors import SourceError
from .base import AddressError
from .pipe import PipeSource
from .raw import RawFormat

_STDIN = 0


class StdinSource(PipeSource):
    """Frames that another program writes to the standard input. No frame is lost, because the writer waits.

    Args:
        form: The format of raw frames. None reads YUV4MPEG2, or a video file of a format that FFmpeg knows: both
            describe themselves.
        fps: Frames per second, if the format does not give them. None takes 30.
        descriptor: The file descriptor to read from. It is not closed.
        cancelled: Another thread may set this to close the source.

    Raises:
        SourceError: The standard input is a terminal, or does not begin with YUV4MPEG2 or a video if it should.
    """

    def __init__(
        self,
        form: RawFormat | None,
        fps: float | None = None,
        descriptor: int = _STDIN,
        *,
        cancelled: threading.Event | None = None,
    ) -> None:
        try:
            if os.isatty(descriptor):
                raise AddressError("the standard input is a terminal: pipe frames into it")
            super().__init__(descriptor, "the standard input", form, fps, cancelled=cancelled)
        except OSError as error:  # it was closed before the program started
            raise SourceError(f"the standard input cannot be read: {error.strerror}") from error
