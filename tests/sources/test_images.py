"""Folders of pictures, which are played as videos."""

import cv2
import pytest
from bundles import grey
from source_helpers import open_source, read_all

from vmp_edge.errors import SourceError, UsageError


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (10, 2, 1, 100):
        cv2.imwrite(str(folder / f"shot{number}.png"), grey(number, 8 + number, 16))
    (folder / "notes.txt").write_text("no picture")
    (folder / "more.png").mkdir()
    (folder / "._shot1.png").write_bytes(b"\x00\x05\x16\x07")  # macOS writes such files
    cv2.imwrite(str(folder / ".shot3.png"), grey(3))
    return folder


def test_pictures_come_in_the_order_of_their_numbers_at_the_requested_rate(pictures):
    source = open_source(str(pictures), fps=4.0)
    assert (source.live, source.fps, source.frame_count) == (False, 4.0, 4)
    frames = read_all(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2, 10, 100]
    assert [frame.timestamp for frame in frames] == [0.0, 0.25, 0.5, 0.75]
    assert source.read() is None
    assert open_source(str(pictures)).fps == 30.0


def test_a_damaged_picture_and_a_rate_that_is_not_positive_are_errors(pictures):
    (pictures / "shot3.png").write_bytes(b"none")
    source = open_source(str(pictures))
    source.read()
    source.read()
    with pytest.raises(SourceError, match=r"shot3\.png cannot be read"):
        source.read()
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="must be positive"):
            open_source(str(pictures), fps=fps)
