"""SIGTERM ends the program while a source hangs: while it is opened, and while it is read."""

import os
import signal
import threading
from pathlib import Path

import pytest
from commands import RUN, start

# An OpenCV whose camera 0 hangs when it is opened, and camera 1 when it is read: in C code, which no signal ends.
CAMERAS = """
import ctypes, sys, cv2, numpy

class Camera:
    def __init__(self, address, *options):
        self.address, self.left = address, 8
        if address == 0:
            self.hang()

    def hang(self):
        print("hangs", file=sys.stderr, flush=True)
        ctypes.CDLL(None).sleep(600)

    def read(self):
        self.left -= 1
        if self.left == 0:
            self.hang()
        return True, numpy.zeros((48, 64, 3), numpy.uint8)

    isOpened = lambda self: True
    get = lambda self, number: 0.0
    release = lambda self: None

cv2.VideoCapture = Camera
"""
OPTIONS = {"run": ["--headless", "--json"], "serve": ["--port", "0"]}


def terminated(process):
    """End a process by SIGTERM, and return its exit code. What it says meanwhile is read and forgotten."""
    threading.Thread(target=process.stderr.read, daemon=True).start()
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=60)
    finally:
        process.kill()


@pytest.mark.parametrize("camera", ["0", "1"])
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_camera_whose_driver_hangs(bundle, command, camera):
    process = start(CAMERAS + RUN, command, bundle, "--source", camera, *OPTIONS[command])
    assert any("hangs" in line for line in process.stderr)
    assert terminated(process) in (143, -signal.SIGTERM)


@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_pipeline_that_hangs_leaves_no_process_behind(bundle, endless, command, tmp_path):
    code, options = endless
    note = tmp_path / "pid"
    options["env"]["NOTE"] = str(note)
    process = start(code, command, bundle, "--source", "hang ! x", *OPTIONS[command], **options)
    while not note.exists():
        assert process.poll() is None
        threading.Event().wait(0.01)
    assert terminated(process) in (143, -signal.SIGTERM)
    assert not Path("/proc", note.read_text()).exists()


@pytest.mark.parametrize("content", [b"", b"YUV4MPEG2 W8 H4 F25:1\n", b"\x1aE\xdf\xa3"])
def test_a_named_pipe_to_which_nobody_writes(bundle, tmp_path, content):
    """With the beginning of a Matroska file, PyAV waits for the rest."""
    os.mkfifo(tmp_path / "ff")
    process = start(RUN, "run", bundle, "--source", tmp_path / "ff", "--headless", "--json")
    with (tmp_path / "ff").open("wb") as pipe:  # waits until the program reads
        pipe.write(content)
        pipe.flush()
        threading.Event().wait(0.2)
        assert terminated(process) == 143
