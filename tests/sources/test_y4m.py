"""Reading YUV4MPEG2, with and without padded rows, and damaged streams."""

import io

import numpy as np
import pytest
from source_helpers import y4m_stream

from vmp_edge.errors import SourceError
from vmp_edge.sources import Y4mReader


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(8, 4), (6, 4), (7, 4), (8, 5), (7, 5), (1, 1), (2, 2), (65, 47)])
def test_yuv4mpeg_of_any_size_with_and_without_row_padding(width, height, frames, padded):
    reader = Y4mReader(io.BytesIO(y4m_stream(width, height, frames, padded=padded)))
    assert abs(reader.fps - 29.97) < 0.001
    for _ in range(frames):
        image = reader.read()
        assert image.shape == (height, width, 3)
        expected = np.full((height, width), 98.0)  # limited range: (100 - 16) * 255 / 219
        expected[:, -1] = 214.0
        np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, 2), atol=1)
    assert reader.read() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RIFF....",
        b"YUV4MPEG2 W8 H4",
        b"YUV4MPEG2 H4\n",
        b"YUV4MPEG2 Wx H4\n",
        b"YUV4MPEG2 W0 H4\n",
        b"YUV4MPEG2 W99999999 H4\n",
        b"YUV4MPEG2 W8 H4 C444\n",
    ],
)
def test_a_header_of_another_format_is_refused(content):
    with pytest.raises(SourceError):
        Y4mReader(io.BytesIO(content))


@pytest.mark.parametrize("lost", [1, 6, 20, 47])
def test_an_incomplete_or_damaged_frame_is_an_error(lost):
    stream = y4m_stream(8, 4, 2)
    reader = Y4mReader(io.BytesIO(stream[:-lost]))
    reader.read()
    with pytest.raises(SourceError):
        reader.read()
    damaged = Y4mReader(io.BytesIO(stream.replace(b"FRAME", b"FRUME")))
    with pytest.raises(SourceError, match="FRAME"):
        damaged.read()


def test_an_unknown_rate_is_none():
    assert Y4mReader(io.BytesIO(b"YUV4MPEG2 W8 H4 F0:0\n")).fps is None
