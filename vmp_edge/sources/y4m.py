"""Reading YUV4MPEG2, the format in which GStreamer and FFmpeg write raw frames to pipes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import IO

import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from .base import LARGEST_SIDE
from .yuv import Chroma, to_bgr

# Pixels of the picture for each pixel of chroma, across and down, by the beginning of the chroma tag.
_CHROMA: dict[str, Chroma] = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "411": (4, 1), "mono": None}
_SAME_AS_420 = frozenset({"420jpeg", "420paldv", "420mpeg2"})  # chroma lies elsewhere by a fraction of a pixel
MAGIC = b"YUV4MPEG2 "  # what a stream begins with
_LONGEST_HEADER = 1024  # bytes


class Y4mReader:
    """Reads YUV4MPEG2 frame by frame, with 8 to 16 bits, as 4:2:0, 4:2:2, 4:4:4, 4:1:1 or grey, an alpha plane or not.

    The format has no gaps between the rows of a frame. But GStreamer's `y4menc` also writes the padding of its rows if
    the width is not a multiple of 8. The reader finds out by looking where the second frame begins.

    Args:
        stream: The stream, binary, readable and blocking.

    Attributes:
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.
        fps: Frames per second, or None if the stream does not say.
        full_range: Whether black is 0 and white is the largest value, as `XCOLORRANGE` says. If it does not, video is
            of limited range and grey pictures are of full range, as FFmpeg has it. The attribute may be changed.

    Raises:
        SourceError: The stream does not begin as YUV4MPEG2, or its chroma or size is not supported.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        header = stream.readline(_LONGEST_HEADER)
        if not header.startswith(MAGIC) or not header.endswith(b"\n"):
            raise SourceError("no YUV4MPEG2 header")
        words = header.decode("ascii", "replace").split()[1:]
        tags = {word[:1]: word[1:] for word in words if word[0] != "X"}
        extensions = dict(word[1:].upper().partition("=")[::2] for word in words if word[0] == "X")
        try:
            self.width, self.height = int(tags["W"]), int(tags["H"])
        except (KeyError, ValueError) as error:
            raise SourceError("the YUV4MPEG2 header lacks a size") from error
        if not (0 < self.width <= LARGEST_SIDE and 0 < self.height <= LARGEST_SIDE):
            raise SourceError(
                f"YUV4MPEG2 of {self.width}x{self.height} pixels: sides are from 1 to {LARGEST_SIDE} pixels"
            )
        self._format = _Format.parse(tags.get("C") or extensions.get("YSCSS", "420").lower())
        limited = extensions.get("COLORRANGE", "FULL" if self._format.chroma is None else "LIMITED") != "FULL"
        self.full_range = not limited
        self.fps = _rate(tags.get("F", ""))
        self._packed = self._format.packed(self.width, self.height)
        self._padded = self._format.padded(self.width, self.height)
        self._layout: _Layout | None = self._packed if self._packed.total == self._padded.total else None
        self._ahead = b""  # bytes of the next frame's marker that were read already

    def read(self) -> npt.NDArray[np.uint8] | None:
        """Return the next frame, uint8 (H, W, 3) BGR, or None at the end.

        Raises:
            SourceError: The stream breaks off within a frame, or is damaged.
        """
        marker = self._ahead + self._stream.readline(256)
        self._ahead = b""
        if not marker:
            return None
        if not marker.startswith(b"FRAME") or not marker.endswith(b"\n"):
            raise SourceError("damaged YUV4MPEG2 stream: a frame does not begin with FRAME")
        content = self._read_exactly(self._layout.total) if self._layout else self._read_first()
        assert self._layout is not None
        planes = [
            plane[: shape[0], : shape[1]]
            for plane, shape in zip(self._layout.split(content), self._packed.shapes, strict=True)
        ]
        return to_bgr(planes[:3], self._format.chroma, self._format.depth, self.full_range)

    def _read_first(self) -> bytes:
        """Read the first frame, and find out whether its rows are padded."""
        content = self._read_exactly(self._packed.total)
        ahead = self._stream.read(5)
        if ahead in (b"", b"FRAME"):
            self._layout, self._ahead = self._packed, ahead
            return content
        self._layout = self._padded
        content += ahead
        content += self._read_exactly(max(self._padded.total - len(content), 0))
        self._ahead = content[self._padded.total :]  # the padding may be shorter than the bytes read ahead
        return content[: self._padded.total]

    def _read_exactly(self, size: int) -> bytes:
        content = self._stream.read(size)
        if len(content) != size:
            raise SourceError("the YUV4MPEG2 stream breaks off within a frame")
        return content


@dataclass(frozen=True)
class _Format:
    """What a chroma tag says.

    Attributes:
        chroma: Pixels of the picture for each pixel of chroma, across and down. None for grey pictures.
        depth: Bits of a value.
        alpha: Whether there is an alpha plane, which is not used.
    """

    chroma: Chroma
    depth: int = 8
    alpha: bool = False

    @classmethod
    def parse(cls, tag: str) -> _Format:
        """Read a chroma tag such as `420jpeg`, `422p10`, `444alpha` or `mono16`.

        Raises:
            SourceError: This reader does not know the tag.
        """
        name = "420" if tag in _SAME_AS_420 else tag
        match = re.fullmatch(r"(420|422|444|411)(?:p(\d+))?(alpha)?|(mono)(\d+)?", name)
        depth = int(match[2] or match[5] or 8) if match else 0
        if match is None or not 8 <= depth <= 16:
            raise SourceError(f"unsupported YUV4MPEG2 format C{tag[:20]}: add -pix_fmt yuv420p to FFmpeg's options")
        return cls(_CHROMA[match[1] or match[4]], depth, match[3] is not None)

    def packed(self, width: int, height: int) -> _Layout:
        """Return the layout of a frame whose rows have no gaps between them."""
        return self._layout((height, width), self._chroma_shape(width, height))

    def padded(self, width: int, height: int) -> _Layout:
        """Return the layout of a frame whose rows GStreamer has padded."""
        rows, columns = self._chroma_shape(width, height)
        luma_rows = 2 * rows if self.chroma == (2, 2) else height
        return self._layout((luma_rows, _up(width)), (rows, _up(columns)))

    def _chroma_shape(self, width: int, height: int) -> tuple[int, int]:
        across, down = self.chroma or (1, 1)
        return -(-height // down), -(-width // across)

    def _layout(self, luma: tuple[int, int], chroma: tuple[int, int]) -> _Layout:
        shapes = [luma] if self.chroma is None else [luma, chroma, chroma]
        return _Layout((*shapes, luma) if self.alpha else tuple(shapes), np.dtype("u1" if self.depth == 8 else "<u2"))


@dataclass(frozen=True)
class _Layout:
    """The planes of a frame.

    Attributes:
        shapes: Rows and columns of each plane: luma, then both chroma planes, then alpha, as far as there are any.
        dtype: Type of a value.
    """

    shapes: tuple[tuple[int, int], ...]
    dtype: np.dtype[np.unsignedinteger]

    @property
    def total(self) -> int:
        """Number of bytes of all planes."""
        return sum(rows * columns for rows, columns in self.shapes) * self.dtype.itemsize

    def split(self, content: bytes) -> list[npt.NDArray[np.unsignedinteger]]:
        """Split the bytes of a frame into its planes."""
        ends = np.cumsum([rows * columns for rows, columns in self.shapes])[:-1]
        parts = np.split(np.frombuffer(content, self.dtype), ends)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def _up(columns: int) -> int:
    """Round up to the multiple of 4 to which GStreamer pads the rows of a plane."""
    return -(-columns // 4) * 4


def _rate(text: str) -> float | None:
    """Return frames per second from a text such as `30:1`, or None for 0:0, which means unknown."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not int(match[1]) or not int(match[2]):
        return None
    return float(Fraction(int(match[1]), int(match[2])))
