"""Each kind of file that a published training program writes loads as the model that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_files import FORMATS, Format, make

from vmp_edge.compile import source
from vmp_edge.errors import UsageError
from vmp_edge.models import load_checkpoint


def write(folder: Path, form: Format) -> tuple[Path, torch.nn.Module, torch.nn.Module]:
    """Write a file, and return it with the model in it and the one of averages."""
    torch.manual_seed(0)
    model, averaged = (make(form.family, **form.options) for _ in range(2))
    path = folder / "best.pth"
    torch.save(form.content(model.state_dict(), averaged.state_dict()), path)
    return path, model, averaged


@pytest.mark.parametrize("name", FORMATS)
def test_the_model_is_the_one_that_was_saved(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    form = FORMATS[name]
    path, model, _ = write(tmp_path, form)
    if form.images:  # the published video code starts from zeros
        model.temporal_pos_embedding.data.zero_()
    if form.half:
        model.load_state_dict({key: value.bfloat16() for key, value in model.state_dict().items()})
    frames = {"num_frames": model.options.num_frames} if form.images else {}
    loaded = load_checkpoint(path, form.family, **frames)
    assert loaded.options == model.options
    for key, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=0, atol=0)
    video = torch.randn(1, 3, model.options.num_frames, model.options.image_size, model.options.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.forward_features(video), model.forward_features(video))
        torch.testing.assert_close(loaded(video), model(video))
    said = capsys.readouterr().err
    for words in (*form.says, *form.left_out):
        assert words in said
    assert ("left out" in said) == bool(form.left_out) and ("several models" in said) == any(
        "took" in words for words in form.says
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_family_is_found_out(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    form = FORMATS[name]
    path, _, _ = write(tmp_path, form)
    decided = form.decided or form.family
    assert load_checkpoint(path).family is not None
    said = capsys.readouterr().err
    assert f"best.pth is taken for a {decided}, because " in said
    other = "videomambapro" if decided == "videomamba" else "videomamba"
    if "its directions have separate weights" in said:
        assert f"(if it is a {other}, give --family {other})" in said


AVERAGES = [name for name, form in FORMATS.items() if any("took" in words for words in form.says)]


@pytest.mark.parametrize("name", AVERAGES)
def test_averaged_weights_are_taken_on_request(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    path, _, averaged = write(tmp_path, form)
    key = "state_dict_ema" if "timm" in name else "model_ema"
    loaded = load_checkpoint(path, form.family, key=key)
    torch.testing.assert_close(loaded.norm_f.weight, averaged.norm_f.weight)
    torch.testing.assert_close(loaded.head.weight, averaged.head.weight)


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.options.get("classes") == 0])
def test_what_has_no_head_is_built_for_features_alone(tmp_path: Path, name: str) -> None:
    path, model, _ = write(tmp_path, FORMATS[name])
    with pytest.raises(UsageError, match=r"is a backbone without a classifier.*build it with --features"):
        source.load(source.choose(None, path))
    built = source.load(source.choose(None, path, features=True))
    assert built.labels == () and built.module.options.num_classes == 0
    is_of_texts = "video and text" in name
    assert built.module.options.readout == ("pooled_frames" if is_of_texts else "class_token")
    assert built.family is not None and built.family.reason.startswith("because ")
    assert model.options.num_classes == 0


def test_one_output_is_no_class(tmp_path: Path) -> None:
    path, _, _ = write(tmp_path, FORMATS["pro, regression"])
    with pytest.raises(UsageError, match="has a head with one output, as for regression"):
        source.load(source.choose(None, path))


def test_one_direction_needs_another_readout(tmp_path: Path) -> None:
    path, _, _ = write(tmp_path, FORMATS["pro, one direction"])
    with pytest.raises(UsageError, match="give --readout mean"):
        source.load(source.choose(None, path))
    assert source.load(source.choose(None, path, readout="mean")).module.options.readout == "mean"


def test_the_first_400_of_710_classes(tmp_path: Path) -> None:
    path, model, _ = write(tmp_path, FORMATS["video, Kinetics-710"])
    loaded = load_checkpoint(path, classes=400)
    assert loaded.options.num_classes == 400
    torch.testing.assert_close(loaded.head.weight, model.head.weight[:400])
    assert len(source.load(source.choose(None, path, classes=400, labels=Path("k400"))).labels) == 400
