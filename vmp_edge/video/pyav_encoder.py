"""`PyavEncoder`: writes H.264 by PyAV. Importing this module needs PyAV."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from .encoder import CONTAINERS, QUALITY, EncodingError, even

# The first that works: x264, Cisco's, and those of the hardware of Jetsons and other boards.
_CODECS = ("libx264", "libopenh264", "h264_nvmpi", "h264_v4l2m2m")
_OPTIONS = {"libx264": {"preset": "veryfast", "crf": str(QUALITY)}}
_BT601 = 6  # AVCOL_SPC_SMPTE170M: how the colours are coded
_LIMITED = 1  # AVCOL_RANGE_MPEG


class PyavEncoder:
    """A video file that PyAV writes.

    Args:
        path: The file.
        rate: Frames per second.
        size: Width and height of the pictures.

    Raises:
        EncodingError: The file cannot be opened, or PyAV has no encoder for H.264 that takes the size.
    """

    def __init__(self, path: Path, rate: Fraction, size: tuple[int, int]) -> None:
        self.note: str | None = None
        self._path = path
        problem: BaseException | None = None
        for codec in _CODECS:
            if codec not in av.codec.codecs_available:
                continue
            try:
                self._container, self._stream = _open(path, codec, rate, size)
                break
            except (av.FFmpegError, OSError, ValueError) as error:
                problem = error
        else:
            raise EncodingError(f"PyAV cannot write H.264: {_reason(problem) if problem else 'it has no encoder'}")
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._count = 0

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Add a picture, uint8 (H, W, 3) BGR.

        Raises:
            EncodingError: The picture cannot be encoded or written.
        """
        frame = av.VideoFrame.from_ndarray(even(image), format="bgr24")
        frame = self._reformatter.reformat(frame, format="yuv420p", interpolation="BICUBIC", dst_colorspace="ITU601")
        frame.pts, frame.time_base = self._count, 1 / self._stream.codec_context.framerate
        self._count += 1
        self._mux(frame)

    def close(self) -> None:
        """Complete the file.

        Raises:
            EncodingError: The file cannot be completed.
        """
        try:
            self._mux(None)
        finally:
            try:
                self._container.close()
            except (av.FFmpegError, OSError) as error:
                raise EncodingError(_reason(error)) from None

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise EncodingError(_reason(error)) from None


def _open(path: Path, codec: str, rate: Fraction, size: tuple[int, int]) -> tuple[Any, Any]:
    kind = CONTAINERS[path.suffix.lower()]
    options = {"movflags": "+faststart"} if kind == "mp4" else {}  # so that a browser can play before it has it all
    container = av.open(str(path.absolute()), "w", format=kind, options=options)
    try:
        stream: Any = container.add_stream(codec, rate=rate, options=_OPTIONS.get(codec, {}))
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"  # the only one that all browsers play
        context = stream.codec_context
        context.gop_size = max(1, round(2 * rate))
        with contextlib.suppress(AttributeError):
            context.colorspace, context.color_range = _BT601, _LIMITED
        context.open()
        container.start_encoding()
    except BaseException:
        with contextlib.suppress(av.FFmpegError, OSError, ValueError):
            container.close()
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return container, stream


def _reason(error: BaseException) -> str:
    """Return why FFmpeg failed, in the words of the system where it has some."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and 0 < number < 200:
        return os.strerror(number)
    return str(getattr(error, "strerror", None) or error)
