"""Bundles of a video-text checkpoint: their features, and classes by texts, are the published ones in every engine."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import main
from vmp_edge.errors import GalleryError
from vmp_edge.gallery import NONE, Gallery
from vmp_edge.videotext.features import check_bundle

DATA = Path(__file__).parents[1] / "data"
CHECKPOINT = DATA / "mm_e64_d4_f4_r64.pth"
NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def golden():
    return np.load(DATA / "mm_e64_d4_f4_r64.npz")


def built(once, engine):
    def make(folder):
        place = ["--target", "openvino"] if engine == "openvino" else ["--target", "host", "--engine", engine]
        assert main(["build", *place, "--checkpoint", str(CHECKPOINT), "--features", "--output", str(folder)]) == 0

    return once.make(f"mm-{engine}", make)


def gallery_of(bundle, golden):
    gallery = Gallery.of(Bundle.open(bundle))
    for name, feature in zip(NAMES, golden["text_features"], strict=True):
        gallery.add_text(name, feature, float(golden["temp"]))
    return gallery


@pytest.mark.parametrize("engine", ["torch", "executorch", "onnxruntime", "tvm", "openvino"])
def test_features_and_scores_are_the_published_ones(once, golden, engine):
    if engine == "openvino":
        pytest.importorskip("openvino", reason="needs the extra `openvino`")
    bundle = built(once, engine)
    with vmp_edge.load(bundle, gallery=gallery_of(bundle, golden)) as recognizer:
        assert recognizer.labels == (NONE, *NAMES) and recognizer.manifest.labels == ()
        for index, clip in enumerate(golden["clip"]):
            prediction = recognizer.predict(clip)
            np.testing.assert_allclose(prediction.features, golden["video_feature_mean"][index], atol=1e-4)
            exponentials = np.exp(golden["similarity_over_temp"][:, index])
            np.testing.assert_allclose(prediction.scores, [0, *exponentials / exponentials.sum()], atol=1e-4)
            assert prediction.label == NAMES[golden["similarity"][:, index].argmax()]
    largest = golden["similarity"].max(0)
    with vmp_edge.load(bundle, gallery=gallery_of(bundle, golden), threshold=float(largest.mean())) as recognizer:
        labels = [recognizer.predict(clip).label for clip in golden["clip"]]
        assert labels[largest.argmin()] == NONE and labels[largest.argmax()] != NONE


def test_a_bundle_without_classes_says_what_it_lacks(once, capsys, tmp_path):
    bundle = built(once, "torch")
    capsys.readouterr()
    for command in (["run", bundle, "--headless", "--source", "none.mp4"], ["evaluate", bundle, tmp_path]):
        (tmp_path / "wave").mkdir(exist_ok=True)
        (tmp_path / "wave" / "1.mp4").touch()
        assert main([str(part) for part in command]) == 2
        error = capsys.readouterr().err.splitlines()
        assert "recognises nothing by itself, as its model has no classifier: enroll classes" in error[-1]
    assert main(["info", str(bundle)]) == 0
    assert "none: it recognises the classes of a gallery" in capsys.readouterr().out
    assert main(["verify", str(bundle)]) == 0
    manifest = Bundle.open(bundle).manifest
    assert manifest.features == 32 and len(manifest.parity["check"]["features"]) == 32
    assert "agreement" not in manifest.parity


def test_texts_are_enrolled_and_measured(once, capsys, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra `text`")
    bundle, gallery = built(once, "torch"), tmp_path / "texts.npz"
    tokens = ["[PAD]", *(f"[unused{index}]" for index in range(99)), "[UNK]", "[CLS]", "[SEP]", "a", "person", "waves"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    (tmp_path / "actions.txt").write_text("waves\na person\n")
    options = ["--checkpoint", CHECKPOINT, "--tokenizer", tmp_path, "--text-heads", 4, "--gallery", gallery, "--json"]
    command = ["enroll", bundle, "--text", "a person waves", "--text-file", tmp_path / "actions.txt", *options]
    capsys.readouterr()
    assert main([str(part) for part in command]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out.splitlines()[-1])
    assert list(result["classes"]) == ["a person waves", "waves", "a person"] and result["temperature"] > 0
    assert err.splitlines() == [
        f"vmp-edge: the vocabulary has {len(tokens)} of the 1000 tokens of {CHECKPOINT}",
        "vmp-edge: 3 texts, by the first 9 layers of the text encoder",
    ]
    with vmp_edge.load(bundle, gallery=gallery) as recognizer:
        rng = np.random.default_rng(0)
        frames = rng.integers(0, 255, (8, 64, 64, 3)).astype(np.uint8)
        label = recognizer.predict(frames).label
    path = tmp_path / label / "noise.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (64, 64))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    capsys.readouterr()
    measure = ["evaluate", bundle, "--data", path.parent.parent, "--gallery", gallery, "--workers", 0, "--json"]
    assert main([str(part) for part in measure]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["top1"] == 1.0 and result["chance"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_bundle_of_another_checkpoint_is_refused(once, tmp_path):
    import torch

    bundle = Bundle.open(built(once, "torch"))
    check_bundle(bundle, CHECKPOINT, 32)
    content = torch.load(CHECKPOINT, weights_only=True)
    content["model"]["vision_proj.weight"] = -content["model"]["vision_proj.weight"]
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(GalleryError, match=r"gives other features than the model in .*other.pth"):
        check_bundle(bundle, tmp_path / "other.pth", 32)
    with pytest.raises(GalleryError, match="gives no features that texts can be compared with"):
        check_bundle(bundle, CHECKPOINT, 64)
