"""Test training on labelled videos by cross-validation: geometry, batches, and the command from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vmp_edge.calibration import clipset
from vmp_edge.calibration.actions import __main__ as command
from vmp_edge.calibration.actions import dataset, geometry
from vmp_edge.calibration.actions.train import ActionsTraining, make_model
from vmp_edge.calibration.clipset import ClipSetError
from vmp_edge.calibration.decoding import Sampling, read_clips
from vmp_edge.calibration.measure import evaluate_bundles
from vmp_edge.compile import pipeline
from vmp_edge.errors import UsageError
from vmp_edge.models import load_checkpoint, zoo
from vmp_edge.preprocessing import Preprocessing

from .conftest import SLOPES, write_video

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
QUICK = ["--epochs", "1", "--batch", "4", "--frames", "4", "--image-size", "32", "--workers", "0", "--threads", "1"]


def plain(items, **_):
    """Stands in for a progress bar."""
    return items


@pytest.fixture
def sized_clips(tmp_path):
    """A clip set whose widths and lengths alone give away the labels."""
    for label, (width, count) in {"a": (64, 20), "b": (80, 26)}.items():
        for i in range(6):
            write_video(tmp_path / "clips" / label / f"{label}{i}.avi", range(60, 60 + 2 * count, 2), size=(48, width))
    return clipset.read(tmp_path / "clips").split(3)


def test_geometry_is_measured(sized_clips):
    clips, geometries, skipped = geometry.measure(sized_clips, plain, workers=0)
    assert clips == sized_clips and not skipped
    assert {(g.width, g.height, g.frames, g.fps) for g in geometries} == {(64, 48, 20, 30.0), (80, 48, 26, 30.0)}
    assert geometries[0].seconds == pytest.approx(20 / 30)


def test_geometry_that_tells_is_found_out_and_taken_away(sized_clips, tmp_path):
    _, geometries, _ = geometry.measure(sized_clips, plain, workers=0)
    assert geometry.control(sized_clips, geometries) == {0: 1.0, 1: 1.0, 2: 1.0}
    same, cut = geometry.bring_to_one(sized_clips, geometries, tmp_path / "cut", plain, workers=0)
    assert (cut.width, cut.height, cut.seconds) == (64, 48, pytest.approx(20 / 30))
    assert [(e.label, e.fold) for e in same.entries] == [(e.label, e.fold) for e in sized_clips.entries]
    _, after, _ = geometry.measure(same, plain, workers=0)
    assert len(set(after)) == 1
    assert np.mean(list(geometry.control(same, after).values())) <= 0.5


def test_the_cut_is_the_middle_and_without_loss(sized_clips, tmp_path):
    wide = next(entry for entry in sized_clips.entries if entry.label == "b")
    cut = geometry.Cut(60, 40, 0.5, {wide.path: tmp_path / "cut" / "b.avi"})
    path = cut(wide)
    (before,) = read_clips(wide.path, lambda count, fps: [range(5, 20)])
    (after,) = read_clips(path, lambda count, fps: [range(count)])
    assert np.array_equal(after, before[:, 4:44, 10:70])
    written = path.stat().st_mtime_ns
    assert cut(wide) == path and path.stat().st_mtime_ns == written


def test_videos_of_one_name_stay_apart(clips_folder, tmp_path):
    for i in (1, 2):
        write_video(clips_folder / "steady" / str(i) / "steady-0.avi", [80 * i] * 20)
    clips, geometries, _ = geometry.measure(clipset.read(clips_folder), plain, workers=0)
    same, _ = geometry.bring_to_one(clips, geometries, tmp_path / "cut", plain, workers=0)
    assert len({entry.path for entry in same.entries}) == len(clips) == 11
    for before, after in zip(clips.entries, same.entries, strict=True):
        first, second = (read_clips(entry.path, lambda count, fps: [[0]])[0] for entry in (before, after))
        assert np.array_equal(first, second)


def test_videos_that_cannot_be_decoded_are_left_out_of_the_geometry(damaged):
    clips, geometries, skipped = geometry.measure(clipset.read(damaged), plain, workers=0)
    assert len(clips) == len(geometries) == 10
    assert [video.path.name for video in skipped] == ["a-empty.mp4", "b-text.mp4", "c-broken.avi"]
    nothing = clipset.from_paths([damaged / "steady" / "a-empty.mp4"])
    with pytest.raises(ClipSetError, match="no videos that can be used"):
        geometry.measure(nothing, plain, workers=0)


def test_clips_are_loaded_finer_than_the_model_sees_them(clips_folder):
    clips = clipset.read(clips_folder).split(3)
    loaded = dataset.load(clips, 4, 28, plain, workers=0)
    assert loaded.pixels.shape == (9, 12, 32, 32, 3)
    assert [clips.labels[i] for i in loaded.labels] == [entry.label for entry in clips.entries]
    slope = loaded.pixels.mean((2, 3, 4))[:, -1] - loaded.pixels.mean((2, 3, 4))[:, 0]
    assert all(np.sign(s) == np.sign(SLOPES[e.label]) for s, e in zip(slope.round(-1), clips.entries, strict=True))
    assert len(loaded.outside(0).labels) == 6


def test_augmentation_keeps_time_in_order_and_is_deterministic():
    clip = np.repeat(np.arange(0, 240, 20, dtype=np.uint8)[:, None, None, None], 32, axis=1)
    clip = np.ascontiguousarray(np.broadcast_to(clip, (12, 32, 32, 3)))
    for seed in range(20):
        first, second = (dataset.augment(clip, 4, Preprocessing(28), np.random.default_rng(seed)) for _ in range(2))
        assert first.shape == (1, 3, 4, 28, 28) and first.dtype == np.float32
        assert np.array_equal(first, second)
        assert (np.diff(first.mean((0, 1, 3, 4))) >= 0).all()


def test_batches_are_the_clips_in_another_order(clips_folder):
    loaded = dataset.load(clipset.read(clips_folder).split(3), 4, 28, plain, workers=0)
    batches = list(dataset.training_batches(loaded, 4, 4, Preprocessing(28), np.random.default_rng(0)))
    assert [video.shape for video, _ in batches] == [(4, 3, 4, 28, 28)] * 2
    assert {int(label) for _, labels in batches for label in labels} <= {0, 1, 2}


def test_a_model_starts_from_what_was_learnt_on_motion():
    trained = zoo.load("egomotion-nano").module.state_dict()
    model = make_model(ActionsTraining(frames=4, image_size=32), 3).state_dict()
    assert torch.equal(model["layers.0.mixer.in_proj.weight"], trained["layers.0.mixer.in_proj.weight"])
    assert model["head.weight"].shape == (3, 96)
    scratch = make_model(ActionsTraining(frames=4, image_size=32, start="scratch"), 3).state_dict()
    assert not torch.equal(scratch["layers.0.mixer.in_proj.weight"], model["layers.0.mixer.in_proj.weight"])
    with pytest.raises(UsageError, match="starts from"):
        ActionsTraining(start="imagenet")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_command_measures_what_a_bundle_measures(clips_folder, tmp_path, one_thread):
    """The table's numbers are those of `vmp-edge evaluate` with each fold's bundle on the fold's videos."""
    output = tmp_path / "out"
    arguments = ["--data", str(clips_folder), "--folds", "3", "--output", str(output), "--one-geometry", *QUICK]
    assert command.main(arguments) == 0
    results = json.loads((output / "results.json").read_text())
    assert results["clips"] == 9 and set(results["folds"]) == {"0", "1", "2"} and results["recipe"]["epochs"] == 1
    assert results["geometry"] == {"width": 64, "height": 48, "seconds": pytest.approx(0.667)}
    for fold in range(3):
        request = {"checkpoint": output / f"fold-{fold}.pth", "engine": "torch"}
        bundle = pipeline.build(pipeline.Request("host", output=tmp_path / f"bundle-{fold}", **request))
        assert bundle.manifest.labels == tuple((output / "labels.txt").read_text().split())
        assert bundle.manifest.preprocessing == Preprocessing(32), "not that of published models"
        assert bundle.manifest.span == pytest.approx(0.667), "the median length of the videos"
    clips = clipset.read(output / "clips.csv")
    sampling = Sampling(clips=results["recipe"]["clips"])
    (again,) = evaluate_bundles([str(tmp_path / "bundle-{fold}")], clips, sampling, workers=0)
    assert again.confusion.tolist() == results["confusion"]["counts"]

    before = torch.load(output / "fold-1.pth", weights_only=True)["model"]
    assert command.main(arguments) == 0, "all is there already"
    after = torch.load(output / "fold-1.pth", weights_only=True)["model"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert command.main([*arguments, "--learning-rate", "1"]) == 2, "another recipe needs another folder"
    small = ["--teacher", str(output), "--feature-weight", "1", "--embed-dim", "16", "--depth", "1"]
    again = [*arguments[:5], str(tmp_path / "small"), *arguments[6:], *small]
    assert command.main(again) == 2, "only a model of egomotion-nano's size can start from its weights"
    assert command.main([*again, "--start", "scratch"]) == 0
    assert load_checkpoint(tmp_path / "small" / "fold-2.pth").options.embed_dim == 16
    arguments[3] = "2"
    assert command.main(arguments) == 2, "and so do other folds"
    again[3], again[5] = "2", str(tmp_path / "others")
    assert command.main([*again, "--start", "scratch"]) == 2, "the teacher knows videos that are held out"


@pytest.mark.parametrize(
    ("options", "expected", "message"),
    [
        (["--data", "nothing"], 1, "does not exist"),
        (["--folds", "9"], 2, "cannot be divided into 9 folds"),
        (["--start", "imagenet"], 2, "starts from"),
        (["--batch", "100"], 2, "fewer than a batch"),
        (["--teacher", "nothing"], 2, "nothing holds no clips.csv"),
    ],
)
def test_the_command_tells_what_is_wrong(clips_folder, tmp_path, capsys, one_thread, options, expected, message):
    arguments = ["--data", str(clips_folder), "--folds", "3", "--output", str(tmp_path / "out"), *QUICK]
    assert command.main([*arguments, *options]) == expected
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_size_of_real_clips_tells_their_label():
    """Size and length alone recognise far more than chance (a sixth): the clips must be cut to one geometry."""
    index = DATA / "ut_interaction" / "index.csv"
    if not index.is_file():
        pytest.skip(f"no real clips: {index} is absent")
    clips, geometries, _ = geometry.measure(clipset.read(index, group="sequence").split(5), plain)
    assert 0.4 < np.mean(list(geometry.control(clips, geometries).values())) < 0.8
