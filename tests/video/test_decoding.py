"""Decoding by PyAV and by OpenCV: frame times, bad frames, short files, pixels, rotation and names."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from source_helpers import open_source, read_all
from videos import av, damage_file, decodable, make_video, own_times

from vmp_edge.errors import SourceError
from vmp_edge.video import open_decoder


def thinned(index):
    """A time that skips two of three after the tenth frame, as a camera in the dark does."""
    return index if index < 10 else 10 + 3 * (index - 10)


@pytest.fixture(params=["pyav", "opencv"])
def reader(request, monkeypatch):
    """Both ways of reading. The second is what a machine without PyAV has."""
    if request.param == "opencv":
        monkeypatch.setitem(sys.modules, "av", None)
    return request.param


def read(path):
    messages = []
    source = open_source(str(path), messages.append)
    frames = read_all(source)
    return source, frames, messages


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "webm", "flv"])
def test_a_variable_rate_file_has_its_own_times(tmp_path, suffix, monkeypatch):
    codec = "libvpx" if suffix == "webm" else "libx264"
    path = make_video(tmp_path / f"a.{suffix}", 30, ticks=thinned, codec=codec)
    expected = own_times(path)
    assert expected == pytest.approx([thinned(i) / 15 for i in range(30)], abs=0.002)
    _, frames, messages = read(path)
    assert [frame.timestamp for frame in frames] == pytest.approx(expected, abs=1e-6) and not messages
    if suffix in ("mp4", "mkv"):
        monkeypatch.setitem(sys.modules, "av", None)
        _, frames, _ = read(path)
        assert [frame.timestamp for frame in frames] == pytest.approx(expected, abs=1e-6)


def test_the_first_frame_is_at_zero_though_the_file_starts_late(tmp_path):
    path = make_video(tmp_path / "a.mkv", 10, ticks=lambda index: index + 400)
    assert [frame.timestamp for frame in read(path)[1]] == pytest.approx([i / 15 for i in range(10)], abs=0.001)


def test_frames_out_of_order_in_a_container_without_times_are_in_order(tmp_path):
    """AVI has no times, so that B-frames have none."""
    path = make_video(tmp_path / "a.avi", 24, options={"bf": "3"})
    assert [frame.timestamp for frame in read(path)[1]] == pytest.approx([i / 15 for i in range(24)])


def test_a_raw_stream_has_no_times_and_follows_its_codecs_rate(tmp_path):
    path = make_video(tmp_path / "a.h264", 20, rate=15, format="h264")
    source, frames, _ = read(path)
    assert source.fps == 15
    assert [frame.timestamp for frame in frames] == [index / 15 for index in range(20)]


def test_frames_that_cannot_be_decoded_are_counted_and_the_others_are_read(tmp_path, reader):
    path = damage_file(make_video(tmp_path / "a.mp4", 90, options={"g": "12", "bf": "0"}))
    expected = decodable(path)
    source, frames, messages = read(path)
    assert 30 < expected < 90 and len(frames) == expected
    assert source.undecodable == 90 - expected
    assert messages == [f"{path}: {90 - expected} of 90 frames could not be decoded"]
    times = [frame.timestamp for frame in frames]
    assert times == sorted(set(times)) and times[-1] == pytest.approx(89 / 15, abs=0.001)
    numbers = [round(frame.timestamp * 15) for frame in frames]
    wrong = [n for n, frame in zip(numbers, frames, strict=True) if abs(frame.image[20:].mean() - 20 - n) > 12]
    assert len(wrong) < 12, "each frame is where it belongs; a few show the damage"


@pytest.mark.parametrize("suffix", ["avi", "mkv", "ts"])
def test_containers_that_are_damaged_themselves_are_read_to_the_end(tmp_path, suffix):
    """Not every frame's place in the file can be found then, but the last frames are there."""
    path = damage_file(make_video(tmp_path / f"a.{suffix}", 90, options={"g": "12", "bf": "0"}))
    source, frames, messages = read(path)
    assert len(frames) >= decodable(path) > 30
    assert abs(frames[-1].image[20:].mean() - 20 - 89) < 5
    if suffix == "avi":
        assert source.undecodable == 90 - len(frames)
        assert messages == [f"{path}: {90 - len(frames)} of 90 frames could not be decoded"]


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_a_file_that_is_cut_off_says_so(tmp_path, reader, suffix):
    container = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = make_video(tmp_path / f"a.{suffix}", 90, container=container)
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    source, frames, messages = read(path)
    assert 10 < len(frames) < 90
    assert f"the file ended after {len(frames)} of 90 frames" in source.damage
    assert messages == [f"{path}: {source.damage}"]


def test_a_file_without_an_index_that_is_cut_off_says_how_long_it_was(tmp_path):
    path = make_video(tmp_path / "a.mkv", 90)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    _, frames, messages = read(path)
    assert 0 < len(frames) < 70 and len(messages) == 1 and "of 6.0 s" in messages[0]


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts", "webm", "flv", "mov"])
def test_a_whole_file_gives_no_message(tmp_path, reader, suffix):
    path = make_video(tmp_path / f"a.{suffix}", 40, codec="libvpx" if suffix == "webm" else "libx264")
    source, frames, messages = read(path)
    assert len(frames) == 40 and not messages and source.undecodable == 0 and source.damage is None


def test_a_trimmed_video_whose_index_has_more_frames_gives_no_message(tmp_path):
    """Phones trim a video by an edit list: the frames outside stay in the file and are not shown."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    whole = make_video(tmp_path / "whole.mp4", 60, options={"g": "60", "bf": "0"})
    path = tmp_path / "trimmed.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "2", "-i", whole, "-c", "copy", path], check=True)
    source, frames, messages = read(path)
    assert not messages and source.damage is None and frames[0].timestamp == 0
    assert [frame.timestamp for frame in frames] == pytest.approx([i / 15 for i in range(len(frames))], abs=0.001)


def test_stopping_before_the_end_says_only_what_was_seen(tmp_path):
    path = damage_file(make_video(tmp_path / "a.mp4", 90, options={"g": "12", "bf": "0"}))
    messages = []
    source = open_source(str(path), messages.append)
    for _ in range(5):
        source.read()
    source.close()
    assert not messages and source.read() is None


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("limited.mp4", "libx264", "yuv420p"),
        ("full.avi", "mjpeg", "yuvj420p"),
        ("ten.mkv", "ffv1", "yuv420p10le"),
        ("grey.mkv", "ffv1", "gray"),
        ("deep-grey.mkv", "ffv1", "gray10le"),
        ("alpha.mkv", "ffv1", "yuva420p"),
        ("rgb.mkv", "ffv1", "bgr0"),
        ("odd.mkv", "ffv1", "yuv420p"),
        ("fine.mkv", "ffv1", "yuv444p"),
    ],
)
def test_pixels_are_those_that_opencv_gives(tmp_path, name, codec, pixels, monkeypatch):
    size = (63, 47) if name == "odd.mkv" else (64, 48)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    with av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream(codec, rate=15)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        output.mux(stream.encode(None))
    ours = [frame.image for frame in read(tmp_path / name)[1]]
    monkeypatch.setitem(sys.modules, "av", None)
    theirs = [frame.image for frame in read(tmp_path / name)[1]]
    assert len(ours) == len(theirs) == 3
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == np.uint8 and one.shape == (size[1], size[0], 3)
        assert np.abs(one.astype(int) - other).max() <= 2


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_phones_rotation_is_undone(tmp_path, angle):
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    plain, turned = make_video(tmp_path / "plain.mp4", 3), tmp_path / "turned.mp4"
    rotate = ["-metadata:s:v", f"rotate={angle}"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", plain, "-c", "copy", *rotate, turned], check=True)
    capture = cv2.VideoCapture(str(turned))
    expected = capture.read()[1]
    if expected.shape == (48, 64, 3) and angle != 180:
        pytest.skip("this ffmpeg writes no rotation in that way")
    assert np.array_equal(read(turned)[1][0].image, expected)


NAMES = [b"a:1.mp4", b"caf\xe9.mp4", b"-x.mp4", b"p%03d.mp4", b"a b?*[1].mp4", "ü€.mp4".encode(), b"concat:a|b.mp4"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_can_be_read(tmp_path, reader, name, monkeypatch):
    path = make_video(tmp_path / "plain.mp4", 5)
    monkeypatch.chdir(tmp_path)
    path.rename(os.fsdecode(name))
    source = open_source(os.fsdecode(name))
    assert len(read_all(source)) == 5


def test_a_folder_with_any_name_can_be_read_from(tmp_path, reader):
    folder = tmp_path / os.fsdecode(b"\xe9:%d")
    folder.mkdir()
    path = make_video(tmp_path / "plain.mp4", 5)
    path.rename(folder / "a.mp4")
    assert len(read_all(open_source(str(folder / "a.mp4")))) == 5


def test_what_is_no_video_is_one_line(tmp_path, reader):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match=r"cannot be opened as a video"):
        open_source(str(tmp_path / "a.mp4"))


def test_a_file_with_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mka"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
    with pytest.raises(SourceError, match="no pictures"):
        open_source(str(tmp_path / "a.mka"))


def test_a_playlist_does_not_make_ffmpeg_open_a_url(tmp_path):
    """A file from somebody else must not reach into the network."""
    (tmp_path / "a.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(SourceError):
        open_source(str(tmp_path / "a.m3u8"))


def test_metadata_that_is_not_utf8_does_no_harm(tmp_path):
    path = make_video(tmp_path / "a.avi", 5, codec="mjpeg", options={})
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xe9\xff\xfe\xe8"))
    assert len(read(path)[1]) == 5


def test_the_decoder_says_what_the_file_says(tmp_path, reader):
    decoder = open_decoder(str(make_video(tmp_path / "a.mp4", 20)), "a.mp4")
    assert (decoder.live, decoder.fps, decoder.frame_count) == (False, 15, 20)
    decoder.close()
