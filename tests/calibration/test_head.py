"""A linear head on the features of a model."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from small_models import make_model

from vmp_edge.calibration.train import head
from vmp_edge.errors import UsageError
from vmp_edge.models import load_checkpoint


def clips(count, seed=0):
    """Clips of two classes: brighter above, or brighter below; float32 (views, 3, T, S, S) each, with the labels."""
    rng = np.random.default_rng(seed)
    labels = ["up" if i % 2 else "down" for i in range(count)]
    ramp = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    for label in labels:
        noise = rng.normal(size=(2, 3, 4, 32, 32)).astype(np.float32)
        yield 0.3 * noise + (ramp if label == "up" else -ramp)


def labels_of(count):
    return ["up" if i % 2 else "down" for i in range(count)]


@pytest.mark.parametrize("readout", ["class_token", "mean"])
def test_a_model_with_a_new_head_is_an_ordinary_checkpoint(tmp_path, readout):
    model = make_model(readout=readout)
    fitted = head.fit(head.features(model, clips(20)), labels_of(20), [i // 4 for i in range(20)])
    trained = head.put_into(model, fitted)
    assert fitted.labels == ("down", "up") and fitted.held_out.accuracy > 0.8
    path = tmp_path / "model.pth"
    torch.save({"model": trained.state_dict(), "options": dataclasses.asdict(trained.options)}, path)
    loaded = load_checkpoint(path)
    assert loaded.options == dataclasses.replace(model.options, num_classes=2)
    fresh = list(clips(10, seed=1))
    with torch.inference_mode():
        logits = loaded(torch.from_numpy(np.concatenate(fresh)))
        read = loaded.forward_features(torch.from_numpy(fresh[0]))
        before = model.forward_features(torch.from_numpy(fresh[0]))
    assert (logits.argmax(1).numpy() == np.repeat(np.arange(10) % 2, 2)).mean() > 0.8
    assert torch.equal(read, before)
    assert model.options.num_classes == 5 and model.head.weight.shape == (5, 32)


def test_a_hundred_clips_take_less_than_a_minute():
    """Without their features, which depend on the model: ten classes, the features of a tiny model."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 10
    features = (rng.normal(size=(10, 192))[labels] + rng.normal(size=(100, 192)))[:, None] + np.zeros((1, 3, 1))
    start = time.monotonic()
    fitted = head.fit(features.astype(np.float32), [f"class {n}" for n in labels], np.arange(100) // 2)
    assert time.monotonic() - start < 60
    assert fitted.held_out.scores.shape == (100, 10) and fitted.held_out.accuracy > 0.9


def test_labels_are_sorted_as_those_of_a_clip_set():
    features = np.eye(6, dtype=np.float32)
    fitted = head.fit(features, ["b", "a", "c", "b", "a", "c"], ["x"] * 6)
    assert fitted.labels == ("a", "b", "c") and fitted.held_out is None


@pytest.mark.parametrize(
    ("features", "labels", "words"),
    [
        (np.ones((4, 3)), ["a", "b", "a", "b"], "the same features for all clips"),
        (np.full((4, 3), np.nan), ["a", "b", "a", "b"], "not finite"),
        (np.eye(4), ["a"] * 4, "two classes"),
    ],
)
def test_what_cannot_be_fitted(features, labels, words):
    with pytest.raises(UsageError, match=words):
        head.fit(features.astype(np.float32), labels)


def test_a_head_for_other_features_is_refused():
    fitted = head.fit(np.eye(4, dtype=np.float32), ["a", "b", "a", "b"])
    with pytest.raises(UsageError, match="4 features"):
        head.put_into(make_model(), fitted)
