"""Pictures from planes of luma and chroma, of any depth and range."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Chroma = tuple[int, int] | None  # pixels of the picture for each pixel of chroma, across and down; None for grey


def to_bgr(
    planes: Sequence[npt.NDArray[np.unsignedinteger]], chroma: Chroma, depth: int, full_range: bool
) -> npt.NDArray[np.uint8]:
    """Convert the planes of a picture by BT.601, the matrix that FFmpeg and OpenCV take for any video.

    Args:
        planes: Luma (H, W), then, unless the picture is grey, both chroma planes, uint8 or uint16.
        chroma: Pixels of the picture for each pixel of chroma, across and down. None for a grey picture.
        depth: Bits of a value, 8 to 16.
        full_range: Whether luma and chroma use all values. If not, luma is from 16 to 235 and chroma from 16 to 240, at
            8 bits.

    Returns:
        The picture, uint8 (H, W, 3) BGR.
    """
    height, width = planes[0].shape
    if chroma == (2, 2) and depth == 8 and not full_range:
        return _limited_420(*planes)
    luma = _to_full_range(planes[0], depth, full_range, 219)
    if chroma is None:
        grey: npt.NDArray[np.uint8] = cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR)
        return grey
    blue, red = (_to_full_range(plane, depth, full_range, 224) for plane in planes[1:])
    size = blue.shape[1] * chroma[0], blue.shape[0] * chroma[1]
    blue, red = (cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST)[:height, :width] for plane in (blue, red))
    image: npt.NDArray[np.uint8] = cv2.cvtColor(cv2.merge([luma, red, blue]), cv2.COLOR_YCrCb2BGR)
    return image


def _limited_420(
    luma: npt.NDArray[np.unsignedinteger],
    blue: npt.NDArray[np.unsignedinteger],
    red: npt.NDArray[np.unsignedinteger],
) -> npt.NDArray[np.uint8]:
    """Convert the most usual format in one step. OpenCV's I420 needs even sides: an odd side is extended for it."""
    (height, width), (rows, columns) = luma.shape, blue.shape
    luma = np.pad(luma, ((0, 2 * rows - height), (0, 2 * columns - width)), mode="edge")
    packed = np.concatenate([plane.reshape(-1) for plane in (luma, blue, red)]).reshape(3 * rows, 2 * columns)
    image: npt.NDArray[np.uint8] = cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420)
    return image[:height, :width]


def _to_full_range(
    plane: npt.NDArray[np.unsignedinteger], depth: int, full_range: bool, span: int
) -> npt.NDArray[np.uint8]:
    """Return a plane in 8 bits and full range."""
    if depth == 8 and full_range:
        return np.ascontiguousarray(plane, np.uint8)
    result: npt.NDArray[np.uint8] = _table(depth, full_range, span)[np.minimum(plane, (1 << depth) - 1)]
    return result


@lru_cache(maxsize=8)
def _table(depth: int, full_range: bool, span: int) -> npt.NDArray[np.uint8]:
    """Return the value in 8 bits and full range of each value.

    Args:
        depth: Bits of a value.
        full_range: Whether the values have full range already.
        span: Number of values from the least to the largest, in limited range at 8 bits: 219 for luma, 224 for chroma.
    """
    values = np.arange(1 << depth, dtype=np.float64)
    if full_range:
        scaled = values * 255 / ((1 << depth) - 1)
    else:
        middle = 16 if span == 219 else 128  # luma counts from black, chroma from the middle
        scaled = (values / (1 << depth - 8) - middle) * 255 / span + (0 if span == 219 else 128)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
