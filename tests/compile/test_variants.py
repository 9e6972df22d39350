"""Variants share the model's weights, lie in its bundle, and are what the governor chooses among."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
import yaml
from small_models import make_model

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.cli import main
from vmp_edge.compile import variants
from vmp_edge.compile.variants import Variant
from vmp_edge.errors import BundleError, UsageError
from vmp_edge.models import load_checkpoint


def test_every_combination_is_a_variant():
    assert variants.parse(["frames=4,8", "depth=2"]) == [Variant(4, None, 2), Variant(8, None, 2)]
    assert [variant.name for variant in variants.parse(["size=32", "frames=2,4"])] == [
        "frames2-size32",
        "frames4-size32",
    ]
    assert variants.parse([]) == []


@pytest.mark.parametrize("word", ["frames", "frames=", "frames=a", "width=3", "frames=4,", "depth=-1"])
def test_what_is_no_variant_is_refused(word):
    with pytest.raises(UsageError, match="--variants"):
        variants.parse([word])
    with pytest.raises(UsageError, match="once"):
        variants.parse(["depth=1", "depth=2"])


def test_the_dearest_comes_first_and_the_model_itself_is_left_out(make):
    options = make().options  # 4 frames of 32 pixels, 2 blocks
    chosen = variants.cheaper(variants.parse(["frames=2,4", "size=16,32", "depth=1,2"]), options)
    costs = [variant.options(options).length * variant.options(options).depth for variant in chosen]
    assert len(chosen) == 7 and costs == sorted(costs, reverse=True)
    for dearer in (Variant(frames=8), Variant(depth=3), Variant(size=64)):
        with pytest.raises(UsageError, match="cheaper"):
            variants.cheaper([dearer], options)
    for impossible in (Variant(size=20), Variant(depth=0), Variant(frames=0)):
        with pytest.raises(UsageError):
            variants.cheaper([impossible], options)


def test_other_frames_and_sizes_are_as_when_a_checkpoint_is_loaded(make, checkpoint):
    cut = variants.cut(make(), Variant(frames=2, size=16))
    expected = load_checkpoint(checkpoint, num_frames=2, image_size=16)
    assert cut.options == expected.options
    video = torch.randn(1, 3, 2, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(cut(video), expected(video))


@pytest.mark.parametrize("order", ["spatial_first", "spatiotemporal"])
def test_a_variant_of_depth_n_exits_after_n_blocks(make, order):
    model = make(depth=3, scan_order=order)
    video = torch.randn(2, 3, 4, 32, 32)
    for depth in (1, 2):
        cut = variants.cut(model, Variant(depth=depth))
        early = make(depth=3, scan_order=order)
        early.layers = early.layers[:depth]
        with torch.no_grad():
            torch.testing.assert_close(cut(video), early(video))


def build(*arguments):
    return main(["build", "--target", "host", "--engine", "torch", *map(str, arguments)])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a bundle that has two variants, measured on ten clips, and the arguments that built it."""
    folder = tmp_path_factory.mktemp("variants")
    made, random = make_model(), np.random.default_rng(0)
    torch.save({"model": made.state_dict(), "options": vars(made.options)}, folder / "small.pth")
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    for index in range(10):
        place = folder / "clips" / ("a", "b")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        write_video(place / f"{index}.avi", random.integers(0, 256, (6, 32, 32, 3)).astype(np.uint8))
    arguments = ("--checkpoint", folder / "small.pth", "--labels", folder / "labels.txt")
    measured = ("--variants", "frames=2,4", "depth=1", "--evaluate", folder / "clips")
    assert build(*arguments, *measured, "--output", folder / "bundle") == 0
    return folder / "bundle", arguments


@pytest.fixture
def built(prepared, tmp_path):
    """A copy of it to change."""
    path, arguments = prepared
    return shutil.copytree(path, tmp_path / "bundle"), (*arguments, "--output", tmp_path / "bundle")


def write_video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 32))
    for frame in frames:
        writer.write(frame)
    writer.release()


def test_a_bundle_holds_its_variants_and_what_was_measured(built):
    path, _ = built
    bundle = Bundle.open(path)
    facts = bundle.manifest.variants
    assert list(facts) == list(bundle.variants) == ["frames4-depth1", "frames2-depth1"]
    assert (facts["frames2-depth1"]["frames"], facts["frames2-depth1"]["depth"]) == (2, 1)
    for name, place in bundle.variants.items():
        found = facts[name]
        assert found["clips"] == 10 and 0 <= found["top1"] <= 1 and 0 <= found["agreement"] <= 1
        with vmp_edge.load(place) as recognizer:
            assert recognizer.manifest.model["depth"] == 1 and recognizer.labels == bundle.manifest.labels
            assert recognizer.predict(np.zeros((4, 32, 32, 3), np.uint8)).scores.shape == (5,)
    assert sorted(entry.name for entry in path.iterdir()) == sorted(
        [*bundle.manifest.files, "manifest.yaml", "variants"]
    )


def test_it_is_replaced_as_a_whole_but_not_with_others_files(built, capsys):
    path, arguments = built
    stranger = path / "variants" / "mine.txt"
    stranger.write_text("mine")
    assert build(*arguments) == 1 and "variants/mine.txt" in capsys.readouterr().err
    stranger.rename(path / "variants" / "frames4-depth1" / "mine.txt")
    assert build(*arguments) == 1 and "mine.txt" in capsys.readouterr().err
    (path / "variants" / "frames4-depth1" / "mine.txt").unlink()
    assert build(*arguments) == 0
    assert not (path / "variants").exists() and Bundle.open(path).variants == {}


def test_a_failing_variant_leaves_nothing(tmp_path, checkpoint, capsys):
    output = tmp_path / "out" / "bundle"
    assert build("--checkpoint", checkpoint, "--output", output, "--variants", "depth=3") == 2
    assert "cheaper" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_variant_must_have_a_plain_name(built):
    path, _ = built
    manifest = yaml.safe_load((path / "manifest.yaml").read_text())
    manifest["variants"] = {"../elsewhere": {}}
    (path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(BundleError, match="plain names"):
        Bundle.open(path)


def test_run_chooses_among_the_variants(built, tmp_path, capsys):
    path, _ = built
    manifest = Bundle.open(path).manifest
    told = {name: {"top1": top1} for name, top1 in zip(manifest.variants, (0.9, 0.8), strict=True)}
    (path / "manifest.yaml").write_text(dataclasses.replace(manifest, variants=told).to_yaml())
    video = tmp_path / "video.avi"
    write_video(video, [np.full((32, 32, 3), 4 * value, np.uint8) for value in range(60)])
    capsys.readouterr()
    options = ("--headless", "--realtime", "--json", "--hop", "1", "--budget-ms", "0.001")
    assert main(["run", str(path), "--source", str(video), *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    decisions = [line for line in lines if "decision" in line]
    assert [line["variant"] for line in decisions[:2]] == ["frames4-depth1", "frames2-depth1"]
    assert lines[-2]["frame"] > 40, "results go on"
