"""Streams, cameras and live sessions take the same options, by object, by keyword, or as the hop alone."""

from dataclasses import asdict
from pathlib import Path

import pytest
from bundles import make_manifest, write_bundle

import vmp_edge
from vmp_edge.errors import UsageError
from vmp_edge.live import Options, play
from vmp_edge.recognizer import load
from vmp_edge.stream import StreamOptions
from vmp_edge.stream.cameras import Cameras
from vmp_edge.stream.governor import Budget, Governor, Level, ladder
from vmp_edge.stream.motion import MotionGate
from vmp_edge.stream.smoothing import DEFAULT_SMOOTHING
from vmp_edge.stream.stream import Stream
from vmp_edge.stream.window import Window

EVERY_FIELD = {
    "hop": 2,
    "stride": 3,
    "fps": None,
    "smoothing": None,
    "sampling": "recent",
    "motion_gate": 5.0,
    "budget": Budget(0.05),
}


def test_the_defaults_are_those_of_a_stream_without_options(recognizer):
    assert asdict(StreamOptions()) == {
        "hop": 4,
        "stride": None,
        "fps": None,
        "smoothing": asdict(DEFAULT_SMOOTHING),
        "sampling": "uniform",
        "motion_gate": None,
        "budget": None,
    }
    stream = Stream(recognizer)
    assert stream.options == StreamOptions() == Options(Path("bundle")).stream
    assert stream.window == Window(recognizer.frames, stride=1, hop=4)
    assert stream._gate is None and stream._governor is None
    assert stream._smoother.smoothing is DEFAULT_SMOOTHING


def test_options_come_as_an_object_by_keyword_or_as_the_hop_alone(recognizer):
    options = StreamOptions(**EVERY_FIELD)
    for stream in (
        Stream(recognizer, options),
        Stream(recognizer, options=options),
        Stream(recognizer, **EVERY_FIELD),
        Stream(recognizer, 2, **{name: value for name, value in EVERY_FIELD.items() if name != "hop"}),
    ):
        assert stream.options == options
        assert stream.window == Window(recognizer.frames, stride=3, hop=2, sampling="recent")
        assert stream._gate.threshold == 5.0 and stream._smoother is None
        assert stream._governor.budget == Budget(0.05) and stream._governor.levels == ladder(2)
    assert Stream(recognizer, 7).window.hop == Stream(recognizer, hop=7).window.hop == 7


def test_keywords_override_the_object(recognizer):
    options = StreamOptions(hop=2, stride=3)
    assert Stream(recognizer, options, hop=5).options == StreamOptions(hop=5, stride=3)
    assert options.hop == 2


@pytest.mark.parametrize("make", [lambda recognizer, *a, **k: Cameras(recognizer, ["0"], *a, **k), Stream])
def test_wrong_keywords_are_type_errors(recognizer, make):
    for options in (None, 4, StreamOptions()):
        with pytest.raises(TypeError, match="smoothness"):
            make(recognizer, options, smoothness=1)
    with pytest.raises(TypeError, match="hop"):
        make(recognizer, 4, hop=5)
    with pytest.raises(TypeError):
        make(recognizer, 4, 1)  # everything after the hop is given by keyword


def test_values_out_of_range_are_refused(recognizer):
    for change in ({"hop": 0}, {"stride": 0}, {"stride": 2, "fps": 5.0}, {"sampling": "newest"}, {"motion_gate": 0.0}):
        with pytest.raises(UsageError):
            Stream(recognizer, StreamOptions(**change))


def test_a_gate_and_a_governor_count_before_the_options(recognizer):
    gate, governor = MotionGate(7.0), Governor(Budget(1.0), (Level(9),))
    stream = Stream(recognizer, StreamOptions(motion_gate=3.0, budget=Budget(0.05)), gate=gate, governor=governor)
    assert stream._gate is gate and stream._governor is governor and stream.window.hop == 9


def test_the_manifests_frame_rate_is_used_without_stride_and_fps(tmp_path):
    with load(write_bundle(tmp_path / "b", make_manifest(frame_rate=12.5))) as recognizer:
        assert Stream(recognizer, StreamOptions()).window.fps == 12.5
        assert Stream(recognizer, StreamOptions(fps=5.0)).window.fps == 5.0
        assert Stream(recognizer, StreamOptions(stride=2)).window.fps is None


def test_cameras_share_one_object_and_have_gates_and_governors_of_their_own(recognizer):
    options = StreamOptions(**EVERY_FIELD)
    for cameras in (Cameras(recognizer, ["0", "1"], options), Cameras(recognizer, ["0", "1"], **EVERY_FIELD)):
        with cameras:
            first, second = (camera.stream for camera in cameras)
            assert cameras.options == options
            assert first.options is second.options is cameras.options
            assert first._gate is not second._gate and first._governor is not second._governor
            assert first.bgr
    with Cameras(recognizer, ["0"], 3) as cameras:
        assert cameras.options == StreamOptions(hop=3)


def test_a_live_session_hands_its_object_to_the_stream(bundle, video, monkeypatch):
    streams = []

    class RecordedStream(Stream):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            streams.append(self)

    monkeypatch.setattr("vmp_edge.live.player.Stream", RecordedStream)
    options = StreamOptions(hop=2, smoothing=None)
    play(Options(bundle, str(video), headless=True, stream=options), lambda prediction, seconds: None, print)
    (stream,) = streams
    assert stream.options is options and stream.bgr


def test_the_longest_hop_is_that_of_the_cheapest_level():
    assert StreamOptions(hop=3).longest_hop == 3
    assert StreamOptions(hop=3, budget=Budget(0.05)).longest_hop == max(level.hop for level in ladder(3)) == 12


def test_the_package_exports_the_options():
    assert vmp_edge.StreamOptions is StreamOptions
