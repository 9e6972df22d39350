"""What all tests share: threads, order and marks, a small bundle in a numpy engine, and a video of known content."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

# Before anything loads OpenMP: the tests' models are small, and two workers with a thread for every core each would
# spend much of their time waiting for each other. What is about threads sets their number itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

from brightness_engine import FEATURES
from bundles import FRAMES, SIZE, grey, make_manifest, write_bundle
from colours import clip_of
from once import Once
from slow import is_slow, rank

import vmp_edge
from vmp_edge.bundle.check import check_clip
from vmp_edge.bundle.reading import Bundle
from vmp_edge.gallery import Gallery
from vmp_edge.recognizer import load

ROOT = Path(__file__).resolve().parents[1]
if Path(vmp_edge.__file__).resolve().parents[1] != ROOT:
    pytest.exit(f"the tests of {ROOT} would test {Path(vmp_edge.__file__).parent}; run `make setup` here", 4)


def pytest_collection_modifyitems(config, items):
    """Mark what `make check` leaves out; workers begin with the files that take longest, so that they end together."""
    for item in items:
        if is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


def pytest_collection_finish(session):
    """Have Python's garbage collector run less often, and not go through all collected tests and modules each time.

    Tracing a model makes so many small objects that the collector took up to a sixth of the time.
    """
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(autouse=True)
def few_threads():
    """PyTorch's threads are the process's: a test that sets their number does not set it for those that follow."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    if (torch := sys.modules.get("torch")) and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Builds and bundles that several tests take as given."""
    return Once(tmp_path_factory)


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


@pytest.fixture
def coloured(tmp_path):
    """The path of a bundle whose features are the mean of each colour."""
    return write_bundle(tmp_path / "coloured", make_manifest(features=FEATURES))


@pytest.fixture
def gallery(coloured):
    """A gallery of two classes, with two examples each."""
    gallery = Gallery.of(Bundle.open(coloured))
    with vmp_edge.load(coloured) as recognizer:
        for name in ("red", "green"):
            for count in (4, 7):
                gallery.add(name, recognizer.predict(clip_of(name, count)).features)
    return gallery


@pytest.fixture
def film(tmp_path):
    """A function that writes a video of one colour and returns its path."""

    def write(colour, count=24):
        path = tmp_path / f"{colour}-{count}.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 24))
        for frame in clip_of(colour, count):
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
        writer.release()
        return path

    return write
