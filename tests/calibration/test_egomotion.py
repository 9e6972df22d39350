"""Test egomotion-nano: data set, training recipe, released weights, sample clip and demo."""

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from vmp_edge.apps import demo
from vmp_edge.calibration.egomotion import dataset, evaluate, footage, sample, symmetry, train
from vmp_edge.calibration.egomotion.camera import LABELS
from vmp_edge.calibration.egomotion.clips import generate_clip
from vmp_edge.errors import UsageError
from vmp_edge.models import zoo

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
ASSETS = ROOT / "assets"


@pytest.fixture(scope="module")
def model():
    return zoo.load(train.NAME)


@pytest.fixture(scope="module")
def small_pool():
    """New clips, whose numbers neither the training nor the published evaluation uses."""
    drawn = [dataset.draw("test", 900_000 + i) for i in range(150)]
    return dataset.Pool(np.stack([clip for clip, _ in drawn]), np.array([label for _, label in drawn]))


@pytest.mark.parametrize("name", symmetry.SYMMETRIES)
def test_symmetries_undo_themselves(name):
    clips, labels = torch.rand(10, 8, 6, 6, 3), torch.arange(10)
    moved, renamed = symmetry.apply(name, clips, labels)
    assert not torch.equal(moved, clips)
    back, names = symmetry.apply(name, moved, renamed)
    assert torch.equal(back, clips) and torch.equal(names, labels)


def test_symmetries_agree_with_the_model(model, small_pool):
    """The model recognises a transformed clip as its new label, so the swaps of labels are right."""
    clips, labels = torch.from_numpy(small_pool.clips[:100]), torch.from_numpy(small_pool.labels[:100])
    for name in symmetry.SYMMETRIES:
        moved, renamed = symmetry.apply(name, clips, labels)
        with torch.inference_mode():
            right = model.module(dataset.normalise(moved)).argmax(1) == renamed
        assert right.float().mean() > 0.85, name


def test_normalising_is_what_the_device_does():
    clip = generate_clip("zoom-in", (8, 2))
    small = dataset.shrink(clip, dataset.IMAGE_SIZE)
    normalised = dataset.normalise(torch.from_numpy(small)[None]).numpy()
    np.testing.assert_allclose(normalised, dataset.PREPROCESSING.clip(clip), atol=1e-5)


def test_augmentation_is_deterministic(small_pool):
    first, second = (next(dataset.training_batches(small_pool, 20, np.random.default_rng(3))) for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_an_interrupted_pool_is_drawn_again(tmp_path):
    (tmp_path / "train.partial").write_bytes(b"half")
    pool = dataset.make_pool("train", 4, tmp_path / "train.npy", workers=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.npy"]
    assert np.array_equal(pool.clips[3], dataset.draw("train", 3)[0])


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_recipe_learns_a_batch(tmp_path, small_pool, one_thread):
    """A model learns forty clips: initialisation, gradients, learning rates and averaging work together."""
    trainer = train.make_trainer(train.EgomotionTraining(epochs=20, batch=25), small_pool, small_pool, tmp_path)
    video, labels = next(dataset.evaluation_batches(small_pool, 40))
    losses = [trainer.step(20 + i, video, labels) for i in range(40)]
    assert losses[0] > 2.0
    assert np.mean(losses[-5:]) < 1.5
    with torch.inference_mode():
        assert (trainer.averaged_model()(video).argmax(1) == labels).float().mean() > 0.5


def test_a_smaller_model_learns_from_ours(tmp_path, model, small_pool, one_thread):
    recipe = train.EgomotionTraining(
        epochs=20, batch=25, embed_dim=32, depth=1, teacher=str(zoo.FOLDER / "egomotion-nano.pth"), teacher_weight=2.0
    )
    trainer = train.make_trainer(recipe, small_pool, small_pool, tmp_path)
    video, labels = next(dataset.evaluation_batches(small_pool, 40))
    losses = [trainer.step(20 + i, video, labels) for i in range(30)]
    assert losses[-1] < losses[0]
    assert trainer.averaged_model().options.embed_dim == 32
    with pytest.raises(UsageError, match="multiple of 4"):
        train.EgomotionTraining(embed_dim=30)


def test_training_saves_and_goes_on(tmp_path, small_pool, one_thread):
    recipe = train.EgomotionTraining(epochs=2, batch=50, seed=1)
    trainer = train.make_trainer(recipe, small_pool, small_pool, tmp_path)
    trainer.run(_no_progress)
    assert [entry["epoch"] for entry in trainer.history] == [1, 2]
    again = train.make_trainer(recipe, small_pool, small_pool, tmp_path)
    assert again.history == trainer.history
    assert all(torch.equal(value, again.averaged[name]) for name, value in trainer.averaged.items())
    with pytest.raises(UsageError, match="other settings"):
        train.make_trainer(train.QUICK, small_pool, small_pool, tmp_path)


def test_the_commands_work_from_end_to_end(tmp_path, capsys):
    assert train.main(["--output", str(tmp_path), "--quick", "--clips", "40", "--epochs", "1", "--workers", "1"]) == 0
    assert evaluate.main([str(tmp_path), "--clips", "20"]) == 0
    measured = json.loads((tmp_path / "accuracy.json").read_text())
    assert measured["procedural"]["clips"] == np.sum(measured["procedural"]["confusion"]) == 20
    for picture in ("egomotion-confusion.png", "egomotion-curves.png", "egomotion-clips.png"):
        assert cv2.imread(str(tmp_path / picture)) is not None
    assert evaluate.main([str(tmp_path / "nothing")]) == 1
    assert "train first" in capsys.readouterr().err


def test_the_landed_weights_hold_on_fresh_clips(model, small_pool):
    assert model.labels == LABELS
    assert model.preprocessing == dataset.PREPROCESSING
    table = evaluate.confusion(model.module, small_pool)
    assert np.trace(table) / table.sum() >= 0.9


def test_the_landed_weights_are_small_and_say_what_they_reach(model):
    assert (zoo.FOLDER / f"{train.NAME}.pth").stat().st_size < 5_000_000
    assert model.accuracy["procedural"]["top1"] >= 0.95
    assert model.accuracy["footage"]["top1"] >= 0.90


def test_footage_of_a_moving_camera_is_left_out():
    still, moving = (generate_clip(label, (8, 12)) for label in ("still", "pan-left"))
    scene = np.repeat(still[:1], 8, axis=0)
    assert footage.stands_still(scene)
    assert not footage.stands_still(moving)
    assert not footage.stands_still(np.full_like(scene, 128))  # nothing to track: unknown


def test_the_model_holds_on_real_footage(model):
    if not DATA.is_dir():
        pytest.skip(f"no real footage: {DATA} is absent")
    windows = []
    for path in sorted(DATA.rglob("*.mp4"))[::5]:
        windows += [window for window in footage.read_windows(path, 1) if footage.stands_still(window)]
    drawn = [
        dataset.shrink(footage.film(w, LABELS[i % 10], np.random.default_rng([77, i])), dataset.IMAGE_SIZE)
        for i, w in enumerate(windows)
    ]
    table = evaluate.confusion(model.module, dataset.Pool(np.stack(drawn), np.arange(len(drawn)) % 10))
    assert table.sum() >= 20
    assert np.trace(table) / table.sum() >= 0.8  # few clips: the published figure has over a thousand


def test_the_sample_is_what_its_truth_says():
    truth = yaml.safe_load((ASSETS / "egomotion-sample.yaml").read_text())
    segments = truth["segments"]
    assert tuple(truth["labels"]) == LABELS
    assert {s["label"] for s in segments} == set(LABELS)
    assert segments[0]["start"] == 0
    for before, after in itertools.pairwise(segments):
        assert before["start"] < before["end"] == after["start"]
    path = ASSETS / truth["video"]
    assert path.stat().st_size < 2_000_000
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == round(segments[-1]["end"] * video.get(cv2.CAP_PROP_FPS))
    assert [s.label for s in sample.script()] == [s["label"] for s in segments]


def test_the_model_recognises_the_sample(model):
    video = cv2.VideoCapture(str(ASSETS / "egomotion-sample.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    rate, right, total = video.get(cv2.CAP_PROP_FPS), 0, 0
    assert rate == model.frame_rate
    for segment in sample.script():
        for start in range(round(segment.start * rate), round(segment.end * rate) - 7, 3):
            with torch.inference_mode():
                logits = model.module(torch.from_numpy(model.preprocessing.clip(np.stack(frames[start : start + 8]))))
            right += LABELS[int(logits.argmax())] == segment.label
            total += 1
    assert right / total > 0.9


def test_the_demo_reports_right_and_wrong():
    segments = [demo.Segment("still", 0, 1), demo.Segment("shake", 1, 2)]
    segments[0].recognised.update({"still": 3, "shake": 1})
    segments[1].recognised.update({"still": 2})
    result = demo.report(segments)
    assert result["segments_right"] == 1 and result["windows"] == 6 and result["windows_right"] == 3
    assert result["by_label"] == {"still": {"windows": 4, "right": 3}, "shake": {"windows": 2, "right": 0}}


def test_the_demo_names_what_is_missing(tmp_path, capsys):
    assert demo.main(["--truth", str(tmp_path / "none.yaml")]) == 2
    (tmp_path / "bad.yaml").write_text("video: x.mp4\nsegments: 3\n")
    assert demo.main(["--truth", str(tmp_path / "bad.yaml")]) == 2
    (tmp_path / "lone.yaml").write_text("video: x.mp4\nsegments: [{label: still, start: 0, end: 1}]\n")
    assert demo.main(["--truth", str(tmp_path / "lone.yaml")]) == 1
    assert capsys.readouterr().err.count("\n") == 3


class _no_progress:  # noqa: N801
    """Stands in for a progress bar."""

    def __init__(self, **_): ...
    def set_postfix(self, **_): ...
    def update(self): ...
    def close(self): ...
