"""Video files."""

from __future__ import annotations

import threading
from pathlib import Path

from ..errors import SourceError
from ..masking import masked
from ..video import Decoder, open_decoder
from .base import Frame, Message


class VideoFile:
    """A video file. `open_file` makes it.

    Args:
        decoder: Gives the file's frames.
        name: The file's name for messages.
        tell: Called with a message when the file turns out to be damaged.

    Attributes:
        damage: What was wrong with the part that was read so far, as a phrase. None if nothing was.
        undecodable: Number of frames so far that could not be decoded.
    """

    def __init__(self, decoder: Decoder, name: str, tell: Message) -> None:
        self.name = name
        self.live = False
        self.fps = decoder.fps
        self.frame_count = decoder.frame_count
        self.damage: str | None = None
        self.undecodable = 0
        self._decoder = decoder
        self._tell = tell
        self._told: str | None = None
        self._closed = False
        self._reading = threading.Lock()  # closing a file that another thread reads would crash
        first = decoder.read()
        if first is None:
            raise SourceError(f"{name} has no frames that can be read")
        self._first: Frame | None = Frame(*first)

    def read(self) -> Frame | None:
        """Return the next frame that can be decoded. None at the file's end, and after `close`."""
        with self._reading:
            if self._closed:
                return None
            frame, self._first = self._first, None
            if frame is None:
                picture = self._decoder.read()
                frame = None if picture is None else Frame(*picture)
            self.undecodable = self._decoder.undecodable
            if frame is None or self.undecodable:
                self.damage = self._decoder.damage()
        if frame is None:
            self._report()
        return frame

    def close(self) -> None:
        """Close the file. Another thread may be in `read`."""
        self._closed = True
        if self._reading.acquire(timeout=2.0):
            self._decoder.close()
            self._reading.release()
            self._report()

    def _report(self) -> None:
        """Tell once what was wrong with the file."""
        if self.damage is not None and self._told is None:
            self._told = self.damage
            self._tell(f"{self.name}: {self.damage}")


def open_file(path: Path, tell: Message) -> VideoFile:
    """Open a video file and read its first frame.

    Args:
        path: The file.
        tell: Called with a message when the file turns out to be damaged.

    Raises:
        SourceError: The file cannot be opened, or has no frame that can be decoded.
    """
    name = masked(str(path))
    decoder = open_decoder(str(path), name)
    try:
        return VideoFile(decoder, name, tell)
    except BaseException:
        decoder.close()
        raise
