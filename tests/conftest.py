"""What the tests of the device side share: a small bundle in a numpy engine, and a video of known content."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from bundles import FRAMES, SIZE, grey, make_manifest, write_bundle

from vmp_edge.bundle.check import check_clip
from vmp_edge.recognizer import load


@pytest.fixture
def bundle(tmp_path):
    """The path of a whole bundle, with a recorded output that `verify` can repeat."""
    path = write_bundle(tmp_path / "bundle")
    with load(path) as recognizer:
        video = recognizer.manifest.preprocessing.clip(check_clip(7, FRAMES, SIZE))
        logits = [float(value) for value in recognizer.predict_video(video)[0]]
    return write_bundle(path, make_manifest(parity={"max_difference": 0.0, "check": {"seed": 7, "logits": logits}}))


@pytest.fixture
def recognizer(bundle):
    """That bundle, loaded."""
    with load(bundle) as recognizer:
        yield recognizer


@pytest.fixture
def video(tmp_path):
    """A file of 60 frames at 30 per second: 30 that get brighter, 30 that get darker."""
    path = tmp_path / "up-and-down.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for value in [*range(10, 220, 7), *range(220, 10, -7)]:
        writer.write(grey(value, 48, 64))
    writer.release()
    return path
