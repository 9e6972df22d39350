"""The C library prepares frames as `vmp_edge.preprocessing` does, on OpenCV."""

from __future__ import annotations

import ctypes
import hashlib

import cv2
import embedded
import numpy as np
import pytest
from embedded import BGR, GREY, NV12, RGB, YUYV, frame_of

from vmp_edge.preprocessing import RESIZE_MODES, Preprocessing

SIZES = [(480, 640), (16, 16), (32, 32), (48, 64), (720, 1280), (17, 23), (7, 5), (1, 1), (3, 200), (200, 3), (64, 31)]


@pytest.fixture(scope="module")
def insides(built):
    return embedded.insides(built / "libinsides.so")


def prepare(insides, frame, preprocessing):
    size = preprocessing.image_size
    out = np.full((3, size, size), np.nan, np.float32)
    triple = ctypes.c_double * 3
    status = insides.insides_prepare(
        ctypes.byref(frame),
        size,
        RESIZE_MODES.index(preprocessing.resize),
        preprocessing.interpolation == "area",
        triple(*preprocessing.mean),
        triple(*preprocessing.std),
        out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
    )
    assert status == 0
    return out


def expected(rgb, preprocessing):
    out = np.empty((3, preprocessing.image_size, preprocessing.image_size), np.float32)
    preprocessing.frame(np.ascontiguousarray(rgb), out)
    return out


def picture(height, width, seed=0):
    """Noise over a coarse pattern: every rounding is met."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(coarse.astype(int) + rng.integers(-40, 41, coarse.shape), 0, 255).astype(np.uint8)


def levels(difference, preprocessing):
    """Of 256, the most that any pixel is off."""
    return np.abs(difference).max() * 255 * max(preprocessing.std)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("resize", RESIZE_MODES)
@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize("size", [16, 33])
def test_resizes_as_opencv_does(insides, shape, resize, interpolation, size):
    preprocessing = Preprocessing(size, resize, interpolation=interpolation)
    rgb = picture(*shape)
    difference = prepare(insides, frame_of(rgb), preprocessing) - expected(rgb, preprocessing)
    assert levels(difference, preprocessing) < 1.05
    # ties go either way: sums are in another order; and PyPI's OpenCV interpolates by a library of Intel's on x86
    averaged = interpolation == "area" and min(shape) >= size
    assert np.mean(difference != 0) < (0.01 if averaged else 0.15)


@pytest.mark.parametrize("height, width", [(48, 64), (2, 2), (38, 50)])
def test_formats(insides, height, width):
    preprocessing = Preprocessing(16)
    rgb = picture(height, width)
    luma = picture(height, width, 1)[:, :, 0].copy()
    chroma = picture(height // 2, width, 2)[:, :, 0].copy()
    nv12 = cv2.cvtColor(np.concatenate([luma, chroma]), cv2.COLOR_YUV2RGB_NV12)
    yuyv = picture(height, width, 3)[:, :, :2].copy()
    cases = [
        (frame_of(rgb), rgb),
        (frame_of(rgb[:, :, ::-1].copy(), kind=BGR), rgb),
        (frame_of(luma, kind=GREY), np.repeat(luma[:, :, None], 3, 2)),
        (frame_of(luma, kind=NV12, chroma=chroma), nv12),
        (frame_of(yuyv, kind=YUYV), cv2.cvtColor(yuyv, cv2.COLOR_YUV2RGB_YUY2)),
    ]
    for frame, same in cases:
        as_rgb = prepare(insides, frame_of(np.ascontiguousarray(same)), preprocessing)
        np.testing.assert_array_equal(prepare(insides, frame, preprocessing), as_rgb)


@pytest.mark.parametrize("kind, channels", [(RGB, 3), (GREY, 1), (YUYV, 2)])
def test_rows_with_gaps(insides, kind, channels):
    wide = np.random.default_rng(0).integers(0, 256, (48, 80, channels), np.uint8)
    cut = wide[:, :64]
    preprocessing = Preprocessing(16)
    with_gaps = prepare(insides, frame_of(cut, kind=kind), preprocessing)
    np.testing.assert_array_equal(with_gaps, prepare(insides, frame_of(cut.copy(), kind=kind), preprocessing))


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 1000])
@pytest.mark.parametrize("piece", [1, 64, 100])
def test_sha256(insides, size, piece):
    data = np.random.default_rng(size).bytes(size)
    text = ctypes.create_string_buffer(65)
    insides.insides_sha256(data, size, piece, text)
    assert text.value.decode() == hashlib.sha256(data).hexdigest()
