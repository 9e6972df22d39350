"""Sources of frames: a module for each kind, and `open_source`, which opens any of them by its address."""

from __future__ import annotations

import math
from pathlib import Path

from ..errors import SourceError, UsageError
from .base import USUAL_FPS, Frame, Message, Source
from .camera import is_camera, open_camera
from .capture import quieten_opencv
from .file import open_file
from .gstreamer import open_pipeline
from .images import ImageFolder
from .paced import Paced
from .retrying import DEFAULT_PAUSES, Pauses, Retrying
from .stdin import RawFormat, StdinSource
from .url import open_url
from .y4m import Y4mReader

__all__ = [
    "USUAL_FPS",
    "Frame",
    "ImageFolder",
    "Message",
    "Paced",
    "Pauses",
    "RawFormat",
    "Source",
    "StdinSource",
    "Y4mReader",
    "open_source",
    "quieten_opencv",
]


def open_source(
    text: str, on_message: Message | None = None, *, fps: float | None = None, pauses: Pauses = DEFAULT_PAUSES
) -> Source:
    """Open a source of any kind by its address.

    Args:
        text: A camera's number (`0`), device (`/dev/video0`) or name (`camera:HD Webcam`), a video file, a folder of
            pictures, a URL (`rtsp://...`, `http://...`), a GStreamer pipeline without its sink
            (`v4l2src ! video/x-raw,width=640`), or the standard input: `-` for YUV4MPEG2, `raw:640x480:bgr:30` for raw
            pixels.
        on_message: Called with a message when a live source vanishes, is tried again, and is back.
        fps: Frames per second of a source that has no rate of its own: a folder of pictures, the standard input.
        pauses: The pauses before a live source that vanished is tried again.

    Raises:
        SourceError: The source cannot be opened, or gives no frame.
        MissingDependencyError: The source is a pipeline, and neither OpenCV nor the machine has GStreamer.
        UsageError: A raw format or the frame rate is not valid.
    """
    text = text.strip()
    tell = on_message or (lambda message: None)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"the source's frames per second must be positive, not {fps}")
    if not text:
        raise SourceError("the source is empty: give a camera, a file, a folder of pictures, a URL or a pipeline")
    if is_camera(text):
        return Retrying(f"camera {text.removeprefix('camera:')}", lambda: open_camera(text), tell, pauses)
    if text == "-" or text.startswith("raw:"):
        return StdinSource(None if text == "-" else RawFormat.parse(text), fps)
    if "://" in text and not text.startswith("file://"):
        return open_url(text, tell, pauses)
    path = Path(text.removeprefix("file://"))
    if "!" in text and not path.exists():
        return Retrying("pipeline", lambda: open_pipeline(text), tell, pauses)
    if path.is_dir():
        return ImageFolder(path, fps)
    if not path.is_file():
        raise SourceError(
            f"the video {path} does not exist: give a video file, a folder of pictures, a camera, a URL or a pipeline"
        )
    return open_file(path, tell)
