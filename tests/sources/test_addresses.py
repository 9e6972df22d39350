"""What `open_source` takes an address for."""

import os
import socket

import cv2
import pytest
from bundles import grey
from source_helpers import error_of, open_source, read_all

from vmp_edge.sources import AddressError, is_live_address
from vmp_edge.sources.camera import is_camera
from vmp_edge.sources.gstreamer import is_pipeline


@pytest.mark.parametrize(
    "text",
    [
        "videotestsrc ! videoconvert",
        "uridecodebin uri=file:///tmp/a.mp4 ! videoconvert",
        "uridecodebin uri=file:///tmp/a.mp4",
        "v4l2src device=/dev/video0",
        "rtspsrc location=rtsp://u:p@cam/1 latency = 0 ! rtph264depay ! decodebin",
        "rtsp://cam/1 ! decodebin",
        "a!b",
        "videotestsrc " + "name=x ! identity " * 40,  # longer than a file's name may be
    ],
)
def test_pipelines_are_known_by_their_elements_also_with_urls_in_them(text):
    assert is_pipeline(text) and is_live_address(text)


@pytest.mark.parametrize("text", ["rtsp://u:pa!ss@cam/1", "http://host/a!b?c=d", "RTSP://cam/1"])
def test_a_url_with_an_exclamation_mark_is_a_url(text):
    assert not is_pipeline(text) and is_live_address(text)


@pytest.mark.parametrize("text", ["clip.mp4", "my clip.mp4", "file:///tmp/a.mp4", "-", "raw:4x4:bgr", "pictures/", ""])
def test_files_pictures_and_pipes_are_no_live_sources(text):
    assert not is_pipeline(text) and not is_live_address(text)


def test_a_file_whose_name_looks_like_a_pipeline_or_a_url_is_a_file(tmp_path, video, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a ! b.avi", "a x=1.avi", "a%20b.avi", "c d.avi"):
        (tmp_path / name).write_bytes(video.read_bytes())
        assert not is_live_address(name)
        assert len(read_all(open_source(name))) == 60
    for url in ("a%20b.avi", "c%20d.avi", "c d.avi"):
        assert len(read_all(open_source(f"file://{tmp_path}/{url}"))) == 60
    assert len(read_all(open_source(f"file://localhost{tmp_path}/c%20d.avi"))) == 60


def test_any_character_device_and_links_to_it_are_cameras(tmp_path):
    link = tmp_path / "cam_front"
    link.symlink_to(os.devnull)
    assert is_camera(str(link)) and is_camera("/dev/zero")
    assert f"camera {link} cannot be opened: {link} (a link to /dev/null) is no video device" in error_of(str(link))
    link.unlink()
    assert "does not exist" in error_of(str(link))


def test_a_device_that_is_not_there_is_a_camera_that_is_not_connected():
    assert "camera /dev/cam_front cannot be opened: there is no /dev/cam_front" in error_of("/dev/cam_front")
    assert not is_camera("/dev/shm/clip.mp4") and not is_camera("/dev/fd/9999")
    assert "there is no /dev/video99999999999" in error_of("99999999999")


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "is a socket and no video" in error_of(str(tmp_path / "socket"), AddressError)
    for text in ("nothing.mp4", "", "a\0b", "x" * 5000):
        error_of(text, AddressError)


def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may read everything")
    (tmp_path / "closed").mkdir(mode=0)
    assert "Permission denied" in error_of(str(tmp_path / "closed" / "a.mp4"))


def test_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    content = cv2.imencode(".png", grey(70))[1].tobytes()
    for name in (b"\xe9" + b"1.png", b"\xff2.png"):
        (folder / os.fsdecode(name)).write_bytes(content)
    assert [int(frame.image[0, 0, 0]) for frame in read_all(open_source(str(folder)))] == [70, 70]
    error_of(str(tmp_path / os.fsdecode(b"no\xe9.mp4")), AddressError)
