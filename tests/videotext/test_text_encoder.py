"""The text encoder gives the features of the published code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import checkpoint_file, state_dict
from vmp_edge.videotext.bert import TextEncoder
from vmp_edge.videotext.features import TextModel

DATA = Path(__file__).parents[1] / "data"
PATH = DATA / "mm_e64_d4_f4_r64.pth"
HEADS = 4  # which the tensors do not tell


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "mm_e64_d4_f4_r64.npz")


@pytest.fixture(scope="module")
def tensors():
    return state_dict.beside_the_vision(checkpoint_file.read(PATH), PATH)


def texts_of(golden):
    return [
        ids[:length].tolist() for ids, length in zip(golden["token_ids"], golden["attention_mask"].sum(1), strict=True)
    ]


def test_features_are_the_published_ones(golden, tensors):
    encoder = TextEncoder(tensors, PATH, HEADS)
    assert (encoder.layers, encoder.size, encoder.longest, encoder.vocabulary) == (9, 32, 64, 1000)
    tokens = encoder.tokens(torch.from_numpy(golden["token_ids"]), torch.from_numpy(golden["attention_mask"]))
    np.testing.assert_allclose(tokens, golden["text_tokens"], atol=1e-4)
    features = encoder.features(texts_of(golden)).numpy()
    np.testing.assert_allclose(features, golden["text_features"], atol=1e-5)
    np.testing.assert_allclose(features @ golden["video_feature_mean"].T, golden["similarity"], atol=1e-5)
    for text, expected in zip(texts_of(golden), golden["text_features"], strict=True):  # padding does not matter
        np.testing.assert_allclose(encoder.features([text])[0], expected, atol=1e-5)


def test_names_of_finetuned_checkpoints(golden, tensors):
    renamed = {name.replace("text_encoder.bert.", "text_encoder."): value for name, value in tensors.items()}
    features = TextEncoder(renamed, PATH, HEADS).features(texts_of(golden))
    np.testing.assert_allclose(features, golden["text_features"], atol=1e-5)


def test_faults_are_one_line(tensors, tmp_path):
    with pytest.raises(UsageError, match=r"has 96 channels, which 64 does not divide.*--text-heads"):
        TextEncoder(tensors, PATH)
    with pytest.raises(UsageError, match="5 attention heads do not divide the 96 channels"):
        TextEncoder(tensors, PATH, 5)
    lacking = {name: value for name, value in tensors.items() if "layer.3." not in name}
    with pytest.raises(CheckpointError, match="layers of its text encoder are missing"):
        TextEncoder(lacking, PATH, HEADS)
    with pytest.raises(CheckpointError, match=r"it lacks embeddings.word_embeddings.weight"):
        TextEncoder({}, PATH, HEADS)
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
    np.testing.assert_allclose(plain, model.encoder.features([[101, 106, 102]]), atol=1e-6)
    np.testing.assert_allclose(filled, model.encoder.features([[101, 103, 104, 105, 106, 102]]), atol=1e-6)
    both = model.features(["waves"], ["{}", "a video of {}"])
    expected = (plain + filled) / np.linalg.norm(plain + filled)
    np.testing.assert_allclose(both, expected, atol=1e-6)
    (tmp_path / "vocab.txt").write_text("\n".join([*tokens, *map(str, range(900))]) + "\n")
    with pytest.raises(UsageError, match=r"the vocabulary has 1007 tokens, and the text encoder .* knows 1000"):
        TextModel.load(PATH, tmp_path, HEADS)
