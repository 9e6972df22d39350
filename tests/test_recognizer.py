"""The recogniser, from clip to label, and the engines that it loads."""

import math
import threading
from dataclasses import asdict

import brightness_engine
import numpy as np
import pytest
from bundles import FRAMES, SIZE, grey, make_manifest, write_bundle

import vmp_edge
from vmp_edge import engines
from vmp_edge.bundle.writing import staged_bundle
from vmp_edge.errors import BundleError, MissingDependencyError, UsageError
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.recognizer import load, sample_evenly, softmax

RISING = np.stack([grey(value) for value in (10, 60, 110, 160)])


def test_predict_gives_label_score_and_scores(recognizer):
    prediction = recognizer.predict(RISING)
    assert prediction.label == "brighter" and recognizer.predict(RISING[::-1]).label == "darker"
    assert recognizer.predict(RISING[:1]).label == "steady"
    assert prediction.scores.dtype == np.float32 and prediction.scores.shape == (3,)
    assert prediction.score == prediction.scores[0] and abs(prediction.scores.sum() - 1) < 1e-6
    assert [label for label, _ in prediction.top(2)] == ["brighter", "steady"]
    assert prediction.latency > 0 and prediction.timestamp is None


def test_scores_are_the_softmax_of_the_logits(recognizer):
    logits = recognizer.predict_video(recognizer.manifest.preprocessing.clip(RISING))[0]
    exponentials = [math.exp(value) for value in logits]
    expected = [value / sum(exponentials) for value in exponentials]
    np.testing.assert_allclose(recognizer.predict(RISING).scores, expected, rtol=1e-5)
    np.testing.assert_array_equal(softmax(np.array([1000, 1000, -1000], np.float32)), [0.5, 0.5, 0])


@pytest.mark.parametrize(
    ("available", "count", "expected"),
    [
        (4, 4, [0, 1, 2, 3]),
        (8, 4, [1, 3, 5, 7]),
        (1, 4, [0, 0, 0, 0]),
        (2, 4, [0, 0, 1, 1]),
        (100, 1, [50]),
        (9, 3, [1, 4, 7]),
    ],
)
def test_frames_are_sampled_evenly(available, count, expected):
    assert sample_evenly(available, count) == expected


def test_any_number_of_frames_of_any_size(recognizer):
    long = np.stack([grey(value, 37, 91) for value in range(10, 210, 2)])
    assert recognizer.predict(long).label == "brighter"
    chosen = long[sample_evenly(100, FRAMES)]
    np.testing.assert_array_equal(recognizer.predict(long).scores, recognizer.predict(chosen).scores)


@pytest.mark.parametrize("clip", [None, RISING[0], RISING.astype(np.float32), RISING[:0], RISING[..., :2]])
def test_a_clip_of_another_shape_or_dtype_is_refused(recognizer, clip):
    with pytest.raises(UsageError, match="clip"):
        recognizer.predict(clip)


def test_a_batch_gives_the_same_logits_as_single_videos(recognizer):
    rng = np.random.default_rng(0)
    video = rng.standard_normal((3, 3, FRAMES, SIZE, SIZE)).astype(np.float32)
    together = recognizer.predict_video(video)
    assert together.shape == (3, 3)
    for index in range(3):
        np.testing.assert_allclose(together[index], recognizer.predict_video(video[index : index + 1])[0], rtol=1e-5)
    column_major = np.asfortranarray(video)
    np.testing.assert_allclose(recognizer.predict_video(column_major), together, atol=1e-6)  # sums are in another order


@pytest.mark.parametrize("shape", [(3, FRAMES, SIZE, SIZE), (1, 3, FRAMES + 1, SIZE, SIZE), (1, 1, FRAMES, SIZE, SIZE)])
def test_videos_of_another_shape_are_refused(recognizer, shape):
    with pytest.raises(UsageError, match=r"float32 \(batch, 3, 4, 16, 16\)"):
        recognizer.predict_video(np.zeros(shape, np.float32))
    with pytest.raises(UsageError, match="float64"):
        recognizer.predict_video(np.zeros((1, 3, FRAMES, SIZE, SIZE)))


def test_outputs_that_are_not_finite_or_of_a_wrong_size_are_errors(tmp_path):
    with (
        load(write_bundle(tmp_path / "b", gain=float("inf"))) as recognizer,
        pytest.raises(BundleError, match="finite"),
    ):
        recognizer.predict(RISING)
    path = write_bundle(tmp_path / "c", make_manifest(labels=("a", "b"), model={}))
    with load(path) as recognizer, pytest.raises(BundleError, match="for 2 labels"):
        recognizer.predict(RISING)


def test_a_closed_recogniser_says_so(bundle):
    recognizer = vmp_edge.load(bundle)
    recognizer.close()
    recognizer.close()
    with pytest.raises(UsageError, match="closed"):
        recognizer.predict(RISING)


def test_each_thread_gets_its_own_results(recognizer):
    wrong = []

    def work(clip, expected):
        for _ in range(100):
            if recognizer.predict(clip).label != expected:
                wrong.append(expected)

    jobs = [(RISING, "brighter"), (RISING[::-1], "darker"), (RISING[:1], "steady")]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Engines


def engine_bundle(path, engine):
    return write_bundle(path, make_manifest(engine=engine))


def test_threads_come_from_the_caller_or_the_manifest(tmp_path, bundle):
    path = write_bundle(tmp_path / "b", make_manifest(threads=3))
    assert load(path)._engine.threads == 3
    assert load(path, threads=2)._engine.threads == 2
    assert load(bundle)._engine.threads is None
    for threads in (0, -1, 1_000_000, 2.0, True):
        with pytest.raises(UsageError, match="at least 1 and at most 1024"):
            load(path, threads=threads)


def test_a_bundle_for_another_cpu_is_refused_by_every_engine(tmp_path):
    path = write_bundle(tmp_path / "b", make_manifest(cpu_features=("avx1024",)))
    with pytest.raises(BundleError, match="needs a CPU with avx1024, which this one lacks"):
        load(path)


def test_the_error_of_an_unknown_engine_lists_the_known_ones(tmp_path):
    with pytest.raises(BundleError, match=r"'abacus', which is unknown here \(there are: executorch, torch"):
        load(engine_bundle(tmp_path / "b", "abacus"))


def test_the_error_of_a_missing_package_says_what_to_install(tmp_path):
    engines.register("incomplete", "no_such_package.engine:Engine", extra="abacus")
    with pytest.raises(MissingDependencyError, match=r"no_such_package.*pip install .*\[abacus\]'"):
        load(engine_bundle(tmp_path / "b", "incomplete"))


def test_an_engine_is_not_registered_under_a_name_that_exists():
    brightness_engine.register()
    with pytest.raises(UsageError, match="already"):
        engines.register("torch", "mine:Engine")
    with pytest.raises(UsageError, match="module:attribute"):
        engines.register("mine", "mine.Engine")


@pytest.fixture(scope="module")
def torch_model():
    torch = pytest.importorskip("torch", reason="the engine `torch` needs PyTorch")
    from vmp_edge.models import ModelOptions, VideoMamba

    torch.manual_seed(0)
    return VideoMamba(ModelOptions(embed_dim=32, depth=2, num_frames=4, image_size=32, num_classes=3)).eval()


def write_torch_bundle(path, model, content=None):
    import torch

    options = asdict(model.options)
    manifest = make_manifest(engine="torch", model=options, preprocessing=Preprocessing(32), program="model.pth")
    with staged_bundle(path) as staging:
        torch.save(content or {"model": model.state_dict(), "options": options}, staging.path / "model.pth")
        staging.add("model.pth")
        staging.seal(manifest)
    return path


def test_the_torch_engine_gives_the_logits_of_the_model(tmp_path, torch_model):
    import torch

    clip = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), np.uint8)
    with load(write_torch_bundle(tmp_path / "b", torch_model)) as recognizer:
        video = recognizer.manifest.preprocessing.clip(clip)
        with torch.no_grad():
            expected = torch_model(torch.from_numpy(video)).numpy()
        logits = recognizer.predict_video(video)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(recognizer.predict(clip).scores, softmax(expected[0]), rtol=1e-4)


@pytest.mark.parametrize("broken", ["options", "weights", "keys", "code"])
def test_a_wrong_torch_program_is_a_one_line_error(tmp_path, torch_model, broken):
    options, state = asdict(torch_model.options), torch_model.state_dict()
    content = {
        "options": {"model": state, "options": {**options, "embed_dim": -1}},
        "weights": {"model": {}, "options": options},
        "keys": {"epoch": 3},
        "code": {"model": threading.Thread, "options": options},  # unpickling it would run code
    }[broken]
    path = write_torch_bundle(tmp_path / "b", torch_model, content)
    with pytest.raises(BundleError, match="not a program of the engine 'torch'") as caught:
        load(path)
    assert "\n" not in str(caught.value)
