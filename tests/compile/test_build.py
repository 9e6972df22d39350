"""`vmp-edge build`: what it writes, and that every failure is one line that leaves nothing behind."""

import dataclasses
import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from processes import heed_interrupts

import vmp_edge
from vmp_edge.bundle.check import check_clip
from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import Staging
from vmp_edge.cli import main
from vmp_edge.compile import target
from vmp_edge.compile.precision import PRECISIONS, Difference
from vmp_edge.models import VideoMamba, load_checkpoint, zoo

ROOT = Path(__file__).parents[2]


def run(capfd, *arguments):
    """Exit code, standard output and the lines of standard error of the command line."""
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err.splitlines()


@pytest.mark.parametrize("engine", ["executorch", "onnxruntime", "torch"])
def test_builds_a_checkpoint(capfd, tmp_path, checkpoint, engine):
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\nd\ne\n")
    output = tmp_path / "out" / "bundle"
    # One thread, as in every other test: a process cannot change the number of ExecuTorch's threads.
    code, out, lines = run(
        capfd,
        *("build", "--target", "host", "--engine", engine, "--checkpoint", checkpoint),
        *("--labels", labels, "--output", output, "--threads", 1, "--json"),
    )
    assert code == 0, lines
    answer = json.loads(out.splitlines()[-1])
    assert answer["bundle"] == str(output)
    manifest = Bundle.open(output).manifest
    assert (manifest.name, manifest.target, manifest.engine, manifest.precision) == ("small", "host", engine, "fp32")
    assert manifest.labels == ("a", "b", "c", "d", "e")
    assert manifest.threads == 1
    assert 0 <= manifest.parity["max_difference"] <= manifest.parity["tolerance"] == 1e-4
    assert "torch" in manifest.tools
    assert sorted(path.name for path in output.iterdir()) == sorted([*manifest.files, "manifest.yaml"])
    assert [path.name for path in output.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("executorch", "fp32"), ("onnxruntime", "fp32"), ("torch", "fp32"), ("onnxruntime", "int8")],
)
def test_builds_with_features(capfd, tmp_path, checkpoint, engine, precision):
    output = tmp_path / "bundle"
    build = ("build", "--target", "host", "--engine", engine, "--checkpoint", checkpoint, "--output", output)
    clips = ("--calibrate", _videos(tmp_path), "--calibration-clips", 2) if precision == "int8" else ()
    assert run(capfd, *build, "--precision", precision, *clips, "--features")[0] == 0
    with vmp_edge.load(output) as recognizer:
        manifest = recognizer.manifest
        assert (manifest.features, manifest.outputs) == (32, 37)
        assert manifest.parity["features"]["cosine"] >= manifest.parity["features"]["least_cosine"]
        assert len(manifest.parity["check"]["logits"]) == 5
        video = manifest.preprocessing.clip(check_clip(3, 4, 32))
        expected = load_checkpoint(checkpoint).forward_features(torch.from_numpy(video)).detach().numpy()
        got = recognizer.features(video)
        assert got.shape == (1, 32)
        if precision == "fp32":
            np.testing.assert_allclose(got, expected, atol=1e-4)
    assert run(capfd, "verify", output)[0] == 0


def accept(monkeypatch, tolerance):
    """Let a build in fp32 accept logits that differ by at most so much."""
    monkeypatch.setitem(PRECISIONS, "fp32", dataclasses.replace(PRECISIONS["fp32"], parity=Difference(tolerance)))


def _videos(folder):
    """A folder of two short videos."""
    for number in range(2):
        path = folder / "clips" / "moving" / f"{number}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (32, 32))
        for picture in check_clip(number, 8, 32):
            writer.write(picture)
        writer.release()
    return folder / "clips"


def test_features_and_finetuning_exclude_each_other(capfd, tmp_path):
    options = ("--features", "--precision", "int8", "--finetune", 5, "--output", tmp_path / "b")
    code, _, err = run(capfd, "build", "--target", "host", *options)
    assert code == 2 and "one of --features and --finetune" in err[-1] and not list(tmp_path.iterdir())


def test_a_bundle_whose_features_are_wrong_is_not_written(capfd, tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(
        VideoMamba, "forward_features", lambda self, video: -self.norm_f(self.forward_blocks(video)[:, 0])
    )
    accept(monkeypatch, 1e9)
    build = ("build", "--target", "host", "--engine", "onnxruntime", "--checkpoint", checkpoint)
    code, _, err = run(capfd, *build, "--features", "--output", tmp_path / "out" / "b")
    assert code == 1 and "bundle's features" in err[-1] and not (tmp_path / "out").exists()


def test_bundles_of_both_engines_agree_with_the_checkpoint(once, checkpoint):
    clip = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    scores = []
    for engine in ("executorch", "torch"):
        output = once.bundle("--target", "host", "--engine", engine, checkpoint=checkpoint)
        scores.append(vmp_edge.load(output, threads=None).predict(clip).scores)
    model = vmp_edge.models.load_checkpoint(checkpoint)
    with torch.no_grad():
        video = torch.from_numpy(vmp_edge.Preprocessing(32).clip(clip))
        expected = model(video).softmax(1)[0].numpy()
    np.testing.assert_allclose(scores, [expected] * 2, atol=1e-4)


def test_default_is_our_own_model(capfd, tmp_path):
    output = tmp_path / "bundle"
    command = [sys.executable, ROOT / "compile" / "build.py", "--target", "host", "--output", output]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    manifest = Bundle.open(output).manifest
    assert manifest.name == "egomotion-nano"
    assert manifest.labels == zoo.load("egomotion-nano").labels
    assert run(capfd, "verify", output)[0] == 0


def test_random_weights_are_said_to_be_random(capfd, tmp_path):
    sizes = ("--frames", 4, "--image-size", 32)
    arguments = ("build", "--target", "host", "--engine", "torch", "--model", "videomamba-tiny", *sizes)
    code, _, lines = run(capfd, *arguments, "--output", tmp_path / "b")
    assert code == 0
    assert [line for line in lines if "random" in line and "recognises nothing" in line]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--target", "mars"], 2, f"unknown target 'mars'; known are {', '.join(target.names())}"),
        (
            ["--target", "host", "--engine", "abacus"],
            2,
            "no engine 'abacus'; it has executorch, tvm, onnxruntime, torch",
        ),
        (["--target", "host", "--precision", "int3"], 2, "no precision 'int3'; it has fp32"),
        (["--target", "host", "--model", "resnet"], 2, "unknown model 'resnet'"),
        (["--target", "host", "--threads", "0"], 2, "--threads is 0"),
        (["--target", "host", "--checkpoint", "none.pth"], 1, "none.pth: there is no such file"),
        (["--target", "host", "--model", "videomamba-tiny", "--image-size", "100"], 2, "not a multiple of the patch"),
        (["--target", "host", "--model", "videomamba-tiny", "--labels", "none.txt"], 2, "none.txt: cannot be read"),
        (["--target", "host", "--model", "egomotion-nano", "--frames", "5"], 2, "and nothing else"),
    ],
)
def test_bad_requests(capfd, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    answer, _, lines = run(capfd, "build", *arguments)
    assert answer == code
    assert words in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert list(tmp_path.iterdir()) == []


def test_wrong_number_of_labels(capfd, tmp_path, checkpoint):
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    code, _, lines = run(capfd, "build", "--target", "host", "--checkpoint", checkpoint, "--labels", labels)
    assert code == 2
    assert "has 2 labels, but the model has 5 classes" in lines[-1]


@pytest.mark.parametrize("missing", ["torch", "executorch", "cmake"])
def test_missing_extra_is_one_line(tmp_path, checkpoint, missing):
    """In a process of its own, in which the library looks as if it were not installed and nothing is cached."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from vmp_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "build", "--target", "host", "--checkpoint", str(checkpoint)]
    output = tmp_path / "bundle"
    environment = {"PATH": "/usr/bin:/bin", "VMP_EDGE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 1
    assert "pip install " in done.stderr.splitlines()[-1] and "[compile]'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_bundle_that_differs_is_not_written(capfd, tmp_path, checkpoint, monkeypatch):
    accept(monkeypatch, 1e-12)
    output = tmp_path / "bundle"
    code, _, lines = run(capfd, "build", "--target", "host", "--checkpoint", checkpoint, "--output", output)
    assert code == 1
    assert "differ from the source model's by" in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]


def test_full_disk(capfd, tmp_path, checkpoint, monkeypatch):
    def full(self, name, content=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Staging, "add", full)
    output = tmp_path / "bundle"
    code, _, lines = run(
        capfd, *("build", "--target", "host", "--engine", "torch", "--checkpoint", checkpoint, "--output", output)
    )
    assert code == 1
    assert "disk" in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_leaves_nothing(tmp_path, checkpoint, how):
    output = tmp_path / "bundle"
    command = [sys.executable, "-m", "vmp_edge", "build", "--target", "host", "--checkpoint", str(checkpoint)]
    command += ["--output", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heed_interrupts)
    assert process.stderr is not None
    seen = ""
    while "[2/4]" not in seen:
        seen += process.stderr.read(1)
    time.sleep(0.5)  # somewhere inside the lowering
    process.send_signal(how)
    _, rest = process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "vmp-edge: stopped"
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]


def test_an_existing_bundle_survives_a_failed_build(capfd, tmp_path, checkpoint, monkeypatch):
    output = tmp_path / "bundle"
    arguments = ("build", "--target", "host", "--engine", "torch", "--checkpoint", checkpoint, "--output", output)
    assert run(capfd, *arguments)[0] == 0
    before = (output / "manifest.yaml").read_bytes()
    accept(monkeypatch, -1.0)
    assert run(capfd, *arguments)[0] == 1
    assert (output / "manifest.yaml").read_bytes() == before
    assert Bundle.open(output)


def test_targets_are_listed_with_what_was_verified(capfd):
    code, out, _ = run(capfd, "targets", "--json")
    assert code == 0
    listed = json.loads(out.splitlines()[-1])["targets"]
    assert [entry["name"] for entry in listed] == target.names()
    assert all(entry["verified"] for entry in listed)
