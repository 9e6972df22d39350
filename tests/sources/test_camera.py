"""Cameras, played by a stand-in for OpenCV's VideoCapture, because there is none where tests run."""

import os
import shutil
import signal
import threading
import time

import cv2
import numpy as np
import pytest
from source_helpers import error_of, open_source

from vmp_edge.errors import SourceError
from vmp_edge.sources import Pauses
from vmp_edge.sources import camera as camera_module
from vmp_edge.sources.camera import find_camera


class FakeCamera:
    """A VideoCapture of a camera that is unplugged after some frames, and is back some openings later."""

    plan: list  # the number of frames that each opening gives; 0 if it fails
    opened: int  # the number of openings so far

    def __init__(self, address, backend=0):
        self.left = self.plan[min(type(self).opened, len(self.plan) - 1)]
        type(self).opened += 1
        self.shape = (8, 8) if address == 9 else (8, 8, 3)

    def isOpened(self):  # noqa: N802
        return self.left > 0

    def read(self):
        if self.left == 0:
            return False, None
        self.left -= 1
        return True, np.full(self.shape, 7, np.uint8)

    def get(self, property_id):
        return {cv2.CAP_PROP_FPS: 25.0}.get(property_id, -1.0)

    def release(self):
        pass


@pytest.fixture
def camera(monkeypatch):
    FakeCamera.plan, FakeCamera.opened = [10**9], 0
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    return FakeCamera


def test_a_camera_is_live_and_has_times_of_the_monotonic_clock(camera):
    source = open_source("0")
    assert source.live and source.fps == 25.0 and source.frame_count is None
    before = time.monotonic()
    frame = source.read()
    assert before <= frame.timestamp <= time.monotonic()


def test_a_grey_camera_gives_three_channels(camera):
    assert open_source("9").read().image.shape == (8, 8, 3)


def test_a_camera_that_vanishes_is_tried_again_until_it_is_back(camera):
    camera.plan = [5, 0, 0, 0, 10**9]
    messages = []
    source = open_source("/dev/video0", messages.append)
    frames = [source.read() for _ in range(10)]
    assert [frame.restarted for frame in frames] == [False] * 5 + [True] + [False] * 4
    assert camera.opened == 5
    assert "gives no more frames; trying again in 0.01 s" in messages[0]
    waits = [text.rpartition(" in ")[2] for text in messages[:4]]
    assert waits == ["0.01 s", "0.02 s", "0.04 s", "0.08 s"], "each wait is longer, up to the longest"
    assert messages[4] == "camera /dev/video0 is back"


def test_a_camera_that_is_missing_at_first_is_an_error_at_once(camera):
    camera.plan = [0]
    assert "camera 99 cannot be opened: there is no /dev/video99" in error_of("99")
    assert camera.opened == 1


def test_closing_ends_the_wait_for_a_camera(camera):
    camera.plan = [1, 0]
    gone = threading.Event()
    source = open_source("0", lambda text: gone.set(), pauses=Pauses(3600.0, 3600.0))
    frames = []
    reader = threading.Thread(target=lambda: frames.extend(iter(source.read, None)))
    reader.start()
    assert gone.wait(timeout=60)
    source.close()
    reader.join(timeout=60)
    assert not reader.is_alive() and len(frames) == 1


@pytest.fixture
def hanging(camera, monkeypatch):
    """A driver that does not come back from opening a camera, until the event that this gives is set."""
    go_on, original = threading.Event(), camera.__init__

    def hang(self, address, backend=0):
        go_on.wait(60)
        original(self, address, backend)

    monkeypatch.setattr(camera, "__init__", hang)
    yield go_on
    go_on.set()


def test_the_opening_of_a_camera_that_hangs_can_be_ended(hanging, camera, monkeypatch):
    released, cancelled, errors = threading.Event(), threading.Event(), []
    monkeypatch.setattr(camera, "release", lambda self: released.set())

    def opening():
        with pytest.raises(SourceError) as caught:
            open_source("0", cancelled=cancelled)
        errors.append(str(caught.value))

    thread = threading.Thread(target=opening)
    thread.start()
    cancelled.set()
    thread.join(timeout=60)
    assert errors == ["camera 0 was closed while it was being opened"]
    assert not released.is_set()
    hanging.set()
    assert released.wait(60), "a camera that opens after all is closed"


def test_an_interrupt_ends_the_opening_of_a_camera_that_hangs(hanging, camera):
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            open_source("0")
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert camera.opened == 0


def test_a_camera_that_does_not_answer_is_reported(hanging, monkeypatch):
    monkeypatch.setattr("vmp_edge.sources.waiting._SILENCE", 0.01)
    messages = []

    def note(text):
        messages.append(text)
        hanging.set()

    assert open_source("0", note).read() is not None
    assert messages == ["camera 0 has not answered for 0.01 s; still waiting"]


def test_a_path_is_opened_as_a_camera_and_not_as_a_file(camera, monkeypatch, tmp_path):
    opened, original = [], camera.__init__

    def note(self, address, backend=0):
        opened.append((address, backend))
        original(self, address)

    monkeypatch.setattr(camera, "__init__", note)
    (tmp_path / "front").symlink_to(os.devnull)  # any character device is a camera
    assert open_source(str(tmp_path / "front")).read() is not None
    assert opened == [(os.devnull, cv2.CAP_V4L2)]


@pytest.fixture
def cameras(tmp_path, monkeypatch):
    """Two cameras as Linux lists them, by name and by id. The first has a second device for metadata."""
    monkeypatch.setattr(camera_module, "KERNEL", tmp_path / "sys")
    monkeypatch.setattr(camera_module, "DEVICES", tmp_path / "dev")
    devices = [("video10", "HD Webcam: HD Webcam", 0), ("video2", "HD Webcam: HD Webcam", 1), ("video3", "Grabber", 0)]
    for device, name, index in devices:
        (tmp_path / "sys" / device).mkdir(parents=True)
        (tmp_path / "sys" / device / "name").write_text(name + "\n")
        (tmp_path / "sys" / device / "index").write_text(f"{index}\n")
    links = tmp_path / "dev" / "v4l" / "by-id"
    links.mkdir(parents=True)
    (links / "usb-Acme_HD_Webcam_0A1B-video-index0").symlink_to("../../video10")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("HD Webcam: HD Webcam", "video10"),
        ("grab", "video3"),
        ("usb-Acme_HD_Webcam_0A1B-video-index0", "video10"),
        ("acme", "video10"),
    ],
)
def test_a_camera_is_found_by_its_name_or_a_part_of_it(cameras, name, device):
    assert find_camera(name).resolve() == cameras / "dev" / device


def test_a_name_that_no_camera_or_several_have_is_an_error(cameras):
    text = error_of("camera:Acme 9")
    assert "no camera is called 'Acme 9'" in text and "'Grabber'" in text and "'HD Webcam: HD Webcam'" in text
    (cameras / "sys" / "video3" / "name").write_text("HD Webcam: HD Webcam\n")
    text = error_of("camera:webcam:")
    assert "several cameras" in text and "video3" in text and "video10" in text and "video2," not in text
    for name in ("", "  "):
        assert "no camera" in error_of(f"camera:{name}") or "several" in error_of(f"camera:{name}")
    shutil.rmtree(cameras / "sys")
    shutil.rmtree(cameras / "dev")
    assert "none is connected" in error_of("camera:grab")


def test_a_named_camera_may_come_back_as_another_device(cameras, camera, monkeypatch):
    opened, original = [], camera.__init__

    def note_address(self, address, backend=0):
        opened.append(address)
        original(self, address)

    monkeypatch.setattr(camera, "__init__", note_address)
    camera.plan = [2, 10**9]
    source = open_source("camera:Grabber", (messages := []).append)
    source.read()
    source.read()
    (cameras / "sys" / "video3").rename(cameras / "sys" / "video4")
    assert source.read().restarted
    assert opened == [str(cameras / "dev" / "video3"), str(cameras / "dev" / "video4")]
    assert messages[-1] == "camera Grabber is back"
