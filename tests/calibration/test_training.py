"""Test the training loop: its result, early stopping, resuming, and several processes."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vmp_edge.calibration.train.depth import DropPath
from vmp_edge.calibration.train.loop import Task, Trainer, divided
from vmp_edge.calibration.train.optimiser import PATCH_RATE, parameter_groups
from vmp_edge.calibration.train.parallel import Part
from vmp_edge.calibration.train.recipe import TrainingRecipe
from vmp_edge.errors import UsageError
from vmp_edge.models import ModelOptions, VideoMamba

OPTIONS = ModelOptions(embed_dim=16, depth=3, patch_size=8, tubelet_size=2, image_size=16, num_frames=4, num_classes=3)
RECIPE = TrainingRecipe(epochs=4, batch=4, learning_rate=5e-3, average=0.9, drop_path=0.3, layer_decay=0.8)


def bar(**_):
    return SimpleNamespace(set_postfix=lambda **_: None, update=lambda: None, close=lambda: None)


def make(seed=0, **options):
    torch.manual_seed(seed)
    return VideoMamba(dataclasses.replace(OPTIONS, **options))


def batches(rng, part):
    """Make 3 batches of clips whose labels are their brightness."""
    for _ in range(3):
        labels = rng.integers(0, 3, 4)
        video = rng.normal(labels[:, None, None, None, None], 0.5, (4, 3, 4, 16, 16))
        whole = (torch.from_numpy(video.astype(np.float32)), torch.from_numpy(labels))
        yield from divided([whole], part)


def task(validate=lambda model: {}):
    return Task("test", batches, 3, validate)


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_a_training_learns(tmp_path):
    trainer = Trainer(
        dataclasses.replace(RECIPE, epochs=25, learning_rate=2e-2, drop_path=0.1, smoothing=0.0),
        make(),
        task(),
        tmp_path / "run",
    )
    trainer.run(bar)
    losses = [record["loss"] for record in trainer.history]
    assert losses[-1] < 0.6 * losses[0]
    assert trainer.finished
    assert_equal(trainer.best, trainer.averaged)
    assert {"epoch", "loss", "learning_rate", "seconds", "clips_per_second"} == trainer.history[0].keys()


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path):
    """An interrupted epoch is done again, with the same batches and the same blocks left out."""
    whole = Trainer(RECIPE, make(), task(lambda model: {"top1": 0.5}), tmp_path / "whole")
    whole.run(bar)
    ticks = iter(range(8))  # the run stops in its third epoch

    def stopping(rng, part):
        for batch in batches(rng, part):
            if next(ticks, None) is None:
                raise KeyboardInterrupt
            yield batch

    stopped = Trainer(RECIPE, make(), Task("test", stopping, 3, lambda model: {"top1": 0.5}), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        stopped.run(bar)
    assert len(stopped.history) == 2
    resumed = Trainer(RECIPE, make(seed=7), task(lambda model: {"top1": 0.5}), tmp_path / "run")
    assert_equal(resumed.best, stopped.best)
    resumed.run(bar)
    assert_equal(resumed.averaged, whole.averaged)
    assert_equal(resumed.best, whole.best)
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert [record["loss"] for record in resumed.history] == [record["loss"] for record in whole.history]


def test_early_stopping_keeps_the_best_weights(tmp_path):
    """Of equally good epochs the last counts."""
    scores = [0.2, 0.6, 0.6, 0.5, 0.4, 0.9]
    seen = []

    def validate(model):
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"top1": scores[len(seen) - 1], "loss of validation": 1.0}

    recipe = dataclasses.replace(RECIPE, epochs=6, patience=2)
    trainer = Trainer(recipe, make(), task(validate), tmp_path / "run")
    trainer.run(bar)
    assert len(trainer.history) == 5
    assert trainer.history[1]["loss of validation"] == 1.0
    assert_equal(trainer.best, seen[2])
    again = Trainer(recipe, make(), task(validate), tmp_path / "run")
    assert again.finished
    again.run(bar)
    assert len(seen) == 5
    assert_equal(again.best, seen[2])


def test_a_run_with_other_settings_is_refused(tmp_path):
    Trainer(dataclasses.replace(RECIPE, epochs=1), make(), task(), tmp_path / "run").run(bar)
    with pytest.raises(UsageError, match="other settings"):
        Trainer(RECIPE, make(), task(), tmp_path / "run")


def test_shares_of_classes_are_labels_too(tmp_path):
    trainer = Trainer(RECIPE, make(), task(), tmp_path / "run")
    video = torch.randn(4, 3, 4, 16, 16)
    labels = torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        by_index, by_share = (
            trainer.objective(video, values)[0] for values in (labels, torch.nn.functional.one_hot(labels, 3).float())
        )
    assert float(by_index) == pytest.approx(float(by_share), rel=1e-6)


def test_computing_in_16_bits_comes_close_and_keeps_weights_in_32(tmp_path):
    """A GPU's mixed precision, here on the CPU."""
    exact, mixed = (Trainer(RECIPE, make(), task(), tmp_path / name) for name in ("exact", "mixed"))
    assert exact.number_type is None or exact.device.type == "cuda"
    mixed.number_type = torch.bfloat16
    for trainer in (exact, mixed):
        for number, (video, labels) in enumerate(batches(np.random.default_rng(0), Part())):
            trainer.step(number, video, labels)
    for name, value in mixed.model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, exact.model.state_dict()[name], rtol=0, atol=0.02)
    assert not torch.equal(mixed.model.head.weight, exact.model.head.weight)


def test_layers_further_down_learn_more_slowly():
    model = make()
    rates = {
        id(parameter): (group["rate"], group["weight_decay"])
        for group in parameter_groups(model, 0.1, 0.5)
        for parameter in group["params"]
    }
    assert len(rates) == len([*model.parameters()])
    named = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert named["head.weight"] == (1.0, 0.1)
    assert named["head.bias"] == named["norm_f.weight"] == (1.0, 0.0)
    assert named["layers.2.mixer.in_proj.weight"] == (0.5, 0.1)
    assert named["layers.0.mixer.in_proj.weight"] == (0.125, 0.1)
    assert named["layers.0.mixer.A_log"] == (0.125, 0.0)
    assert named["pos_embed"] == (0.0625, 0.0)
    assert named["patch_embed.proj.weight"] == (PATCH_RATE, 0.0)
    assert [group["rate"] for group in parameter_groups(model, 0.1)] == [1.0, 1.0, PATCH_RATE]


def test_drop_path_leaves_out_blocks_of_single_clips():
    model = make(depth=2, directions="separate").train()
    video = torch.randn(64, 3, 4, 16, 16)
    drop = DropPath(model, 0.5, seed=0)
    drop.draw(3, 64, Part(), torch.device("cpu"))
    with torch.no_grad():
        dropped, whole = model(video), model.eval()(video)
        first_only = model.head(model.norm_f(model.layers[0](model.embed(video)))[:, 0])
    skips = (dropped - first_only).abs().amax(1) < 1e-6
    assert 16 < int(skips.sum()) < 48
    assert torch.equal(skips, drop.factors[1] == 0)
    assert not torch.allclose(dropped[~skips], whole[~skips])  # scaled up
    assert float(drop.factors[1].max()) == 2.0
    assert torch.equal(drop.factors[0], torch.ones(64))


def test_each_process_draws_its_part_of_the_whole_draw():
    whole, *halves = (DropPath(make(), 0.5, seed=1) for _ in range(3))
    whole.draw(5, 8, Part(), torch.device("cpu"))
    for index, half in enumerate(halves):
        half.draw(5, 4, Part(index, 2), torch.device("cpu"))
    assert torch.equal(torch.cat([half.factors for half in halves], 1), whole.factors)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
        {"drop_path": 1.0},
        {"drop_path": -0.1},
        {"patience": -1},
        {"epochs": 0},
        {"batch": 0},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is"):
        TrainingRecipe(**wrong)


def test_batches_that_processes_cannot_divide_are_refused():
    assert Part(1, 3).of(6) == slice(2, 4)
    with pytest.raises(UsageError, match="5 clips cannot be divided evenly among 2 processes"):
        Part(0, 2).of(5)


WORKER = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
import test_training as t
from vmp_edge.calibration.train import parallel
from vmp_edge.calibration.train.loop import Trainer

torch.set_num_threads(1)
folder = Path(sys.argv[1])
with parallel.processes() as part:
    # Other initial weights and no checkpoint in the second process: the first one's count.
    run = folder / "run" if part.index == 0 else folder / "none"
    trainer = Trainer(t.RECIPE, t.make(seed=part.index), t.task(lambda model: {{"top1": 0.25}}), run)
    trainer.run(t.bar)
    torch.save({{"best": trainer.best, "history": trainer.history, "part": part}}, folder / f"result-{{part.index}}")
"""


def run_processes(folder, count):
    """Run the worker in processes with the environment that `torchrun` gives."""
    script = folder / "worker.py"
    script.write_text(WORKER.format(tests=str(Path(__file__).parent)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(folder)],
            env={**os.environ, **{k: str(v) for k, v in {**shared, "RANK": i, "LOCAL_RANK": i}.items()}},
        )
        for i in range(count)
    ]
    assert [process.wait(timeout=240) for process in running] == [0] * count
    return [torch.load(folder / f"result-{i}", weights_only=False) for i in range(count)]


def test_two_processes_reach_the_weights_of_one(tmp_path):
    """The second part of the run resumes from a checkpoint that only the first process has."""
    alone = Trainer(RECIPE, make(), task(lambda model: {"top1": 0.25}), tmp_path / "alone")
    alone.run(bar)
    half = Trainer(RECIPE, make(), task(lambda model: {"top1": 0.25}), tmp_path / "run")
    finished = type("Half", (Trainer,), {"finished": property(lambda self: len(self.history) == 2)})
    half.__class__ = finished
    half.run(bar)
    first, second = run_processes(tmp_path, 2)
    for name, value in alone.best.items():
        torch.testing.assert_close(first["best"][name], value, rtol=0, atol=1e-5)
        assert torch.equal(first["best"][name], second["best"][name])
    losses = [[record["loss"] for record in history] for history in (alone.history, first["history"])]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert second["history"] == first["history"]
