"""What the tests of sources share: opening with short pauses, reading to the end, and YUV4MPEG2 streams."""

import contextlib
import functools

import numpy as np
import pytest

from vmp_edge import sources
from vmp_edge.errors import SourceError
from vmp_edge.sources import Pauses

SHORT_PAUSES = Pauses(0.01, 0.08)
open_source = functools.partial(sources.open_source, pauses=SHORT_PAUSES)


def read_all(source):
    """Read a source to its end, and close it."""
    with contextlib.closing(source):
        return list(iter(source.read, None))


def error_of(text, error=SourceError):
    """Open a source, which must fail, and return the one line of the error."""
    with pytest.raises(error) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def y4m_stream(width, height, frames, header="", padded=False):
    """Return a YUV4MPEG2 stream of grey frames with a bright right edge, with rows padded like GStreamer's if asked."""
    rows, columns = -(-height // 2), -(-width // 2)
    content = f"YUV4MPEG2 W{width} H{height} F30000:1001 Ip C420jpeg{header}\n".encode()
    for _ in range(frames):
        luma = np.full((height, width), 100, np.uint8)
        luma[:, -1] = 200
        chroma = np.full((rows, columns), 128, np.uint8)
        if padded:
            luma = np.pad(luma, ((0, 2 * rows - height), (0, -width % 4)))
            chroma = np.pad(chroma, ((0, 0), (0, -columns % 4)))
        content += b"FRAME\n" + luma.tobytes() + 2 * chroma.tobytes()
    return content
