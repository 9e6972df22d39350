"""Make small videos for the tests' numpy engine, which recognises whether a video becomes brighter or darker."""

import cv2
import numpy as np
import pytest
from bundles import grey

SLOPES = {"brighter": 4, "darker": -4, "steady": 0}


def write_video(path, values, fps=30.0, size=(48, 64)):
    """Write a video of uniformly grey frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size[::-1])
    for value in values:
        writer.write(grey(int(value), *size))
    writer.release()
    return path


@pytest.fixture
def clips_folder(tmp_path):
    """A folder of class folders: three videos of 20 frames for each label."""
    folder = tmp_path / "clips"
    for label, slope in SLOPES.items():
        for i in range(3):
            write_video(folder / label / f"{label}-{i}.avi", 120 + 5 * i + slope * (np.arange(20) - 10))
    return folder


@pytest.fixture
def damaged(clips_folder):
    """The same folder with files that cannot be used: empty, text, truncated, too short, and not a video by name."""
    whole = (clips_folder / "steady" / "steady-0.avi").read_bytes()
    (clips_folder / "steady" / "a-empty.mp4").write_bytes(b"")
    (clips_folder / "steady" / "b-text.mp4").write_text("no video at all")
    (clips_folder / "steady" / "c-broken.avi").write_bytes(whole[:600])
    write_video(clips_folder / "steady" / "d-short.avi", [100, 100, 100])
    (clips_folder / "steady" / "notes.txt").write_text("not a video by its name")
    (clips_folder / ".hidden").mkdir()
    return clips_folder
