"""The source model of a build: published models by their names, files of the hub, and label lists of data sets."""

import dataclasses
from pathlib import Path

import pytest
import torch

from vmp_edge.bundle.optional import FamilyEntry
from vmp_edge.compile import source
from vmp_edge.compile.preparation import Preparation
from vmp_edge.compile.source import choose
from vmp_edge.compile.variants import Variant
from vmp_edge.errors import CheckpointError, UsageError
from vmp_edge.models import create
from vmp_edge.preprocessing import Preprocessing
from vmp_edge.zoo import Address, find, read_list

DATA = Path(__file__).parents[1] / "data"
NAME = "videomamba-tiny-k400-8x224"


def write_checkpoint(path, classes, family="videomamba"):
    torch.manual_seed(0)
    model = create(f"{family}-tiny", depth=2, embed_dim=32, image_size=32, num_classes=classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, path)
    return path


def test_a_published_model_is_taken_by_its_name(tmp_path, monkeypatch, capsys):
    facts = find(NAME)
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path))
    write_checkpoint(tmp_path / "checkpoints" / facts.repository / facts.file, 400)
    choice = choose(NAME, None)
    assert choice.checkpoint == Address("OpenGVLab/VideoMamba", "videomamba_t16_k400_f8_res224.pth")
    assert not choice.is_procedural
    choice.check_file()
    model = source.load(choice)
    assert model.name == NAME and model.labels == read_list("k400")
    assert (model.module.options.directions, model.module.options.initial_state) == ("separate", "zero")
    assert (model.preprocessing.resize, model.preprocessing.interpolation) == ("crop", "linear")
    assert (model.span, model.frame_rate, model.window_rate) == (10.0, None, 0.8)
    assert model.family == FamilyEntry("videomamba", "because its name says so")
    assert model.cut(Variant(frames=4)).family == model.family
    error = capsys.readouterr().err
    assert "labels of Kinetics-400, in the order of the authors' own demo" in error


def test_the_facts_count_for_a_local_file_of_the_same_name(tmp_path):
    path = write_checkpoint(tmp_path / "videomamba_t16_ssv2_f8_res224.pth", 174)
    model = source.load(choose(None, path))
    assert model.name == "videomamba-tiny-ssv2-8x224" and model.labels == read_list("ssv2")
    other = write_checkpoint(tmp_path / "videomamba_t16_ssv2_f16_res224.pth", 10)  # fine-tuned: other classes
    assert source.load(choose(None, other)).labels == tuple(f"class-{index}" for index in range(10))
    unnamed = write_checkpoint(tmp_path / "best.pth", 174)  # never guessed from the number alone
    assert source.load(choose(None, unnamed)).labels[0] == "class-0"


def test_what_the_user_says_of_the_training_counts(tmp_path):
    path = write_checkpoint(tmp_path / "best.pth", 10)
    plain = source.load(choose(None, path))
    assert (plain.span, plain.frame_rate, plain.window_rate) == (None, None, None)
    how = Preparation(span=4.0, resize="letterbox", mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
    model = source.load(choose(None, path, preparation=how, frames=4))
    assert (model.span, model.frame_rate, model.window_rate) == (4.0, None, 1.0)
    assert model.preprocessing == Preprocessing(32, "letterbox", (0.5,) * 3, (0.25,) * 3, "linear")
    named = write_checkpoint(tmp_path / "videomamba_t16_ssv2_f8_res224.pth", 174)
    assert source.load(choose(None, named)).span == 4.0
    model = source.load(choose(None, named, preparation=Preparation(frame_rate=15.0)))
    assert (model.span, model.frame_rate) == (None, 15.0)
    half = model.cut(Variant(frames=4))
    assert (half.span, half.frame_rate) == (None, 7.5), "the same time"
    half = source.load(choose(None, named)).cut(Variant(frames=4))
    assert (half.span, half.window_rate) == (4.0, 1.0)


OWN = {
    "labels": ["wave", "walk"],
    "preprocessing": Preprocessing(32, "stretch", (0.5,) * 3, (0.25,) * 3).to_manifest(),
    "sampling": {"frames": 8, "span": 1.6},
}


def write_own(path, **changes):
    """Write a checkpoint as our own training does."""
    model = create("videomamba-tiny", depth=1, embed_dim=32, image_size=32, num_classes=2)
    torch.save({"model": model.state_dict(), "options": dataclasses.asdict(model.options), **OWN, **changes}, path)
    return path


def test_a_file_of_our_own_training_says_how_its_clips_were(tmp_path):
    model = source.load(choose(None, write_own(tmp_path / "mine.pth")))
    assert (model.labels, model.span, model.frame_rate) == (("wave", "walk"), 1.6, None)
    assert model.preprocessing == Preprocessing(32, "stretch", (0.5,) * 3, (0.25,) * 3, "area")
    rated = write_own(tmp_path / "rated.pth", sampling={"frames": 8, "rate": 15.0})
    assert (source.load(choose(None, rated)).span, source.load(choose(None, rated)).frame_rate) == (None, 15.0)
    named = write_own(tmp_path / "videomamba_t16_k400_f8_res224.pth", sampling={"frames": 8, "rate": 15.0})
    assert (source.load(choose(None, named)).span, source.load(choose(None, named)).frame_rate) == (None, 15.0)
    how = Preparation(span=3.0, resize="crop")
    model = source.load(choose(None, rated, labels=None, preparation=how, classes=1 + 1))
    assert (model.span, model.frame_rate, model.preprocessing.resize) == (3.0, None, "crop")
    assert model.preprocessing.mean == (0.5,) * 3, "what the user does not say stays"


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["wave", "wave"]},
        {"labels": 3},
        {"preprocessing": {"resize": "crop"}},
        {"sampling": {"span": -1.0}},
        {"sampling": {"rate": "fast"}},
        {"sampling": "fast"},
    ],
)
def test_what_a_file_says_of_its_training_is_checked(tmp_path, changes):
    with pytest.raises(CheckpointError, match=r"mine\.pth: what it says of its training cannot be read"):
        source.load(choose(None, write_own(tmp_path / "mine.pth", **changes)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"span": 1.0, "frame_rate": 5.0}, "--span or --frame-rate, not both"),
        ({"span": 0.0}, "--span is 0; it must be from 0.001 to 86400 seconds"),
        ({"span": float("nan")}, "--span is nan"),
        ({"frame_rate": -1.0}, "--frame-rate is -1"),
        ({"std": [0.0, 1.0, 1.0]}, "std must be positive"),
        ({"mean": [1.0, 1.0]}, "mean must be three numbers"),
        ({"resize": "squash"}, "resize must be one of"),
    ],
)
def test_impossible_preparations_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        Preparation(**values)


def test_our_own_model_says_itself_how_it_was_trained():
    with pytest.raises(UsageError, match="egomotion-nano says itself"):
        source.load(choose("egomotion-nano", None, preparation=Preparation(span=2.0)))


def test_label_lists_are_taken_by_name(tmp_path, monkeypatch, capsys):
    path = write_checkpoint(tmp_path / "best.pth", 174)
    monkeypatch.chdir(tmp_path)
    assert source.load(choose(None, path, labels=Path("ssv2"))).labels == read_list("ssv2")
    assert "not confirmed against a checkpoint" in capsys.readouterr().err
    with pytest.raises(UsageError, match="k400: has 400 labels, but the model has 174 classes"):
        source.load(choose(None, path, labels=Path("k400")))
    Path("ssv2").write_text("\n".join(f"mine {index}" for index in range(174)))
    assert source.load(choose(None, path, labels=Path("ssv2"))).labels[0] == "mine 0"


def test_a_file_of_the_hub_is_an_address(tmp_path, monkeypatch):
    choice = choose(None, "hf://somebody/models@v2/best.pth")
    assert choice.checkpoint == Address("somebody/models", "best.pth", "v2") and choice.published is None
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path))
    write_checkpoint(tmp_path / "checkpoints" / "somebody" / "models" / "best.pth", 10, "videomambapro")
    assert source.load(choice).module.options.directions == "shared"
    with pytest.raises(UsageError, match="is no file on the hub"):
        choose(None, "hf://somebody")


def test_options_that_contradict_each_other_are_refused():
    for arguments, expected in (
        ({"model": NAME, "checkpoint": "x.pth"}, "give --model or --checkpoint, not both"),
        ({"model": NAME, "checkpoint": None, "family": "videomambapro"}, f"{NAME} is a videomamba"),
        ({"model": "egomotion-nano", "checkpoint": None, "readout": "mean"}, "--readout is for checkpoints"),
        ({"model": "videomamba-tinny", "checkpoint": None}, "did you mean videomamba-tiny"),
        ({"model": None, "checkpoint": NAME}, "is the name of a model: give it with --model"),
        (
            {"model": None, "checkpoint": "https://huggingface.co/a/b/blob/v1/c/d.pth?download=true"},
            "takes files of the hub as hf://a/b@v1/c/d.pth",
        ),
        ({"model": None, "checkpoint": "http://h/x.pth"}, "download http://h/x.pth first"),
        ({"model": None, "checkpoint": None, "key": "model_ema"}, "--checkpoint-key chooses a model in a file"),
    ):
        with pytest.raises(UsageError, match=expected):
            choose(**arguments)


def test_one_direction_needs_another_readout():
    path = DATA / "uni_videomambapro_e48_d3_f4_r64.pth"
    with pytest.raises(UsageError, match="give --readout mean"):
        source.load(choose(None, path))
    model = source.load(choose(None, path, readout="mean"))
    assert dataclasses.asdict(model.module.options)["readout"] == "mean"


def test_a_backbone_is_built_for_its_features_alone(capsys):
    path = DATA / "pretrain_e48_d3_f4_r64.pth"
    with pytest.raises(UsageError, match=r"a backbone without a classifier.*build it with --features"):
        source.load(choose(None, path))
    model = source.load(choose(None, path, features=True))
    assert model.labels == () and model.module.options.readout == "class_token"
    assert "gives features, for classes by examples" in capsys.readouterr().err
    model = source.load(choose(None, DATA / "mm_e64_d4_f4_r64.pth", features=True))
    assert model.labels == () and model.module.options.readout == "pooled_frames"
    assert (model.preprocessing.resize, model.preprocessing.image_size) == ("stretch", 64)
    assert "the feature that texts are compared with" in capsys.readouterr().err
    model = source.load(choose(None, DATA / "mm_e64_d4_f4_r64.pth", features=True, readout="class_token"))
    assert model.module.options.features == 64


def test_a_head_with_one_output_is_no_classifier(tmp_path):
    path = write_checkpoint(tmp_path / "lvu.pth", 1)
    with pytest.raises(UsageError, match="has a head with one output, as for regression"):
        source.load(choose(None, path, features=True))
    assert source.load(choose(None, path, classes=0, features=True)).labels == ()


def test_the_first_classes_of_a_larger_head(tmp_path):
    path = write_checkpoint(tmp_path / "k710.pth", 710)
    model = source.load(choose(None, path, classes=400, labels=Path("k400")))
    whole = source.load(choose(None, path))
    assert model.labels == read_list("k400") and len(whole.labels) == 710
    torch.testing.assert_close(model.module.head.weight, whole.module.head.weight[:400])
    with pytest.raises(UsageError, match="--classes keeps the first classes of a checkpoint"):
        choose("egomotion-nano", None, classes=3)
