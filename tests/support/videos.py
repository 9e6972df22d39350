"""Small video files of known content, coded by PyAV, for the tests of decoding: grey frames that tell their number."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av", reason="needs PyAV, which the extra `video` installs")


def picture(index, size=(64, 48)):
    """A frame whose brightness is about 20 plus its number, with a pattern that moves so that frames are not empty."""
    width, height = size
    image = np.full((height, width, 3), 20 + index % 200, np.uint8)
    image[:8, (3 * index) % width :] += 15
    return image


def make_video(
    path, count=30, *, rate=15, ticks=None, codec="libx264", size=(64, 48), options=None, container=None, **kw
):
    """Write a video.

    Args:
        path: The file.
        count: Number of frames.
        rate: Frames per second.
        ticks: Function from a frame's number to its time in units of 1 / `rate`. None counts.
        codec: FFmpeg's encoder.
        size: Width and height.
        options: The encoder's options.
        container: The container's options.
        kw: More arguments for `av.open`.
    """
    with av.open(str(path), "w", options=container or {}, **kw) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="bgr24")
            frame.pts, frame.time_base = ticks(index) if ticks else index, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def own_times(path):
    """The times that FFmpeg gives for a file's frames, relative to the first."""
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [float(time - times[0]) for time in times]


def damage_file(path, share=6, seed=4):
    """Overwrite the middle of a file with random bytes."""
    content = bytearray(path.read_bytes())
    length = len(content) // share
    start = len(content) // 2 - length // 2
    content[start : start + length] = random.Random(seed).randbytes(length)
    path.write_bytes(content)
    return path


def decodable(path):
    """How many frames of a file FFmpeg can decode, going on after errors."""
    count = 0
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                count += len(packet.decode())
            except av.InvalidDataError:
                continue
    return count
