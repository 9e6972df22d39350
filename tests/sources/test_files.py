"""Video files: their frames, times and end, and playing them in real time."""

import threading
import time

import cv2
import numpy as np
from source_helpers import error_of, open_source, read_all

from vmp_edge.sources import Paced


def test_a_file_gives_its_frames_at_its_rate_and_ends(video):
    source = open_source(str(video))
    assert (source.live, source.fps, source.frame_count) == (False, 30.0, 60)
    frames = read_all(source)
    assert [frame.timestamp for frame in frames] == [index / 30 for index in range(60)]
    assert all(frame.image.shape == (48, 64, 3) and not frame.restarted for frame in frames)
    brightness = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(brightness, [*range(10, 220, 7), *range(220, 10, -7)], atol=3)
    assert source.read() is None


def test_a_file_url_is_a_file(video):
    assert len(read_all(open_source(f"file://{video}"))) == 60


def test_the_channels_are_bgr(tmp_path):
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 0] = 255
    cv2.imwrite(str(tmp_path / "blue.png"), picture)
    frame = read_all(open_source(str(tmp_path / "blue.png")))[0].image
    assert frame[0, 0].tolist() == [255, 0, 0]


def test_the_error_says_why_a_path_is_not_a_video(tmp_path):
    assert "does not exist" in error_of("nothing.mp4")
    assert "has no pictures" in error_of(str(tmp_path))
    (tmp_path / "text.mp4").write_text("hello")
    assert "cannot be opened as a video" in error_of(str(tmp_path / "text.mp4"))
    assert "empty" in error_of("  ")


def test_a_truncated_file_ends_early(tmp_path, video):
    content = video.read_bytes()
    truncated = tmp_path / "truncated.avi"
    truncated.write_bytes(content[: len(content) // 2])
    assert 0 < len(read_all(open_source(str(truncated)))) < 60


def test_paced_plays_at_the_files_own_rate_and_can_be_stopped(video):
    source = Paced(open_source(str(video)))
    assert source.live and source.fps == 30.0
    start = time.monotonic()
    times = [source.read().timestamp for _ in range(10)]
    assert time.monotonic() - start >= 9 / 30 - 0.001  # no frame comes before it is due
    assert times == [index / 30 for index in range(10)]
    threading.Timer(0.05, source.close).start()
    while source.read() is not None:
        pass
