"""Sources of frames: a module for each kind, and `open_source`, which opens any of them by its address."""

from __future__ import annotations

import math
import re
import stat
import threading
from pathlib import Path
from urllib.parse import unquote

from ..credentials import with_credentials
from ..errors import SourceError, UsageError
from ..masking import masked
from .base import USUAL_FPS, AddressError, Frame, Message, Source
from .camera import is_camera, open_camera
from .capture import quieten_opencv
from .file import open_file
from .gstreamer import is_pipeline, open_pipeline
from .images import ImageFolder
from .paced import Paced
from .patience import open_when_there
from .pipe import open_pipe
from .raw import RawFormat
from .retrying import DEFAULT_PAUSES, Pauses, Retrying
from .stdin import StdinSource
from .url import open_url
from .y4m import Y4mReader

__all__ = [
    "USUAL_FPS",
    "AddressError",
    "Frame",
    "ImageFolder",
    "Message",
    "Paced",
    "Pauses",
    "RawFormat",
    "Source",
    "StdinSource",
    "Y4mReader",
    "is_live_address",
    "open_source",
    "open_when_there",
    "quieten_opencv",
]


def open_source(
    text: str,
    on_message: Message | None = None,
    *,
    fps: float | None = None,
    pauses: Pauses = DEFAULT_PAUSES,
    cancelled: threading.Event | None = None,
) -> Source:
    """Open a source of any kind by its address.

    `${NAME}` and `${file:PATH}` in the address are replaced first, by `with_credentials`.

    Args:
        text: A camera's number (`0`), device (`/dev/video0` or a link to it) or name (`camera:HD Webcam`), a video file
            or a named pipe, a folder of pictures, a URL (`rtsp://...`, `http://...`), a GStreamer pipeline without its
            sink (`v4l2src ! video/x-raw,width=640`), or the standard input: `-` for YUV4MPEG2 or a video file,
            `raw:640x480:bgr:30` for raw pixels.
        on_message: Called with a message when a live source vanishes, is tried again, and is back, and when a source
            does not answer.
        fps: Frames per second of a source that has no rate of its own: a folder of pictures, the standard input.
        pauses: The pauses before a live source that vanished is tried again.
        cancelled: Another thread may set this to end the opening of a camera, a pipeline or a named pipe that does not
            answer. It also closes the source.

    Raises:
        AddressError: There can be no such source: the file does not exist, or the pipeline is wrong.
        SourceError: The source cannot be opened, or gives no frame.
        MissingDependencyError: The source is a pipeline, and neither OpenCV nor the machine has GStreamer.
        UsageError: A raw format or the frame rate is not valid, or a credential is missing.
    """
    text = with_credentials(text.strip())
    tell = on_message or (lambda message: None)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"the source's frames per second must be positive, not {fps}")
    if not text:
        raise AddressError("the source is empty: give a camera, a file, a folder of pictures, a URL or a pipeline")
    closed = cancelled or threading.Event()
    if is_camera(text):
        name = f"camera {text.removeprefix('camera:')}"
        return Retrying(name, lambda: open_camera(text, tell, closed), tell, pauses, closed.set)
    if text == "-" or text.startswith("raw:"):
        return StdinSource(None if text == "-" else RawFormat.parse(text), fps, cancelled=closed)
    path = _path(text)
    if is_pipeline(text) and not _exists(path):
        return Retrying("pipeline", lambda: open_pipeline(text, tell, closed), tell, pauses, closed.set)
    if _is_url(text):
        return open_url(text, tell, pauses, closed)
    return _open_path(path, fps, tell, closed)


def is_live_address(text: str) -> bool:
    """Return whether an address is one of a camera, a URL or a pipeline, which may be off now and on later."""
    text = with_credentials(text.strip())
    return is_camera(text) or _is_url(text) or (is_pipeline(text) and not _exists(_path(text)))


def _open_path(path: Path, fps: float | None, tell: Message, closed: threading.Event) -> Source:
    """Open a video file, a folder of pictures or a named pipe."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise SourceError(f"the video {masked(str(path))} cannot be read: {error.strerror}") from error
        raise AddressError(
            f"the video {masked(str(path))} does not exist: give a video file, a folder of pictures, a camera, a URL "
            "or a pipeline"
        ) from error
    if stat.S_ISDIR(mode):
        return ImageFolder(path, fps)
    if stat.S_ISFIFO(mode):
        return open_pipe(path, fps, tell, closed)
    if not stat.S_ISREG(mode):
        kind = "a socket" if stat.S_ISSOCK(mode) else "a disk"
        raise AddressError(
            f"{masked(str(path))} is {kind} and no video: give a video file, a camera, a URL or a pipeline"
        )
    return open_file(path, tell)


def _is_url(text: str) -> bool:
    """Return whether an address is a URL other than that of a file on this machine."""
    return re.match(r"(?!file://)[a-z][a-z0-9+.-]*://", text, re.IGNORECASE) is not None


def _path(text: str) -> Path:
    """Return the path of a file, which may be given as a URL."""
    if not text.lower().startswith("file://"):
        return Path(text)
    path = Path(text[len("file://") :].removeprefix("localhost"))
    return path if _exists(path) else Path(unquote(str(path), errors="surrogateescape"))


def _exists(path: Path) -> bool:
    """Return whether there is such a path. What is no path at all, such as a long pipeline, does not exist."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True
