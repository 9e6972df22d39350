"""Fixtures that the tests of several commands share."""

import os

import cv2
import pytest
from bundles import SUPPORT, grey
from commands import RUN


@pytest.fixture
def clips(tmp_path):
    """A CSV of three videos. One of them does not exist."""
    for label, values in {"brighter": range(60, 160, 5), "darker": range(160, 60, -5)}.items():
        writer = cv2.VideoWriter(str(tmp_path / f"{label}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 24))
        for value in values:
            writer.write(grey(value))
        writer.release()
    rows = ["path,label,fold", "brighter.avi,brighter,0", "darker.avi,darker,1", "none.avi,steady,1"]
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "clips.csv"


@pytest.fixture
def endless(tmp_path):
    """Code and options for `start`, to run on a source that does not end: a substitute for GStreamer."""
    program = tmp_path / "bin" / "gst-launch-1.0"
    program.parent.mkdir()
    program.write_bytes((SUPPORT / "fake_gst_launch.py").read_bytes())
    program.chmod(0o755)
    code = "import cv2; cv2.videoio_registry.hasBackend = lambda backend: False\n" + RUN
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return code, {"env": {**os.environ, "PATH": path}}
