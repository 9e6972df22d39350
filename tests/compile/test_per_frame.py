"""`vmp-edge build --per-frame`: two programs that give together what one gives."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from bundles import unsealed
from small_models import VARIANTS, make_model

import vmp_edge
from vmp_edge.bundle.reading import Bundle
from vmp_edge.calibration import quantisation
from vmp_edge.cli import main
from vmp_edge.compile import graph
from vmp_edge.machine import host_machine


def run(capfd, *arguments):
    """Exit code, standard output and the lines of standard error of the command line."""
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out, captured.err.splitlines()


def run_split(program, frames, tubelet):
    """Logits of a window's frames (T, 3, H, W), each of which is embedded by itself."""
    embedding, rest = (part.module() for part in graph.split(program, tubelet))
    shares = torch.cat([embedding(frame[None]) for frame in frames])
    shares = shares.unflatten(0, (-1, tubelet)).unflatten(3, (tubelet, -1))  # (T / N, N, P, N, C)
    return rest(sum(shares[:, place, :, place] for place in range(tubelet)))


@torch.no_grad()
@pytest.mark.parametrize("variant", ["pro", "pro-conv-tubelet", "spatiotemporal"])
def test_both_parts_give_what_the_whole_gives(make, variant):
    model = make(**VARIANTS[variant])
    program, tubelet = graph.export(model), model.options.tubelet_size
    video = torch.randn(1, 3, 4, 32, 32)
    frames = video[0].transpose(0, 1)
    torch.testing.assert_close(run_split(program, frames, tubelet), model(video), atol=1e-5, rtol=0)
    embedding, rest = graph.split(program, tubelet)
    sizes = [sum(tensor.numel() for tensor in part.state_dict.values()) for part in (embedding, rest)]
    assert sizes[0] == model.patch_embed.proj.weight.numel() + tubelet * model.options.embed_dim  # and nothing twice
    assert sum(sizes) <= sum(tensor.numel() for tensor in program.state_dict.values()) + (tubelet - 1) * 32


@torch.no_grad()
@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_a_quantised_program_is_cut_as_it_is(make, precision):
    torch.manual_seed(0)
    program = graph.export(make())
    shown = [torch.randn_like(program.example_inputs[0][0]) for _ in range(3)]
    whole = quantisation.quantise(program, quantisation.load(precision), shown)
    expected = whole.module(check_guards=False)(shown[0])
    torch.testing.assert_close(run_split(whole, shown[0], 1), expected, atol=1e-5, rtol=0)


def moving_noise(count):
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8), (48, 40))
    return [np.roll(picture, 3 * step, axis=1) for step in range(count)]


MODULES = {"executorch": "executorch", "tvm": "tvm", "onnxruntime": "onnxscript"}
PROGRAMS = {"executorch": "pte", "tvm": "so", "onnxruntime": "onnx"}


def build(capfd, folder, *arguments):
    """A bundle's folder."""
    code, _, lines = run(capfd, "build", "--target", "host", "--output", folder, *arguments)
    assert code == 0, lines
    return folder


def stream_scores(bundle):
    """Scores of a stream's windows, and of a clip."""
    with vmp_edge.load(bundle) as recognizer:
        stream = vmp_edge.Stream(recognizer, hop=1, stride=2, smoothing=None)
        results = [stream.push(frame, index / 30) for index, frame in enumerate(moving_noise(14))]
        clip = recognizer.predict(np.stack(moving_noise(6)))
        return [result.scores for result in (*results, clip) if result is not None]


@pytest.mark.parametrize("engine", MODULES)
def test_a_bundle_streams_as_the_model_does(capfd, tmp_path, once, engine):
    pytest.importorskip(MODULES[engine], reason=f"needs {engine}")
    model = make_model(**VARIANTS["pro-conv-tubelet"])
    torch.save({"model": model.state_dict(), "options": vars(model.options)}, tmp_path / "small.pth")
    plain = once.bundle("--target", "host", "--engine", "torch", checkpoint=tmp_path / "small.pth")
    apart = build(capfd, tmp_path / "apart", "--checkpoint", tmp_path / "small.pth", "--engine", engine, "--per-frame")
    expected = stream_scores(plain)
    assert len(expected) == 9
    np.testing.assert_allclose(stream_scores(apart), expected, atol=1e-5, rtol=0)
    manifest = Bundle.open(apart).manifest
    assert (manifest.program, manifest.embedding) == (f"model.{PROGRAMS[engine]}", f"embedding.{PROGRAMS[engine]}")
    assert manifest.embedding in manifest.files and manifest.parity["clips"] > 0
    assert manifest.to_dict()["format"] == 2
    assert run(capfd, "verify", apart)[0] == 0
    if engine == "executorch":  # by the runner, as builds for other processors are run under an emulator
        from vmp_edge.compile.emulation.runners import EmulatedExecuTorch

        video = np.random.default_rng(0).standard_normal((2, 3, 4, 32, 32), np.float32)
        with torch.no_grad():
            logits = model(torch.from_numpy(video))
        emulated = EmulatedExecuTorch(Bundle.open(apart), host_machine())
        np.testing.assert_allclose(emulated.run(video), logits, atol=1e-4, rtol=0)


def test_int8_in_executorch_gives_what_the_whole_gives(make, tmp_path):
    pytest.importorskip("executorch", reason="needs executorch")
    from vmp_edge.compile.lowerings.executorch import to_executorch
    from vmp_edge.runtimes.executorch.engine import ExecuTorchEngine
    from vmp_edge.runtimes.executorch.library import LIBRARY, build_library

    model = make()
    program = graph.export(model)
    torch.manual_seed(0)
    shown = [torch.randn_like(program.example_inputs[0][0]) for _ in range(3)]
    whole = quantisation.quantise(program, quantisation.load("int8"), shown)
    embedding, rest = graph.split(whole, 1)
    shutil.copyfile(build_library(), tmp_path / LIBRARY)
    for name, part in (("whole", whole), ("embedding", embedding), ("rest", rest)):
        (tmp_path / name).write_bytes(to_executorch(part).buffer)
    video = np.random.default_rng(0).standard_normal((2, 3, 4, 32, 32), np.float32)
    logits = []
    for name, apart in (("whole", None), ("rest", tmp_path / "embedding")):
        logits.append(ExecuTorchEngine(unsealed(tmp_path, name, model.options, apart)).run(video))
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--target", "host", "--engine", "torch"], "executorch, onnxruntime, openvino, tvm, not for torch"),
        (["--target", "cuda"], "is for CPUs, and cuda is none"),
        (["--target", "apple-ane"], "is for CPUs, and apple-ane is none"),
        (
            ["--target", "host", "--precision", "int8-dynamic"],
            "egomotion-nano embeds 2 frames at once, which int8-dynamic",
        ),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(capfd, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, _, lines = run(capfd, "build", "--per-frame", *arguments)
    assert code == 2 and told in lines[-1]
    assert list(tmp_path.iterdir()) == []
