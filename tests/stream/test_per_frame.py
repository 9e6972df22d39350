"""A bundle that embeds frame by frame gives the results of the ordinary bundle, and embeds each frame once."""

import threading
import time

import linear_engine
import numpy as np
import pytest
import yaml
from bundles import FRAMES, SIZE, write_bundle
from linear_engine import CHANNELS, LinearEngine, write_linear

from vmp_edge.bundle.reading import Bundle
from vmp_edge.errors import BundleError, UsageError
from vmp_edge.preprocessing import RESIZE_MODES, Preprocessing
from vmp_edge.recognizer import load
from vmp_edge.stream.buffers import ring_memory
from vmp_edge.stream.stream import Stream
from vmp_edge.stream.window import Window

linear_engine.register()


@pytest.fixture(autouse=True)
def fresh_engine():
    yield
    LinearEngine.gate.set()
    LinearEngine.failing = False


@pytest.fixture
def pair(tmp_path):
    """A function that makes two recognisers of one model: without and with a program of its own for the embedding."""
    opened = []

    def make(**options):
        opened.extend(load(write_linear(tmp_path / f"{apart}", apart, **options)) for apart in (False, True))
        LinearEngine.embedded.clear()
        return opened[-2:]

    yield make
    for recognizer in opened:
        recognizer.close()


def noise(count, seed=0, height=20, width=28):
    """Return frames of noise, no two alike, and their times at an uneven 30 frames per second."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.05, count))
    return list(zip(rng.integers(0, 256, (count, height, width, 3), np.uint8), times.tolist(), strict=True))


SPACINGS = [
    {"hop": 1},
    {"hop": 3, "stride": 2},
    {"hop": 4, "stride": 3},
    {"hop": 13, "stride": 1},
    {"hop": 2, "fps": 11.3},
    {"hop": 5, "fps": 90.0},
]


@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
@pytest.mark.parametrize("tubelet", [1, 2, 4])
def test_a_whole_video_gives_the_same(pair, spacing, tubelet):
    plain, apart = (Stream(recognizer, **spacing) for recognizer in pair(tubelet=tubelet))
    windows = 0
    for index, (frame, moment) in enumerate(noise(90)):
        if index == 50:  # a source that starts again
            plain.reset()
            apart.reset()
        reference, prediction = plain.push(frame, moment), apart.push(frame, moment)
        assert (reference is None) == (prediction is None)
        if reference is not None:
            windows += 1
            facts = [(result.frame, result.label, result.timestamp) for result in (reference, prediction)]
            assert facts[0] == facts[1]
            np.testing.assert_allclose(prediction.scores, reference.scores, atol=1e-5, rtol=0)
    assert windows > 3
    assert 0 < len(LinearEngine.embedded) <= 90


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("resize", RESIZE_MODES)
@pytest.mark.parametrize("shape", [(20, 28), (70, 30), (SIZE, SIZE), (3, 9)], ids=str)
def test_resizing_first_and_normalising_later_is_the_same(pair, resize, shape, bgr):
    recognizers = pair(preprocessing=Preprocessing(SIZE, resize))
    plain, apart = (Stream(recognizer, stride=1, hop=1, bgr=bgr) for recognizer in recognizers)
    for frame, moment in noise(FRAMES, 1, *shape):
        reference, prediction = plain.push(frame, moment), apart.push(frame, moment)
        frame[:] = 0  # not kept
    np.testing.assert_allclose(prediction.scores, reference.scores, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("spacing", "period"), [({"stride": 4, "hop": 4}, 4), ({"stride": 3, "hop": 6}, 3)])
def test_only_what_a_window_takes_is_embedded_and_once(pair, spacing, period):
    _, apart = pair(tubelet=2)
    stream = Stream(apart, **spacing)
    last = [i for i, (frame, moment) in enumerate(noise(60)) if stream.push(frame, moment) is not None][-1]
    assert len(LinearEngine.embedded) == last // period + 1
    assert len({frame.tobytes() for frame in LinearEngine.embedded}) == len(LinearEngine.embedded)


def test_frames_that_a_slow_recogniser_drops_are_not_embedded(pair):
    plain, apart = pair(tubelet=2)
    frames, predictions = noise(200), []
    with Stream(apart, hop=1, stride=1, smoothing=None).start(predictions.append) as stream:
        memory = stream.memory
        LinearEngine.gate.clear()
        for frame, moment in frames:
            stream.feed(frame, moment)
        assert stream.memory == memory
        LinearEngine.gate.set()
    assert 0 < predictions[-1].dropped == 200 - len(LinearEngine.embedded)
    for prediction in predictions:
        window = np.stack([frame for frame, _ in frames[prediction.frame - FRAMES + 1 : prediction.frame + 1]])
        np.testing.assert_allclose(prediction.scores, plain.predict(window).scores, atol=1e-5)


def test_reset_while_a_window_is_recognised(pair):
    """Tokens of a frame that was forgotten do not come back with the next frame in the same slot."""
    plain, apart = pair()
    stream, reference = (Stream(recognizer, hop=1, stride=1, smoothing=None) for recognizer in (apart, plain))
    stop = threading.Event()

    def reset():
        while not stop.is_set():
            stream.reset()
            time.sleep(0.001)

    thread = threading.Thread(target=reset)
    thread.start()
    try:
        for index, (frame, _) in enumerate(noise(300)):
            stream.push(frame, float(index))
    finally:
        stop.set()
        thread.join()
    stream.reset()
    for index, (frame, _) in enumerate(noise(30, 2)):
        expected, prediction = reference.push(frame, index), stream.push(frame, index)
    np.testing.assert_allclose(prediction.scores, expected.scores, atol=1e-5)


def test_after_a_failure_the_frames_are_still_there(pair):
    plain, apart = pair()
    reference, stream = (Stream(recognizer, hop=1, stride=1, smoothing=None) for recognizer in (plain, apart))
    for index, (frame, moment) in enumerate(noise(12)):
        expected = reference.push(frame, moment)
        LinearEngine.failing = index == 6
        if index == 6:
            with pytest.raises(BundleError, match="broke"):
                stream.push(frame, moment)
        else:
            prediction = stream.push(frame, moment)
    np.testing.assert_allclose(prediction.scores, expected.scores, atol=1e-5)


def test_the_ring_takes_less_memory(pair):
    plain, apart = (Stream(recognizer, stride=1) for recognizer in pair())
    slots = Window(FRAMES).capacity + FRAMES + 1
    assert plain.memory == slots * 3 * SIZE * SIZE * 4
    assert apart.memory <= slots * 3 * SIZE * SIZE + 3 * SIZE * SIZE * 4  # a picture, and one frame
    for stream in (plain, apart):
        assert ring_memory(stream.recognizer.manifest, stream.window) == stream.memory, "as `info` says it"


# The recogniser


@pytest.mark.parametrize("tubelet", [1, 2])
def test_a_clip_gives_the_same(pair, tubelet):
    plain, apart = pair(tubelet=tubelet)
    clip = np.stack([frame for frame, _ in noise(11)])
    np.testing.assert_allclose(apart.predict(clip).scores, plain.predict(clip).scores, atol=1e-5)
    video = np.random.default_rng(0).standard_normal((3, 3, FRAMES, SIZE, SIZE), np.float32)
    np.testing.assert_allclose(apart.predict_video(video), plain.predict_video(video), atol=1e-5)


def test_wrong_frames_and_tokens_are_refused(pair):
    plain, apart = pair(tubelet=2)
    assert plain.frame_tokens is None and apart.frame_tokens == (4, 2, CHANNELS)
    frame, tokens = np.zeros((3, SIZE, SIZE), np.float32), np.zeros((1, 2, 4, CHANNELS), np.float32)
    assert apart.embed(frame).shape == apart.frame_tokens and apart.predict_tokens(tokens).shape == (1, 3)
    for wrong in (frame[0], frame.astype(np.float64), frame[:, ::-1], None):
        with pytest.raises(UsageError, match="a frame for this bundle"):
            apart.embed(wrong)
    for wrong in (tokens[0], tokens[:, :1], tokens.astype(np.float64)):
        with pytest.raises(UsageError, match="tokens for this bundle"):
            apart.predict_tokens(wrong)
    for call, argument in ((plain.embed, frame), (plain.predict_tokens, tokens)):
        with pytest.raises(UsageError, match="build it with --per-frame"):
            call(argument)
    apart.close()
    for call, argument in ((apart.embed, frame), (apart.predict_tokens, tokens)):
        with pytest.raises(UsageError, match="closed"):
            call(argument)


# The bundle


def test_only_bundles_with_an_embedding_have_the_new_format(tmp_path):
    """A reader that knows format 1 alone would run the program on frames, so it must refuse the bundle."""
    for apart, version in ((False, 1), (True, 2)):
        path = write_linear(tmp_path / f"{apart}", apart)
        manifest = yaml.safe_load((path / "manifest.yaml").read_text())
        assert manifest["format"] == version and ("embedding" in manifest) == apart
        assert Bundle.open(path).embedding == (path / "embedding.bin" if apart else None)
    assert yaml.safe_load((write_bundle(tmp_path / "b") / "manifest.yaml").read_text())["format"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("embedding"), "lacks 'embedding'"),
        (lambda e: e.update(embedding="other.bin"), "not among its files"),
        (lambda e: e.update(embedding=3), "needs a text"),
        (lambda e: e["model"].pop("tubelet_size"), "lacks 'model.tubelet_size'"),
        (lambda e: e["model"].update(tubelet_size=3), "does not divide its frames"),
        (lambda e: e["model"].update(patch_size=0), "at least 1"),
        (lambda e: e["model"].update(patch_size=7), "does not divide its image_size"),
        (lambda e: e["model"].update(embed_dim="6"), "whole number"),
        (lambda e: e["files"]["embedding.bin"].update(sha256="0" * 64), "damaged"),
    ],
)
def test_wrong_embeddings_are_one_line(tmp_path, change, message):
    path = write_linear(tmp_path / "b", True)
    entries = yaml.safe_load((path / "manifest.yaml").read_text())
    change(entries)
    (path / "manifest.yaml").write_text(yaml.safe_dump(entries))
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
