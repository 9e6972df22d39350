"""Named pipes, and video files that come through pipes."""

import io
import os
import threading

import numpy as np
import pytest
from source_helpers import open_source, read_all, y4m_stream

from vmp_edge.errors import MissingDependencyError, SourceError
from vmp_edge.sources import StdinSource


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "ff")
    return tmp_path / "ff"


def write_later(path, content):
    """Write to a named pipe in another thread, and close it."""
    thread = threading.Thread(target=lambda: path.write_bytes(content), daemon=True)
    thread.start()
    return thread


def encoded(extension, codec="mpeg4", frames=20, **options):
    """Return a video file of frames that get brighter, at 10 per second."""
    av = pytest.importorskip("av", reason="needs PyAV")
    file = io.BytesIO()
    with av.open(file, "w", format=extension, options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 10 * (index % 20), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def test_a_named_pipe_of_yuv4mpeg_is_played(fifo):
    write_later(fifo, y4m_stream(8, 4, 3))
    source = open_source(str(fifo))
    assert not source.live and source.name == f"the pipe {fifo}"
    assert len(read_all(source)) == 3


@pytest.mark.parametrize(
    ("extension", "options"),
    [("mp4", {}), ("mp4", {"movflags": "frag_keyframe+empty_moov"}), ("mpegts", {}), ("matroska", {}), ("avi", {})],
)
def test_a_video_file_through_a_named_pipe_is_played(fifo, extension, options):
    """The index of an MP4 file is at its end, unless it has many indices."""
    content = encoded(extension, **options)
    if extension == "mp4":
        assert (content.index(b"moov") < content.index(b"mdat")) == bool(options)
    write_later(fifo, content)
    frames = read_all(open_source(str(fifo)))
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 20 + 10 * np.arange(20), atol=4)
    np.testing.assert_allclose([frame.timestamp for frame in frames], np.arange(20) / 10, atol=0.011)


def test_a_video_file_on_the_standard_input_is_played(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(encoded("mp4"))
    with (tmp_path / "a.mp4").open("rb") as file:
        monkeypatch.setattr(StdinSource.__init__, "__defaults__", (None, file.fileno()))
        assert len(read_all(open_source("-"))) == 20


def test_frames_come_while_the_file_is_still_being_written(fifo):
    content = encoded("mpegts", frames=60)
    go_on = threading.Event()

    def write():
        with fifo.open("wb") as file:
            file.write(content[:-5000])
            file.flush()
            go_on.wait(60)
            file.write(content[-5000:])

    threading.Thread(target=write, daemon=True).start()
    source = open_source(str(fifo))
    assert source.read() is not None
    go_on.set()
    assert len(read_all(source)) > 40


@pytest.mark.parametrize("content", [b"", b"hello, this is no video\n" * 100, b"\x00\x00\x00\x18ftypmp42" + bytes(500)])
def test_a_pipe_without_a_video_is_refused_in_one_line(fifo, content):
    pytest.importorskip("av", reason="needs PyAV")
    write_later(fifo, content)
    with pytest.raises(SourceError, match=r"the pipe .* no YUV4MPEG2") as caught:
        open_source(str(fifo))
    assert "\n" not in str(caught.value)


def test_without_pyav_the_error_says_what_to_install(fifo, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    write_later(fifo, b"\x1aE\xdf\xa3" + bytes(1000))
    with pytest.raises(MissingDependencyError, match=r"install.*video"):
        open_source(str(fifo))


def test_closing_ends_a_read_that_waits_for_a_named_pipe(fifo):
    frames, there = [], threading.Event()

    def write():
        with fifo.open("wb") as file:
            file.write(y4m_stream(8, 4, 2)[:-20])
            file.flush()
            there.wait(60)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    source = open_source(str(fifo))
    reader = threading.Thread(target=lambda: frames.extend(iter(source.read, None)))
    frames.append(source.read())
    reader.start()
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive() and len(frames) == 1
    there.set()
    writer.join(timeout=60)


def test_the_wait_for_the_rest_of_a_header_can_be_ended(fifo):
    pytest.importorskip("av", reason="needs PyAV")
    cancelled, opened = threading.Event(), threading.Event()

    def write():
        with fifo.open("wb") as file:
            file.write(b"\x1aE\xdf\xa3")  # a Matroska file begins in this way
            file.flush()
            opened.wait(60)

    def opening():
        with pytest.raises(SourceError):
            open_source(str(fifo), cancelled=cancelled)

    threading.Thread(target=write, daemon=True).start()
    thread = threading.Thread(target=opening)
    thread.start()
    cancelled.set()
    thread.join(timeout=60)
    opened.set()
    assert not thread.is_alive()


def test_the_wait_for_a_writer_can_be_ended(fifo):
    cancelled = threading.Event()
    errors = []

    def opening():
        with pytest.raises(SourceError) as caught:
            open_source(str(fifo), cancelled=cancelled)
        errors.append(str(caught.value))

    thread = threading.Thread(target=opening)
    thread.start()
    cancelled.set()
    thread.join(timeout=60)
    assert errors == [f"the pipe {fifo} was closed while it was being opened"]
