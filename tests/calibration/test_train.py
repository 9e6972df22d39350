"""Test `vmp-edge train` from end to end, on clips whose class a tiny model learns in seconds."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import last_json, run
from small_clips import write_clips

from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration import clipset
from vmp_edge.calibration.decoding import Sampling
from vmp_edge.calibration.measure import evaluate_bundles
from vmp_edge.calibration.train import fit, footage, inspection, results, start
from vmp_edge.calibration.train.forecast import Work
from vmp_edge.calibration.train.loop import Trainer
from vmp_edge.compile import source
from vmp_edge.errors import UsageError
from vmp_edge.models import load_checkpoint
from vmp_edge.models.training_facts import TrainingFacts
from vmp_edge.preprocessing import Preprocessing

TINY = ["--init", "scratch", "--set", "embed_dim=32", "--set", "depth=1", "--frames", "4", "--image-size", "32"]
QUICK = [*TINY, "--engine", "torch", "--workers", "0"]


def plain(items, **_):
    """Stands in for a progress bar."""
    return items


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips") / "colours")


@pytest.fixture(scope="module")
def finished(clips, tmp_path_factory):
    """A finished training of 25 epochs, with what the command printed."""
    folder = tmp_path_factory.mktemp("runs") / "colours"
    command = [sys.executable, "-m", "vmp_edge", "train", clips, "--output", folder, *QUICK, "--epochs", "25", "--json"]
    done = subprocess.run(
        [*map(str, command), "--set", "augmentation=0.2"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines(), done.stderr.splitlines()


def test_a_folder_of_clips_becomes_a_bundle_that_knows_them(finished, clips):
    folder, out, _ = finished
    found = json.loads((folder / "results.json").read_text())
    assert last_json(out) == found
    assert found["top1"] >= 0.75 and found["stream"]["top1"] >= 0.75, "colours are easy"
    assert found["chance"] == pytest.approx(1 / 3, abs=1e-3)
    manifest = Bundle.open(folder / "bundle").manifest
    assert manifest.labels == ("blue", "green", "red") and manifest.span == pytest.approx(1.6)
    assert manifest.name == "colours"
    assert manifest.accuracy["held_out_top1"] == found["top1"]
    for name in ("curves.png", "confusion.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64," in page and "The clips" in page
    assert not list(folder.glob("*.checkpoint")) and not list(folder.glob(".*"))
    assert (folder / "labels.txt").read_text().split() == ["blue", "green", "red"]


def test_what_is_said_has_the_clips_the_stream_chance_and_what_to_do_next(finished):
    folder, out, err = finished
    text = "\n".join(out)
    assert "18 clips of 3 classes" in text and "4 frames over 1.6 s, 32x32 pixels" in text
    assert "top-1 of the clips" in text and "top-1 of the stream" in text and "95% interval" in text
    assert "33.3% by chance" in text
    assert f"vmp-edge run {folder / 'bundle'} --source 0" in text
    assert "--precision int8" in text and "--target arm64" in text
    assert any("in all, at most: 25 passes" in line for line in err)
    assert any("left: now the final model" in line for line in err)
    assert any("3 classes have fewer than 10 clips" in line for line in err)
    assert any(line.startswith("vmp-edge: done in") and "foretold" in line for line in err)


def test_the_measured_model_has_not_seen_what_it_is_measured_on(finished):
    """The numbers are those of `vmp-edge evaluate` with the held-out model's bundle on the fold held out."""
    folder, _, _ = finished
    found = json.loads((folder / "results.json").read_text())
    clips = clipset.read(folder / "clips.csv")
    fold = next(fold for fold in clips.folds if f"{fold}" in found["folds"])
    (again,) = evaluate_bundles([str(folder / "held-out")], clips.fold(fold), Sampling(clips=3), workers=0, stream=True)
    assert again.top1 == pytest.approx(found["top1"], abs=1e-4) and len(again.entries) == found["clips"]
    assert again.stream.top1 == pytest.approx(found["stream"]["top1"], abs=1e-4)
    held_out, final = (torch.load(folder / f"{name}.pth", weights_only=True) for name in ("held-out", "model"))
    assert any(not torch.equal(held_out["model"][name], final["model"][name]) for name in final["model"])


def test_the_checkpoint_says_all_that_a_build_needs(finished):
    folder, _, _ = finished
    facts = TrainingFacts.read(folder / "model.pth")
    assert facts.labels == ("blue", "green", "red") and facts.span == pytest.approx(1.6)
    assert facts.preprocessing == Preprocessing(32)
    model = source.load(source.choose(None, folder / "model.pth"))
    assert (model.labels, model.span, model.preprocessing) == (facts.labels, facts.span, facts.preprocessing)
    changed = source.load(source.choose(None, folder / "model.pth", preparation=source.Preparation(span=3.0)))
    assert changed.span == 3.0


def test_the_same_command_again_keeps_what_is_there(finished, clips, capsys):
    folder, _, _ = finished
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pth")}
    options = [clips, "--output", folder, *QUICK, "--epochs", "25", "--set", "augmentation=0.2"]
    code, out, _ = run(capsys, "train", *options)
    assert code == 0 and any("top-1 of the stream" in line for line in out)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.pth")}
    assert f"--calibration-clips 18 --output {folder}/int8" in "\n".join(out)
    for wrong, text in (
        (["--epochs", "26"], "--epochs 25, not 26"),
        (["--set", "augmentation=0.3"], "--set augmentation 0.2, not 0.3"),
        (["--span", "1"], "--span left out, not 1.0"),
    ):
        code, _, err = run(capsys, "train", *options, *wrong)
        assert code == 2 and text in err[-1] and "another --output" in err[-1]


def test_other_clips_do_not_go_on_with_a_training(finished, clips, capsys, tmp_path):
    folder, _, _ = finished
    other = shutil.copytree(clips, tmp_path / "clips")
    (other / "red" / "red-0.avi").unlink()
    options = [other, "--output", folder, *QUICK, "--epochs", "25", "--set", "augmentation=0.2"]
    code, _, err = run(capsys, "train", *options)
    assert code == 2 and "training on other clips" in err[-1]


class Stop:
    """Stands in for a Ctrl-C after a number of steps."""

    def __init__(self, monkeypatch, steps):
        self.left, self.step = steps, Trainer.step
        monkeypatch.setattr(Trainer, "step", lambda *arguments: self(*arguments))

    def __call__(self, trainer, *arguments):
        if "trial" not in trainer.task.name:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self.step(trainer, *arguments)


def test_a_stopped_training_goes_on_to_the_same_weights(clips, tmp_path, capsys, monkeypatch):
    options = [*QUICK, "--epochs", "4", "--set", "patience=9", "--set", "drop_path=0.2", "--threads", "1"]
    threads = torch.get_num_threads()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(capsys, "train", clips, "--output", whole, *options)[0] == 0
    for steps in (4, 12):  # within the second epoch of the held-out model, and within the final model
        with monkeypatch.context() as patch:
            Stop(patch, steps)
            code, _, err = run(capsys, "train", clips, "--output", parts, *options)
        assert code == 130 and "the same command goes on" in "\n".join(err)
        assert "best-so-far.pth (epoch" in "\n".join(err)
        assert load_checkpoint(parts / "best-so-far.pth").options.num_classes == 3
    assert run(capsys, "train", clips, "--output", parts, *options)[0] == 0
    torch.set_num_threads(threads)
    for name in ("held-out.pth", "model.pth"):
        one, other = (torch.load(folder / name, weights_only=True)["model"] for folder in (whole, parts))
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert not (parts / "best-so-far.pth").exists()


def test_two_processes_train_together(clips, tmp_path):
    """Under torchrun, both train, and the first one measures and builds."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "vmp_edge", "train", clips]
    command = [*map(str, command), "--output", str(tmp_path / "out"), *QUICK, "--epochs", "1", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout.splitlines()
    assert last_json(out)["clips"] == 4 and sum("18 clips of 3 classes" in line for line in out) == 1
    assert Bundle.open(tmp_path / "out" / "bundle").manifest.labels == ("blue", "green", "red")
    assert not list((tmp_path / "out").glob(".*"))


def test_folds_measure_every_clip_and_their_models_are_measured_as_bundles_are(clips, tmp_path, capsys):
    output = tmp_path / "folds"
    options = [*QUICK, "--epochs", "2", "--folds", "3", "--no-final", "--one-geometry", "--json"]
    code, out, _ = run(capsys, "train", clips, "--output", output, *options)
    found = last_json(out)
    assert code == 0 and found["clips"] == 18 and set(found["folds"]) == {"0", "1", "2"}
    assert found["geometry"]["width"] == 64 and "bundle" not in found and not (output / "bundle").exists()
    assert not any("next:" in line for line in out) and "fold 2" in "\n".join(out)
    assert load_checkpoint(output / "fold-2.pth").options.embed_dim == 32
    again = tmp_path / "taught"
    taught = [*QUICK, "--epochs", "1", "--folds", "3", "--no-final", "--teacher", output]
    code, _, err = run(capsys, "train", output / "clips.csv", "--output", again, *taught)
    assert code == 0, err
    code, _, err = run(capsys, "train", clips, "--output", tmp_path / "other", *QUICK, "--teacher", output)
    assert code == 2 and "may have seen what is held out" in err[-1]


def test_the_last_layer_alone_is_trained_on_features(finished, clips, tmp_path, capsys):
    """The start knows the colours: what is tested is that a new layer on its features does, too."""
    output, known = tmp_path / "head", finished[0]
    options = ["--head-only", "--init", known, "--engine", "torch", "--workers", "0", "--json"]
    code, out, err = run(capsys, "train", clips, "--output", output, *options)
    assert code == 0, err
    assert last_json(out)["top1"] >= 0.75 and last_json(out)["head_held_out"] >= 0.75
    model, begin = (load_checkpoint(folder / "model.pth").state_dict() for folder in (output, known))
    same = {name for name in begin if torch.equal(model[name], begin[name])}
    assert set(begin) - same == {"head.weight", "head.bias"}
    assert "in all: the last layer alone" in "\n".join(err)
    code, _, err = run(capsys, "train", clips, "--output", tmp_path / "no", "--head-only", "--epochs", "3")
    assert code == 2 and "leave out --epochs" in err[-1]


def test_a_stop_that_was_chosen_on_the_measured_clips_is_said():
    history = [{"epoch": i + 1, "top1": top1} for i, top1 in enumerate((0.25, 0.75, 0.5))]
    text = results.selection_note({"held-out": fit.Trained(None, history)})
    assert "Epoch 2 was kept" in text and "it had 75.0%, and the last, epoch 3, 50.0%" in text
    assert results.selection_note({"held-out": fit.Trained(None, history[:2])}) is None, "the last one is no choice"
    assert results.selection_note({"fold-0": fit.Trained(None, history)}) is None


def test_minutes_decide_on_the_epochs(clips, tmp_path, capsys):
    code, _, err = run(capsys, "train", clips, "--output", tmp_path / "run", *QUICK, "--minutes", "0.001")
    assert code == 2 and "too short for a single pass" in err[-1]
    code, _, err = run(capsys, "train", clips, "--output", tmp_path / "run", *QUICK, "--minutes", "0.002")
    assert code == 2 and "too short for a single pass" in err[-1], "nothing was trained yet, so settings may change"
    work = Work(clips=20, held_out=(4,), batch=8, final=True, stops_early=True, bundles=0, blocks=1)
    speed = fit.Speed(step=1.0, clip=0.5)
    assert work.epoch(speed) == 2 + 3 + 4 * 0.5
    assert work.seconds(10, speed) == pytest.approx(70 + 4 * 6 * 0.5)
    assert work.epochs_within(2.0, spent=10, usual=60, speed=speed) == 14
    assert work.epochs_within(1e6, spent=10, usual=60, speed=speed) == 300


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["nothing"], 1, "does not exist"),
        (["{clips}", "--output", "{clips}/out"], 2, "lies in the clips' folder"),
        (["{clips}", "--output", "{clips}"], 2, "lies in the clips' folder"),
        (["{clips}", "--output", "{clips}/.."], 2, "holds the clips' folder"),
        (["{clips}", "--output", "{clips}/red/red-0.avi"], 2, "lies in the clips' folder"),
        (["{clips}", "--output", "{full}"], 2, "holds files that are of no training"),
        (["{clips}", "--output", "{full}/file"], 2, "is a file"),
        (["{clips}", "--init", "imagenet"], 2, "no such file, and no model of this name"),
        (["{clips}", "--init", "egomotion-nano-causal"], 2, "is a causal model"),
        (["{clips}", "--init", "egomotion-nano", "--set", "depth=2"], 2, "has its own depth"),
        (["{clips}", "--epochs", "0"], 2, "--epochs is 0"),
        (["{clips}", "--minutes", "nan"], 2, "--minutes is nan"),
        (["{clips}", "--span", "-1"], 2, "--span is -1"),
        (["{clips}", "--folds", "1"], 2, "--folds is 1"),
        (["{clips}", "--folds", "9"], 2, "cannot be divided into 9 folds"),
        (["{clips}", "--no-final"], 2, "for --folds"),
        (["{clips}", "--threads", "0"], 2, "--threads is 0"),
        (["{clips}", "--set", "speed=1"], 2, "the names are augmentation"),
        (["{clips}", "--set", "batch=many"], 2, "no value for batch"),
        (["{clips}", "--set", "mirror=perhaps"], 2, "no value for mirror"),
        (["{clips}", "--set", "epochs=3"], 2, "give --epochs instead"),
        (["{clips}", "--set", "learning_rate=-1"], 2, "learning_rate"),
        (["{clips}", "--engine", "magic"], 2, "magic"),
        (["{clips}", "--frames", "3"], 2, "num_frames 3"),
        (["{clips}", "--image-size", "30"], 2, "image_size 30"),
        (["{clips}", "--teacher", "nothing"], 2, "give a model's file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(clips, tmp_path, capsys, options, code, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    filled = [text.format(clips=clips, full=tmp_path / "full") for text in options]
    quick = [] if "--init" in options else TINY
    output = [] if "--output" in options else ["--output", tmp_path / "out"]
    extra = [] if "--engine" in options else ["--engine", "torch"]
    got, out, err = run(capsys, "train", *quick, *filled, *output, *extra, "--workers", "0", "--json")
    assert got == code and message in err[-1], err
    assert message in last_json(out)["error"]


def test_windows_follow_the_span(clips, tmp_path):
    """Parts of a clip to train on are between a window and the whole clip, and the middle window is in the middle."""
    usable, seen, _ = inspection.look_at_all(clipset.read(clips).split(3), plain, workers=0)
    seconds = [look.geometry.seconds for look in seen]
    pixels = footage.decode(usable, 4, 0.8, Preprocessing(28), seconds, tmp_path, plain, workers=0)
    assert pixels.clips[0].shape == (24, 32, 32, 3) and len(pixels) == 18
    assert len(pixels.fold(0)) + len(pixels.outside(0)) == len(pixels.outside(None)) == 18
    lengths = [len(pixels.window(0, np.random.default_rng(seed))) for seed in range(40)]
    assert min(lengths) >= 10 and max(lengths) <= 24 and len(set(lengths)) > 5
    assert pixels.middle(0).shape == (1, 3, 4, 28, 28)
    clip = np.repeat(np.arange(24, dtype=np.uint8)[:, None, None, None], 3, axis=3) * np.ones((1, 28, 28, 1), np.uint8)
    one = dataclasses.replace(pixels, clips=(clip,), preprocessing=Preprocessing(28, mean=(0, 0, 0), std=(1, 1, 1)))
    places = np.rint(one.middle(0)[0, 0, :, 0, 0] * 255)
    assert places.tolist() == [7, 10, 13, 16]
    assert np.rint(one.views(0, False)[1, 0, :, 0, 0] * 255).tolist() == [3, 9, 15, 21]
    assert not list(tmp_path.glob(".*"))


def test_starts_keep_their_weights_and_get_a_new_head():
    begin = start.load()
    model = begin.with_classes(3, seed=1)
    assert model.options.image_size == 112 and model.options.num_classes == 3
    assert begin.preprocessing.image_size == 112
    own = begin.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items() if "head." not in name)
    scratch = start.load("scratch", 4, 32, {"depth": 2, "embed_dim": 48}).model
    assert (scratch.options.depth, scratch.options.embed_dim, scratch.options.num_frames) == (2, 48, 4)
    with pytest.raises(UsageError, match="has its own embed_dim"):
        start.load("egomotion-nano", widths={"embed_dim": 32})
