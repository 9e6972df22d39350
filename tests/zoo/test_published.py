"""The facts about published checkpoints, and the label lists."""

from __future__ import annotations

import json

import pytest

from vmp_edge.cli import main
from vmp_edge.errors import UsageError
from vmp_edge.models.options import PRESETS, SIZES
from vmp_edge.zoo import LABEL_LISTS, find, published, read_list
from vmp_edge.zoo.names import all_names, require_known

CLASSES = {"k400": 400, "ssv2": 174, "in1k": 1000, "coin": 180, "breakfast": 10}


def test_names_and_files_are_unique_and_agree() -> None:
    models = published()
    assert len(models) == 61
    assert len({model.name for model in models}) == len({model.file for model in models}) == 61
    for model in models:
        assert model.size in SIZES and model.name.startswith(f"{model.family}-{model.size}-{model.data}")
        assert model.file.startswith(f"{model.family}_{model.size[0]}16_")
        assert str(model.image_size) in model.file
        assert model.frames is None or f"_f{model.frames}_" in model.file
        assert model.classes == (0 if model.stage in ("pretrained", "video-text") else CLASSES[model.data])


def test_a_model_is_found_by_its_name() -> None:
    model = find("videomamba-tiny-k400-8x224")
    assert model is not None
    assert (model.repository, model.file) == ("OpenGVLab/VideoMamba", "videomamba_t16_k400_f8_res224.pth")
    assert (model.classes, model.frames, model.image_size, model.top1, model.views) == (400, 8, 224, 76.9, "8x3x4")
    assert find("videomamba-tiny") is None


def test_the_span_is_that_of_the_datas_videos() -> None:
    spans = {(model.data, model.span) for model in published() if model.stage in ("supervised", "finetuned")}
    assert spans == {("k400", 10.0), ("ssv2", 4.0), ("breakfast", None), ("coin", None), ("in1k", None)}
    assert all(model.span is None for model in published() if model.frames is None or model.classes == 0)


@pytest.mark.parametrize("name", LABEL_LISTS)
def test_label_lists_are_complete_and_each_label_is_different(name: str) -> None:
    labels = read_list(name)
    assert len(labels) == len(set(labels)) == CLASSES[name]
    assert all(label and label == label.strip() for label in labels)


def test_label_lists_are_in_the_order_of_the_logits() -> None:
    assert read_list("k400")[:2] == ("riding a bike", "marching")
    imagenet = read_list("in1k")
    assert imagenet[0] == "tench"
    assert [imagenet.index("crane"), imagenet.index("crane (2)")] == [134, 517]


def test_the_command_lists_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--data", "k400", "--size", "tiny", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    content = json.loads(lines[-1])
    assert [model["name"] for model in content["published"]] == [
        f"videomamba-tiny-k400-{size}" for size in ("8x224", "16x224", "32x224", "64x224", "64x384")
    ]
    assert content["own"] == content["presets"] == []
    assert main(["models", "--json"]) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "egomotion-nano" in content["own"] and "videomamba-base" in content["presets"]
    assert len(content["published"]) == 61
    assert main(["models", "--data", "breakfast", "--size", "base"]) == 0
    assert "there is no such model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("videomamba-tiny-k400-8x244", "did you mean videomamba-tiny-k400-8x224 or"),
        ("VideoMamba_Tiny", "did you mean videomamba-tiny?"),
        ("videomamba_t16_k400_f8_res224.pth", "did you mean videomamba-tiny-k400-8x224?"),
        ("egomotion", "did you mean egomotion-nano?"),
        ("runs/best.pth", "give a file with --checkpoint"),
        ("resnet50", "vmp-edge models lists what there is"),
        ("", "vmp-edge models lists what there is"),
    ],
)
def test_a_name_with_a_typo_gets_suggestions(name: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        require_known(name)
    assert str(error.value).startswith(f"unknown model {name!r}: ") and expected in str(error.value)


def test_every_name_is_known_once() -> None:
    names = all_names()
    assert len(names) == len(set(names)) == 61 + len(PRESETS)
    for name in names:
        require_known(name)
