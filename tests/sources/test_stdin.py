"""The standard input: YUV4MPEG2 and raw frames from pipes and files."""

import contextlib
import os
import threading
import time

import cv2
import numpy as np
import pytest
from source_helpers import error_of, open_source, read_all, y4m_stream

from vmp_edge.errors import SourceError, UsageError
from vmp_edge.sources import StdinSource


@pytest.fixture
def stdin(monkeypatch):
    """The end to write to of a pipe that is a source's standard input."""
    reading, writing = os.pipe()
    monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, reading))
    with os.fdopen(writing, "wb", buffering=0) as end:
        yield end
    os.close(reading)


def write_later(end, content):
    """Write to a pipe in another thread, then close it."""

    def write():
        with contextlib.suppress(BrokenPipeError):
            for start in range(0, len(content), 1000):  # in pieces, as programs write to pipes
                end.write(content[start : start + 1000])
        end.close()

    threading.Thread(target=write, daemon=True).start()


PICTURE = np.random.default_rng(0).integers(0, 256, (8, 4, 3), np.uint8)
UPSCALED = cv2.resize(PICTURE[:4, :2], (4, 8), interpolation=cv2.INTER_NEAREST)
PLANES = cv2.cvtColor(UPSCALED, cv2.COLOR_BGR2YUV_I420).reshape(-1)


def test_yuv4mpeg_on_the_standard_input(stdin):
    write_later(stdin, y4m_stream(65, 47, 3))
    source = open_source("-")
    assert not source.live and abs(source.fps - 29.97) < 0.001
    frames = read_all(source)
    assert [frame.image.shape for frame in frames] == [(47, 65, 3)] * 3
    assert [frame.timestamp for frame in frames] == [index / source.fps for index in range(3)]


@pytest.mark.parametrize(
    ("pixels", "content", "expected"),
    [
        ("bgr", PICTURE, PICTURE),
        ("rgb", PICTURE[..., ::-1], PICTURE),
        ("grey", PICTURE[..., 0], np.repeat(PICTURE[..., :1], 3, 2)),
        ("i420", PLANES, cv2.cvtColor(PLANES.reshape(12, 4), cv2.COLOR_YUV2BGR_I420)),
        (
            "nv12",
            np.concatenate([PLANES[:32], np.stack([PLANES[32:40], PLANES[40:]], 1).reshape(-1)]),
            cv2.cvtColor(PLANES.reshape(12, 4), cv2.COLOR_YUV2BGR_I420),
        ),
        ("yuyv", np.full((8, 4, 2), (200, 128), np.uint8), np.full((8, 4, 3), 214, np.uint8)),
    ],
)
def test_raw_pixels_on_the_standard_input(stdin, pixels, content, expected):
    write_later(stdin, 2 * np.ascontiguousarray(content).tobytes())
    source = open_source(f"raw:4x8:{pixels}:12.5")
    assert source.fps == 12.5
    frames = read_all(source)
    assert [frame.timestamp for frame in frames] == [0.0, 0.08]
    for frame in frames:
        np.testing.assert_allclose(frame.image, expected, atol=1)


def test_a_pipe_that_breaks_off_or_has_another_format_is_an_error(stdin):
    write_later(stdin, bytes(100))
    source = open_source("raw:4x8:bgr", fps=10.0)
    assert source.fps == 10.0 and source.read() is not None
    with pytest.raises(SourceError, match="break off within a frame"):
        source.read()
    assert "no YUV4MPEG2" in error_of("-")


@pytest.mark.parametrize(
    "text", ["raw:", "raw:640x480", "raw:0x4:bgr", "raw:5x4:yuyv", "raw:4x5:nv12", "raw:4x4:cmyk", "raw:4x4:bgr:0"]
)
def test_impossible_raw_formats_are_refused(text):
    error_of(text, UsageError)


def test_closing_ends_a_read_that_waits_for_a_pipe(stdin):
    source = open_source("raw:4x4:grey")
    frames = []
    reader = threading.Thread(target=lambda: frames.extend(iter(source.read, None)))
    reader.start()
    stdin.write(bytes(16 + 7))  # a frame and a half
    while not frames:
        time.sleep(0.002)
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive() and len(frames) == 1


def test_a_file_may_be_the_standard_input(tmp_path, monkeypatch):
    (tmp_path / "a.y4m").write_bytes(y4m_stream(8, 4, 2))
    with (tmp_path / "a.y4m").open("rb") as file:
        monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, file.fileno()))
        assert len(read_all(open_source("-"))) == 2


def test_a_terminal_is_no_source(monkeypatch):
    leader, terminal = os.openpty()
    monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, terminal))
    assert "is a terminal" in error_of("-")
    os.close(leader)
    os.close(terminal)
