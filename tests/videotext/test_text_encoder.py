"""The text encoder gives the features of the published code."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.errors import CheckpointError, MissingDependencyError, UsageError
from vmp_edge.models import checkpoint_file, state_dict
from vmp_edge.videotext import features
from vmp_edge.videotext.features import TextModel

pytest.importorskip("transformers", reason="needs the extra `text`")

from vmp_edge.videotext.encoder import TextEncoder

DATA = Path(__file__).parents[1] / "data"
PATH = DATA / "mm_e64_d4_f4_r64.pth"
HEADS = 4  # which the tensors do not tell


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "mm_e64_d4_f4_r64.npz")


@pytest.fixture(scope="module")
def tensors():
    return state_dict.beside_the_vision(checkpoint_file.read(PATH), PATH)


def given(golden):
    return torch.from_numpy(golden["token_ids"]), torch.from_numpy(golden["attention_mask"])


def test_features_are_the_published_ones(golden, tensors):
    encoder, (ids, mask) = TextEncoder(tensors, PATH, HEADS), given(golden)
    config = encoder.config
    assert (encoder.layers, config.hidden_size, config.intermediate_size, encoder.size) == (9, 96, 192, 32)
    assert (config.vocab_size, config.max_position_embeddings) == (1000, 64)
    np.testing.assert_allclose(encoder.tokens(ids, mask), golden["text_tokens"], atol=1e-4)
    found = encoder.features(ids, mask).numpy()
    np.testing.assert_allclose(found, golden["text_features"], atol=1e-5)
    np.testing.assert_allclose(found @ golden["video_feature_mean"].T, golden["similarity"], atol=1e-5)


def test_padding_does_not_matter(golden, tensors):
    encoder = TextEncoder(tensors, PATH, HEADS)
    for ids, mask, expected in zip(*given(golden), golden["text_features"], strict=True):
        length = int(mask.sum())
        np.testing.assert_allclose(encoder.features(ids[None, :length], mask[None, :length])[0], expected, atol=1e-5)


def test_names_of_finetuned_checkpoints(golden, tensors):
    renamed = {name.replace("text_encoder.bert.", "text_encoder."): value for name, value in tensors.items()}
    found = TextEncoder(renamed, PATH, HEADS).features(*given(golden))
    np.testing.assert_allclose(found, golden["text_features"], atol=1e-5)


def test_a_text_encoder_without_layers_that_see_the_video_is_used_whole(tensors):
    alone = {name: value for name, value in tensors.items() if "crossattention" not in name}
    assert TextEncoder(alone, PATH, HEADS).layers == 10


def test_faults_are_one_line(tensors):
    with pytest.raises(UsageError, match=r"has 96 channels, which 64 does not divide.*--text-heads"):
        TextEncoder(tensors, PATH)
    with pytest.raises(UsageError, match="5 attention heads do not divide the 96 channels"):
        TextEncoder(tensors, PATH, 5)
    lacking = {name: value for name, value in tensors.items() if "layer.3." not in name}
    with pytest.raises(CheckpointError, match="layers of its text encoder are missing"):
        TextEncoder(lacking, PATH, HEADS)
    name = "encoder.layer.3.attention.self.query.bias"
    lacking = {key: value for key, value in tensors.items() if not key.endswith(name)}
    with pytest.raises(CheckpointError, match=rf"does not fit the text encoder: it lacks {name} \(96,\)$"):
        TextEncoder(lacking, PATH, HEADS)
    wrong = {key: value[:5] if key.endswith(name) else value for key, value in tensors.items()}
    with pytest.raises(CheckpointError, match=rf"wrong shapes: {name} \(5,\) instead of \(96,\)$"):
        TextEncoder(wrong, PATH, HEADS)
    flat = {key: value.flatten() if "word_embeddings" in key else value for key, value in tensors.items()}
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight \(96000,\) of its text encoder is no matrix"):
        TextEncoder(flat, PATH, HEADS)
    with pytest.raises(CheckpointError, match=r"its text encoder is not whole: it lacks embeddings.word_embeddings"):
        TextEncoder({}, PATH, HEADS)
    lacking = {key: value for key, value in tensors.items() if not key.startswith("text_proj")}
    with pytest.raises(CheckpointError, match="its projection of texts is not whole: it lacks weight"):
        TextEncoder(lacking, PATH, HEADS)
    narrow = {key: value[:, 1:] if key == "text_proj.weight" else value for key, value in tensors.items()}
    with pytest.raises(CheckpointError, match=r"projection of texts: .* weight \(32, 95\) instead of \(32, 96\)"):
        TextEncoder(narrow, PATH, HEADS)
    other = DATA / "videomamba_e48_d3_f4_r64.pth"
    with pytest.raises(CheckpointError, match="is no video-text checkpoint"):
        TextModel.load(other)


def test_prompts_are_averaged_and_scaled_to_unit_length(golden, tmp_path):
    tokens = [
        "[PAD]",
        *(f"[unused{index}]" for index in range(99)),
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "a",
        "video",
        "of",
        "waves",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    model = TextModel.load(PATH, tmp_path, HEADS)
    assert model.temperature == pytest.approx(float(golden["temp"]))
    plain, filled = model.features(["Waves!"]), model.features(["waves"], ["a video of {}"])
    for found, numbers in ((plain, [101, 106, 102]), (filled, [101, 103, 104, 105, 106, 102])):
        ids = torch.tensor([numbers])
        np.testing.assert_allclose(found, model.encoder.features(ids, torch.ones_like(ids)), atol=1e-6)
    both = model.features(["waves"], ["{}", "a video of {}"])
    expected = (plain + filled) / np.linalg.norm(plain + filled)
    np.testing.assert_allclose(both, expected, atol=1e-6)
    (tmp_path / "vocab.txt").write_text("\n".join([*tokens, *map(str, range(900))]) + "\n")
    with pytest.raises(UsageError, match=r"the vocabulary has 1007 tokens, and the text encoder .* knows 1000"):
        TextModel.load(PATH, tmp_path, HEADS)


def test_libraries_that_are_missing_or_too_old_are_named(monkeypatch):
    monkeypatch.setattr(features.metadata, "version", lambda name: "4.57.6")
    with pytest.raises(MissingDependencyError, match=r"needs transformers 5, and 4.57.6 is installed; run: .*text"):
        TextModel.load(PATH)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"computing features of texts needs transformers; run: .*text"):
        TextModel.load(PATH)
