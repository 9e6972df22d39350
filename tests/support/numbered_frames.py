"""Frames that carry their number in every pixel, and rings of them."""

from __future__ import annotations

import numpy as np

from vmp_edge.preprocessing import Preprocessing
from vmp_edge.stream.ring import FrameRing
from vmp_edge.stream.window import Window

SIZE = 8
PIXELS = Preprocessing(SIZE, mean=(0, 0, 0), std=(1 / 255,) * 3)  # a value is its pixel


def numbered(sequence):
    """A frame that says which one it is: its number in the three channels, all over."""
    frame = np.empty((SIZE, SIZE, 3), np.uint8)
    frame[...] = (sequence & 255, sequence >> 8 & 255, sequence >> 16 & 255)
    return frame


def numbers(out):
    """The numbers of a gathered window's frames, (3, T, S, S); fails if any of them is torn."""
    whole = np.rint(out).astype(np.int64)
    assert (whole == whole[:, :, :1, :1]).all(), "a frame was written over while it was gathered"
    red, green, blue = whole[:, :, 0, 0]
    return (red + (green << 8) + (blue << 16)).tolist()


def make_ring(frames, **window):
    if "fps" in window:
        window.setdefault("stride", None)
    return FrameRing(PIXELS, Window(frames, **window)), np.full((3, frames, SIZE, SIZE), np.nan, np.float32)
