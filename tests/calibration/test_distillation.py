"""Test learning from another model: the losses, and training with a larger or smaller teacher."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vmp_edge.calibration.distillation import features_loss, predictions_loss
from vmp_edge.calibration.train.loop import Task, Trainer, load_teacher
from vmp_edge.calibration.train.recipe import TrainingRecipe
from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import ModelOptions, VideoMamba

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
        expected = known(video)

    def distance():
        with torch.no_grad():
            return float(predictions_loss(trainer.averaged_model()(video), expected, 2.0))

    before = distance()
    for step in range(1, 40):
        trainer.step(step, video, labels)
    assert distance() < 0.5 * before
    assert all(value.grad is None for value in known.parameters())


def test_a_run_with_a_teacher_goes_on(tmp_path, video):
    """A resumed run also restores the layer between features of different widths."""
    recipe = TrainingRecipe(epochs=1, batch=12, feature_weight=1.0, teacher="a file")
    task = Task("t", lambda rng, part: [(video, torch.arange(12) % 5)], 1)
    teacher = make(32).eval().requires_grad_(False)
    first = Trainer(recipe, make(16, seed=1), task, tmp_path / "run", teacher)
    first.run(lambda **_: SimpleNamespace(set_postfix=lambda **_: None, update=lambda: None, close=lambda: None))
    torch.manual_seed(9)
    again = Trainer(recipe, make(16, seed=1), task, tmp_path / "run", teacher)
    assert again.history == first.history
    assert torch.equal(again.adapter.weight, first.adapter.weight)


def test_teachers_of_other_clips_or_labels_are_refused(tmp_path):
    path = keep(make(16), tmp_path / "teacher.pth")
    with pytest.raises(UsageError, match="cannot teach this model: its num_classes is 5, not 7"):
        load_teacher(path, make(16, num_classes=7))
    with pytest.raises(UsageError, match="cannot teach this model: its num_frames is 4, not 8"):
        load_teacher(path, make(16, num_frames=8))
    with pytest.raises(CheckpointError):
        load_teacher(tmp_path / "none.pth", make(16))


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"teacher_weight": -1.0}, {"feature_weight": np.nan}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is"):
        TrainingRecipe(**wrong)
