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
        b"YUV4MPEG2 W8 H4 C410\n",
        b"YUV4MPEG2 W8 H4 C420p7\n",
        b"YUV4MPEG2 W8 H4 C420p17\n",
        b"YUV4MPEG2 W8 H4 C420p10x\n",
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


COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [40, 90, 200]], [[0, 0, 0], [250, 250, 250]]])  # RGB
# Chroma tag, pixels for each pixel of chroma across and down, bits, number of alpha planes.
TAGS = [
    ("420", (2, 2), 8, 0),
    ("420jpeg", (2, 2), 8, 0),
    ("420paldv", (2, 2), 8, 0),
    ("420mpeg2", (2, 2), 8, 0),
    ("411", (4, 1), 8, 0),
    ("422", (2, 1), 8, 0),
    ("444", (1, 1), 8, 0),
    ("444alpha", (1, 1), 8, 1),
    *(("420p" + str(depth), (2, 2), depth, 0) for depth in (9, 10, 12, 14, 16)),
    *(("422p" + str(depth), (2, 1), depth, 0) for depth in (10, 16)),
    *(("444p" + str(depth), (1, 1), depth, 0) for depth in (10, 16)),
    ("mono", None, 8, 0),
    ("mono10", None, 10, 0),
    ("mono16", None, 16, 0),
]


def planes_of(image, chroma, depth, full_range):
    """Return the planes of a picture, float RGB, by the formulas of BT.601, each rounded to so many bits."""
    weights = np.array([0.299, 0.587, 0.114])
    luma = image @ weights
    if chroma is None:
        values = [luma / 255]
    else:
        across, down = chroma
        small = image[::down, ::across]
        blue, red = ((small[..., channel] - small @ weights) / (1 - weights[channel]) / 2 for channel in (2, 0))
        values = [luma / 255, blue / 255, red / 255]
    peak = (1 << depth) - 1
    scales = (peak, peak, 0, 1 << depth - 1) if full_range else (219 << depth - 8, 224 << depth - 8, 16, 128)
    luma_scale, chroma_scale, black, middle = scales
    if not full_range:
        black, middle = black << depth - 8, middle << depth - 8
    offsets = [(luma_scale, black), (chroma_scale, middle), (chroma_scale, middle)]
    return [
        np.clip(np.rint(plane * scale + offset), 0, peak).astype("u1" if depth == 8 else "<u2")
        for plane, (scale, offset) in zip(values, offsets, strict=False)
    ]


def coloured(tag, chroma, depth, alphas, full_range, header):
    """Return a stream of two frames of large blocks of colour, and the picture in BGR that it shows."""
    image = np.repeat(np.repeat(COLOURS, 8, 0), 8, 1)[:21, :13]  # odd sides
    planes = planes_of(image, chroma, depth, full_range)
    planes += [np.zeros_like(planes[0])] * alphas
    frame = b"FRAME Ip\n" + b"".join(plane.tobytes() for plane in planes)
    stream = f"YUV4MPEG2 W13 H21 F25:1 Ip A1:1 C{tag}{header}\n".encode() + 2 * frame
    expected = image[..., ::-1]
    return stream, np.repeat((image @ [0.299, 0.587, 0.114])[..., None], 3, 2) if chroma is None else expected


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("tag", "chroma", "depth", "alphas"), TAGS)
def test_every_chroma_depth_and_range_gives_the_right_colours(tag, chroma, depth, alphas, full_range):
    header = " XCOLORRANGE=FULL" if full_range else " XCOLORRANGE=LIMITED"
    stream, expected = coloured(tag, chroma, depth, alphas, full_range, " XYSCSS=WRONG" + header)
    reader = Y4mReader(io.BytesIO(stream))
    for _ in range(2):
        np.testing.assert_allclose(reader.read(), expected, atol=3)
    assert reader.read() is None


def test_without_a_range_video_is_limited_and_grey_pictures_are_full():
    for tag, chroma, full_range in (("420", (2, 2), False), ("mono", None, True)):
        stream, expected = coloured(tag, chroma, 8, 0, full_range, "")
        np.testing.assert_allclose(Y4mReader(io.BytesIO(stream)).read(), expected, atol=3)


def test_the_chroma_is_that_of_the_older_tag_if_there_is_no_other():
    stream, expected = coloured("420", (1, 1), 8, 0, False, " XYSCSS=444")
    np.testing.assert_allclose(Y4mReader(io.BytesIO(stream.replace(b" C420", b""))).read(), expected, atol=3)


def test_luma_16_of_full_range_stays_16():
    stream = y4m_stream(8, 4, 1, header=" XCOLORRANGE=FULL").replace(bytes([100]), bytes([16]))
    assert Y4mReader(io.BytesIO(stream)).read()[0, 0].tolist() == [16, 16, 16]


def test_the_error_of_a_format_that_is_not_read_says_what_to_do():
    with pytest.raises(SourceError, match="unsupported YUV4MPEG2 format C410: add -pix_fmt yuv420p"):
        Y4mReader(io.BytesIO(b"YUV4MPEG2 W8 H4 C410\n"))
