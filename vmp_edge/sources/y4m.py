"""Reading YUV4MPEG2, the format in which GStreamer and FFmpeg write raw frames to pipes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import SourceError
from .base import LARGEST_SIDE


class Y4mReader:
    """Reads YUV4MPEG2 with 4:2:0 chroma, frame by frame.

    The format has no gaps between the rows of a frame. But GStreamer's `y4menc` also writes the padding of its rows if
    the width is not a multiple of 8. The reader finds out by looking where the second frame begins.

    Args:
        stream: The stream, binary, readable and blocking.

    Attributes:
        width: Width of a frame in pixels.
        height: Height of a frame in pixels.
        fps: Frames per second, or None if the stream does not say.

    Raises:
        SourceError: The stream does not begin as YUV4MPEG2, or its chroma or size is not supported.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        header = stream.readline(1024)
        if not header.startswith(b"YUV4MPEG2 ") or not header.endswith(b"\n"):
            raise SourceError("no YUV4MPEG2 header")
        tags = {tag[:1]: tag[1:] for tag in header.decode("ascii", "replace").split()[1:]}
        try:
            self.width, self.height = int(tags["W"]), int(tags["H"])
        except (KeyError, ValueError) as error:
            raise SourceError("the YUV4MPEG2 header lacks a size") from error
        if not (
            0 < self.width <= LARGEST_SIDE
            and 0 < self.height <= LARGEST_SIDE
            and tags.get("C", "420").startswith("420")
        ):
            raise SourceError(f"unsupported YUV4MPEG2 format: {header[:80]!r}")
        self.fps = _rate(tags.get("F", ""))
        rows, columns = (self.height + 1) // 2, (self.width + 1) // 2
        self._packed = _PlaneSizes((self.height, self.width), (rows, columns))
        self._padded = _PlaneSizes((2 * rows, -(-self.width // 4) * 4), (rows, -(-columns // 4) * 4))
        self._sizes: _PlaneSizes | None = self._packed if self._packed == self._padded else None
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
        content = self._read_exactly(self._sizes.total) if self._sizes else self._read_first()
        assert self._sizes is not None
        luma, *chroma = self._sizes.split(np.frombuffer(content, np.uint8))
        # OpenCV's I420 needs even sides: an odd side gets one more row or column, which is cut off afterwards.
        (height, width), (rows, columns) = luma.shape, self._packed.chroma
        luma = np.pad(luma, ((0, max(2 * rows - height, 0)), (0, max(2 * columns - width, 0))), mode="edge")
        planes = [luma[: 2 * rows, : 2 * columns], *(plane[:, :columns] for plane in chroma)]
        packed = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(3 * rows, 2 * columns)
        image: npt.NDArray[np.uint8] = cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420)
        return image[: self.height, : self.width]

    def _read_first(self) -> bytes:
        """Read the first frame, and find out whether its rows are padded."""
        content = self._read_exactly(self._packed.total)
        ahead = self._stream.read(5)
        if ahead in (b"", b"FRAME"):
            self._sizes, self._ahead = self._packed, ahead
            return content
        self._sizes = self._padded
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
class _PlaneSizes:
    """Shapes of the planes of a frame: rows and bytes per row of the luma plane and of each chroma plane."""

    luma: tuple[int, int]
    chroma: tuple[int, int]

    @property
    def total(self) -> int:
        """Number of bytes of all three planes."""
        return self.luma[0] * self.luma[1] + 2 * self.chroma[0] * self.chroma[1]

    def split(self, content: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
        """Split the bytes of a frame into its luma plane and its two chroma planes."""
        first = self.luma[0] * self.luma[1]
        second = first + self.chroma[0] * self.chroma[1]
        luma, *chroma = np.split(content, [first, second])
        return [luma.reshape(self.luma), *(plane.reshape(self.chroma) for plane in chroma)]


def _rate(text: str) -> float | None:
    """Return frames per second from a text such as `30:1`, or None for 0:0, which means unknown."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not int(match[1]) or not int(match[2]):
        return None
    return int(match[1]) / int(match[2])
