"""The check clip has the same bytes on every machine."""

import hashlib

import numpy as np

from vmp_edge.bundle.check import check_clip

GOLDEN_SHA256 = "9f6d5368c47e288ca370ef75493805408aaa3a7af3c2469415c3b16a18c7bab2"


def test_the_check_clip_is_the_same_on_every_machine():
    """Manifests hold the outputs of models for this clip, so its bytes must never change."""
    clip = check_clip(7, 3, 50)
    assert clip.shape == (3, 50, 50, 3) and clip.dtype == np.uint8
    assert hashlib.sha256(clip.tobytes()).hexdigest() == GOLDEN_SHA256
    assert not np.array_equal(clip, check_clip(8, 3, 50))
    assert not np.array_equal(clip[0], clip[1])
