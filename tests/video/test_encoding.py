"""Encoding: H.264 that browsers play, what is used where PyAV is missing, odd sizes, and disks that are full."""

import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from videos import av, picture

from vmp_edge.video import EncodingError, ffmpeg_encoder, open_encoder
from vmp_edge.video.encoder import OpencvEncoder
from vmp_edge.video.ffmpeg_encoder import FfmpegEncoder
from vmp_edge.video.pyav_encoder import PyavEncoder

needs_ffmpeg = pytest.mark.skipif(not ffmpeg_encoder.has_h264(), reason="needs an ffmpeg that encodes H.264")


def write(path, count=30, size=(64, 48), fps=15.0):
    encoder = open_encoder(path, fps, size)
    for index in range(count):
        encoder.write(picture(index, size))
    encoder.close()
    return encoder


def facts(path):
    """The codec, pixels, size, rate, number of frames and brightness of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        means = [frame.to_ndarray(format="bgr24")[20:].mean() for frame in container.decode(stream)]
        return context.name, context.pix_fmt, (context.width, context.height), float(stream.average_rate), means


@pytest.fixture
def without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "vmp_edge.video.pyav_encoder", None)


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mkv"])
def test_recordings_are_h264_for_browsers(tmp_path, suffix):
    encoder = write(tmp_path / f"a{suffix}")
    codec, pixels, size, rate, means = facts(tmp_path / f"a{suffix}")
    assert (codec, pixels, size, rate) == ("h264", "yuv420p", (64, 48), 15.0)
    np.testing.assert_allclose(means, 20 + np.arange(30), atol=4)
    assert encoder.note is None and isinstance(encoder, PyavEncoder)


def test_the_index_of_an_mp4_is_in_front(tmp_path):
    """A browser shows such a video while it loads it."""
    write(tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (1, 1), (17, 16)])
def test_odd_sides_get_one_more_pixel(tmp_path, size):
    write(tmp_path / "a.mp4", 5, size)
    codec, _, written, _, means = facts(tmp_path / "a.mp4")
    assert codec == "h264" and written == (size[0] + size[0] % 2, size[1] + size[1] % 2) and len(means) == 5


@pytest.mark.parametrize("fps", [29.97, 30000 / 1001, 7.5, 0.5])
def test_rates_are_kept(tmp_path, fps):
    write(tmp_path / "a.mp4", 6, fps=fps)
    assert facts(tmp_path / "a.mp4")[3] == pytest.approx(fps, rel=1e-3)


def test_colours_come_back(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = (200, 60, 30)
    image[:, 32:] = (30, 90, 220)
    encoder = open_encoder(tmp_path / "a.mp4", 15, (64, 64))
    for _ in range(5):
        encoder.write(image)
    encoder.close()
    read = cv2.VideoCapture(str(tmp_path / "a.mp4")).read()[1]
    np.testing.assert_allclose(read[:, 4:28].mean((0, 1)), (200, 60, 30), atol=6)
    np.testing.assert_allclose(read[:, 36:60].mean((0, 1)), (30, 90, 220), atol=6)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.mp4", "a:b.mkv", "-x.mp4", "p%d.mp4", "caf\udce9.mp4"], ids=ascii)
def test_without_pyav_the_program_ffmpeg_encodes(tmp_path, without_pyav, name):
    encoder = write(tmp_path / name, size=(63, 48))
    assert isinstance(encoder, FfmpegEncoder) and encoder.note is None
    plain = tmp_path / f"plain{name[-4:]}"
    (tmp_path / name).rename(plain)
    with av.open(str(plain)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert len(list(container.decode(video=0))) == 30


def test_without_any_encoder_a_note_says_that_no_browser_plays_it(tmp_path, without_pyav, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    encoder = write(tmp_path / "a.mp4")
    assert isinstance(encoder, OpencvEncoder)
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert capture.read()[0]
    if encoder.note is not None:  # an OpenCV of one's own may encode H.264
        assert "no browser plays" in encoder.note and "video" in encoder.note and "\n" not in encoder.note


def test_avi_is_motion_jpeg(tmp_path):
    encoder = write(tmp_path / "a:b.avi")
    assert isinstance(encoder, OpencvEncoder) and encoder.note is None
    (tmp_path / "a:b.avi").rename(tmp_path / "a.avi")
    assert facts(tmp_path / "a.avi")[0] == "mjpeg"


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from vmp_edge.view.recording import Recorder, RecordingError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 256, (20, 240, 320, 3), np.uint8)
path = Path(sys.argv[1])
try:
    with Recorder(path, 15.0) as recorder:
        for index in range(200):
            recorder.write(noise[index % 20], index / 15)
        recorder.finish()
except RecordingError as error:
    print("error:", error)
print("left:", [p.name for p in path.parent.iterdir()])
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, suffix):
    """A limit on the size of files stands for the disk."""
    command = [sys.executable, "-c", FULL, str(tmp_path / f"a{suffix}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("error: ") and "left: []" in done.stdout
    assert "be written" in done.stdout or "written completely" in done.stdout


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(EncodingError):
        PyavEncoder(tmp_path / "nowhere" / "a.mp4", 15, (64, 48))
