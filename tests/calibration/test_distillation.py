"""Test learning from another model: the losses, and training with a larger or smaller teacher."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vmp_edge.calibration.distillation import features_loss, predictions_loss
from vmp_edge.calibration.train.loop import Task, Trainer
from vmp_edge.calibration.train.recipe import TrainingRecipe
from vmp_edge.calibration.train.teacher import load_teacher
from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import ModelOptions, VideoMamba
from vmp_edge.preprocessing import Preprocessing

OPTIONS = ModelOptions(depth=1, patch_size=8, tubelet_size=2, image_size=16, num_frames=4, num_classes=5)


def make(width, seed=0, **options):
    torch.manual_seed(seed)
    model = VideoMamba(dataclasses.replace(OPTIONS, embed_dim=width, **options))
    model.head.weight.data.normal_()  # the small initial weights would give almost equal logits
    return model


def keep(model, path):
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, path)
    return path


@pytest.fixture
def video():
    return torch.randn(12, 3, 4, 16, 16, generator=torch.Generator().manual_seed(2))


def test_losses_are_the_formulas():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3).double()
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    assert float(predictions_loss(student, teacher, 3.0)) == pytest.approx(float(9 * (p * (p / q).log()).sum(1).mean()))
    assert float(predictions_loss(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-12)
    expected = (student - teacher).square().sum() / teacher.square().sum()
    assert float(features_loss(student, teacher)) == pytest.approx(float(expected))


@pytest.mark.parametrize(("student", "teacher"), [(16, 32), (32, 16), (16, 16)])
def test_the_student_comes_closer_to_its_teacher(tmp_path, video, student, teacher):
    """A student learns from a larger and a smaller teacher, with labels that carry no information."""
    recipe = TrainingRecipe(
        epochs=60, batch=12, learning_rate=5e-3, average=0.9, teacher_weight=4.0, feature_weight=1.0, teacher="a file"
    )
    model = make(student, seed=1)
    known = load_teacher(keep(make(teacher), tmp_path / "teacher.pth"), model)
    labels = torch.arange(12) % 5
    trainer = Trainer(recipe, model, Task("t", lambda rng, part: [(video, labels)], 1), tmp_path / "run", known)
    with torch.no_grad():
        expected = known.model(video)

    def distance():
        with torch.no_grad():
            return float(predictions_loss(trainer.averaged_model()(video), expected, 2.0))

    before = distance()
    for step in range(1, 40):
        trainer.step(step, video, labels)
    assert distance() < 0.5 * before
    assert all(value.grad is None for value in known.model.parameters())


def test_a_run_with_a_teacher_goes_on(tmp_path, video):
    """A resumed run also restores the layer between features of different widths."""
    recipe = TrainingRecipe(epochs=1, batch=12, feature_weight=1.0, teacher="a file")
    task = Task("t", lambda rng, part: [(video, torch.arange(12) % 5)], 1)
    teacher = load_teacher(keep(make(32), tmp_path / "teacher.pth"), make(16))
    first = Trainer(recipe, make(16, seed=1), task, tmp_path / "run", teacher)
    first.run(lambda **_: SimpleNamespace(set_postfix=lambda **_: None, update=lambda: None, close=lambda: None))
    torch.manual_seed(9)
    again = Trainer(recipe, make(16, seed=1), task, tmp_path / "run", teacher)
    assert again.history == first.history
    assert torch.equal(again.adapter.weight, first.adapter.weight)


LABELS = ("clap", "jump", "run", "walk", "wave")


def keep_named(model, path, labels=LABELS, mean=(0.5,) * 3, std=(0.25,) * 3):
    preprocessing = {"resize": "stretch", "interpolation": "area", "mean": list(mean), "std": list(std)}
    facts = {"labels": list(labels), "preprocessing": preprocessing}
    torch.save({"model": model.state_dict(), "options": vars(model.options), **facts}, path)
    return path


def test_a_teacher_sees_clips_as_it_is_used_to(tmp_path):
    """Frames of the same moments, of its own size and normalised as its own."""
    known = make(16, num_frames=2, image_size=32)
    path = keep_named(known, tmp_path / "t.pth")
    student = make(24)
    teacher = load_teacher(path, student, LABELS, Preprocessing(16, mean=(0.4,) * 3, std=(0.2,) * 3))
    pictures = torch.rand(3, 3, 4, 1, 1).expand(3, 3, 4, 16, 16)
    logits, tokens = teacher.answer((pictures - 0.4) / 0.2)
    theirs = (pictures[:, :, [1, 3]].repeat_interleave(2, 3).repeat_interleave(2, 4) - 0.5) / 0.25
    with torch.no_grad():
        torch.testing.assert_close(logits, known.eval()(theirs), atol=1e-4, rtol=1e-4)
        expected = known.forward_tokens(theirs)
    assert tokens.shape == (3, 1 + 2 * 4, 16)
    torch.testing.assert_close(tokens[:, 0], expected[:, 0], atol=1e-4, rtol=1e-4)
    means = expected[:, 1:].reshape(3, 2, 2, 2, 2, 16).mean((2, 4)).reshape(3, 4, 16)
    torch.testing.assert_close(tokens[:, 1:5], means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens[:, 1:5], tokens[:, 5:])  # its one tubelet stands for both of the student's


def test_classes_of_the_same_name_are_the_same(tmp_path, video):
    """The student knows two of the teacher's classes in another order, and one that the teacher does not know."""
    path = keep_named(make(16), tmp_path / "t.pth")
    student = make(24, num_classes=3)
    teacher = load_teacher(path, student, ("sit", "wave", "clap"))
    assert teacher.classes == ((1, 4), (2, 0))
    logits = teacher.answer(video)[0]
    with torch.no_grad():
        torch.testing.assert_close(logits, teacher.model(video)[:, [4, 0]])
    assert teacher.of_student(torch.arange(3.0)[None]).tolist() == [[1, 2]]
    assert teacher.shares(torch.tensor([0, 1, 2])).tolist() == [0, 1, 1]
    assert teacher.shares(torch.tensor([[0.25, 0.5, 0.25]])).tolist() == [0.75]


@pytest.mark.parametrize("labels", [("sit", "wave", "clap"), ("a", "b", "c")])
def test_training_with_a_teacher_of_another_kind(tmp_path, video, labels):
    path = keep_named(make(32, num_frames=8, image_size=32, tubelet_size=4), tmp_path / "t.pth")
    student = make(16, seed=1, num_classes=3)
    teacher = load_teacher(path, student, labels, features_count=True)
    recipe = TrainingRecipe(epochs=60, batch=12, learning_rate=5e-3, feature_weight=1.0, teacher="a file")
    trainer = Trainer(recipe, student, Task("t", lambda rng, part: [], 1), tmp_path / "run", teacher)
    target = torch.arange(12) % 3

    def distance():
        with torch.no_grad():
            return float(features_loss(trainer.adapter(student.forward_tokens(video)), teacher.answer(video)[1]))

    before = distance()
    for step in range(1, 30):
        trainer.step(step, video, target)
    assert distance() < 0.8 * before


def test_clips_of_classes_that_a_teacher_does_not_know_do_not_count():
    logits, teacher = torch.randn(2, 3), torch.randn(2, 3)
    half = predictions_loss(logits, teacher, 2.0, torch.tensor([1.0, 0.0]))
    assert float(half) == pytest.approx(float(predictions_loss(logits[:1], teacher[:1], 2.0)) / 2, rel=1e-5)


def test_teachers_of_other_classes_teach_by_their_features_or_are_refused(tmp_path):
    path = keep(make(16), tmp_path / "teacher.pth")
    with pytest.raises(UsageError, match="num_classes is 5, not 7"):
        load_teacher(path, make(16, num_classes=7))
    assert load_teacher(path, make(16, num_classes=7), features_count=True).classes == ()
    named = keep_named(make(16), tmp_path / "named.pth")
    with pytest.raises(UsageError, match="its classes are clap, jump, run, walk, wave"):
        load_teacher(named, make(16, num_classes=2), ("sit", "stand"))
    with pytest.raises(CheckpointError):
        load_teacher(tmp_path / "none.pth", make(16))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"teacher_weight": -1.0}, {"feature_weight": np.nan}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is"):
        TrainingRecipe(**wrong)
