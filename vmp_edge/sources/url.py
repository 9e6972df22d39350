"""Network streams, and video files on web servers."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque

from ..errors import SourceError
from ..masking import masked
from ..video import Decoder, fallback_note, open_decoder
from .base import Frame, Message, Source
from .retrying import Pauses, Retrying

_SLICE = 0.2  # seconds after which a thread that waits looks around
_LONGEST_OPENING = 20.0  # seconds until the first frame, for servers that say a little now and then
_LONGEST_SILENCE = 30.0  # seconds between two frames; HLS gives them in segments of up to 10 s
_AHEAD = 4  # frames that are decoded before somebody reads them
_JOIN_TIMEOUT = 0.5  # seconds that closing waits for the thread; FFmpeg may be waiting for a server
_QUIET = 60.0  # seconds between two messages about undecodable pictures
_told: set[str] = set()  # what is said once
_open: weakref.WeakSet[NetworkVideo] = weakref.WeakSet()  # to be closed before Python ends


class NetworkVideo:
    """A video from the network, opened and decoded in a thread of its own.

    So nobody waits for a server that says nothing: `close` and Ctrl-C return at once, and the thread ends when its time
    is over.

    Args:
        url: The address.
        name: The address for messages, without secrets.
        tell: Called with a message when pictures cannot be decoded.
        live: Whether the stream is live. None finds out.

    Attributes:
        damage: What was wrong with the part of a file that was read so far, as a phrase. None if nothing was.
        undecodable: Number of frames so far that could not be decoded.
    """

    def __init__(self, url: str, name: str, tell: Message, live: bool | None) -> None:
        self.name = name
        self.live = True
        self.fps: float | None = None
        self.frame_count: int | None = None
        self.damage: str | None = None
        self._url, self._live, self._tell = url, live, tell
        self._changed = threading.Condition()
        self._frames: deque[Frame] = deque()
        self._decoder: Decoder | None = None  # after the first frame
        self._failure: str | None = None  # the text alone: an error would keep the decoder in memory
        self._ended = self._closed = self._reported = False
        self._told, self._told_at = 0, float("-inf")
        self._thread = threading.Thread(target=self._run, name="vmp-edge network", daemon=True)
        self._thread.start()
        _open.add(self)

    @property
    def waiting(self) -> bool:
        """True while the thread waits for the first frame."""
        return self._decoder is None and not self._ended

    def wait_for_first(self, cancelled: threading.Event) -> None:
        """Wait for the first frame.

        Args:
            cancelled: Set by another thread to give up.

        Raises:
            SourceError: The address cannot be opened, or gives no frame in time. The thread may go on waiting.
        """
        deadline = time.monotonic() + _LONGEST_OPENING
        with self._changed:
            while self.waiting:
                if cancelled.is_set():
                    raise SourceError(f"{self.name} was closed while it was being opened")
                if time.monotonic() > deadline:
                    raise SourceError(f"{self.name} cannot be opened: no frame within {_LONGEST_OPENING:g} s")
                self._changed.wait(_SLICE)
        if self._decoder is None:
            raise SourceError(self._failure or f"{self.name} has no frames that can be read")
        self.live, self.fps = self._decoder.live, self._decoder.fps
        self.frame_count = self._decoder.frame_count

    @property
    def undecodable(self) -> int:
        """Number of frames so far that could not be decoded."""
        return self._decoder.undecodable if self._decoder is not None else 0

    def read(self) -> Frame | None:
        """Wait for the next frame. Return None at a file's end, and after `close`.

        Raises:
            SourceError: The stream is live, and was lost.
        """
        with self._changed:
            deadline = time.monotonic() + _LONGEST_SILENCE
            while not (self._frames or self._ended or self._closed):
                if time.monotonic() > deadline:
                    raise SourceError(f"{self.name} gives no more frames (none within {_LONGEST_SILENCE:g} s)")
                self._changed.wait(_SLICE)
            if self._closed:
                return None
            frame = self._frames.popleft() if self._frames else None
            self._changed.notify_all()
        self._report(frame is None)
        if frame is None and self._failure is not None:
            raise SourceError(self._failure)
        return frame

    def leave(self) -> None:
        """Let the thread end when it can, and a `read` that waits return."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the source. A `read` that waits returns."""
        self.leave()
        self._thread.join(_JOIN_TIMEOUT)
        if self._decoder is not None:
            self._report(at_end=True)

    def _report(self, at_end: bool) -> None:
        """Tell about undecodable pictures: of a file at its end, of a live stream now and then."""
        now = time.monotonic()
        if not self.live:
            if at_end and self.damage is not None and not self._reported:
                self._reported = True
                self._tell(f"{self.name}: {self.damage}")
        elif self.undecodable > self._told and (at_end or now - self._told_at > _QUIET):
            self._told, self._told_at = self.undecodable, now
            pictures = "1 picture" if self._told == 1 else f"{self._told} pictures"
            self._tell(f"{self.name}: {pictures} so far could not be decoded")

    # The methods below run in the thread.

    def _run(self) -> None:
        decoder: Decoder | None = None
        try:
            decoder = open_decoder(self._url, self.name, network=True, live=self._live)
            self._decode(decoder)
        except SourceError as error:
            self._failure = str(error)
        except Exception as error:  # whatever it is, the reader must hear of it
            self._failure = f"{self.name} cannot be read ({type(error).__name__})"
        finally:
            if decoder is not None:
                decoder.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _decode(self, decoder: Decoder) -> None:
        while not self._closed:
            picture = decoder.read()
            if picture is None:
                self.damage = decoder.damage()
                return
            image, seconds = picture
            frame = Frame(image, time.monotonic() if decoder.live else seconds)
            with self._changed:
                while len(self._frames) >= _AHEAD and not self._closed:
                    self._changed.wait(_SLICE)
                self._frames.append(frame)
                self._decoder = decoder
                self._changed.notify_all()


class _Opener:
    """Opens an address again and again.

    Args:
        url: The address.
        name: The address for messages.
        tell: Called with messages.
        cancelled: Set when nobody wants the address any more.
    """

    def __init__(self, url: str, name: str, tell: Message, cancelled: threading.Event) -> None:
        self._url, self._name, self._tell, self._cancelled = url, name, tell, cancelled
        self._waiting: NetworkVideo | None = None  # an attempt that nobody waits for any more, but that may succeed yet

    def open(self, live: bool | None) -> NetworkVideo:
        """Open the address, and wait for the first frame.

        Args:
            live: Whether the stream is live. None finds out.

        Raises:
            SourceError: The address cannot be opened, or gives no frame in time.
        """
        video, self._waiting = self._waiting, None
        if video is None or not video.waiting:
            video = NetworkVideo(self._url, self._name, self._tell, live)
        try:
            video.wait_for_first(self._cancelled)
        except BaseException as error:
            # Some protocols wait without end. The next attempt waits with this one: threads must not pile up.
            if isinstance(error, SourceError) and video.waiting and not self._cancelled.is_set():
                self._waiting = video
            else:
                video.close()
            raise
        return video

    def cancel(self) -> None:
        """Make `open` give up."""
        self._cancelled.set()
        self.leave()

    def leave(self) -> None:
        """Let an attempt that nobody waits for any more end when it can."""
        if self._waiting is not None:
            self._waiting.leave()


def open_url(url: str, tell: Message, pauses: Pauses, cancelled: threading.Event) -> Source:
    """Open a URL: a live stream, which is opened again when it vanishes, or a file, which comes to an end.

    Args:
        url: The address, with user and password if needed.
        tell: Called with a message when a live stream vanishes, is tried again, and is back.
        pauses: The pauses before a live stream is tried again.

    Raises:
        SourceError: The address cannot be opened, or gives no frame.
    """
    name = masked(url)
    if (note := fallback_note()) is not None and note not in _told:
        _told.add(note)
        tell(note)
    opener = _Opener(url, name, tell, cancelled)
    try:
        first = opener.open(live=None)
    except BaseException:
        opener.leave()  # not `cancel`: the caller may try again
        raise
    if not first.live:
        return first
    already_open: list[Source] = [first]

    def open_again() -> Source:
        return already_open.pop() if already_open else opener.open(live=True)

    return Retrying(name, open_again, tell, pauses, opener.cancel)


@atexit.register
def _close_all() -> None:
    """End the threads before Python ends, because Python cannot stop them in the middle of something."""
    videos = list(_open)
    for video in videos:
        video.leave()
    deadline = time.monotonic() + _JOIN_TIMEOUT
    for video in videos:
        video._thread.join(max(0.0, deadline - time.monotonic()))
