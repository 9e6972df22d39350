"""Targets for Qualcomm's HTP, as far as they can be tested without Qualcomm's compiler."""

import ctypes
import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
import torch
from bundles import unsealed

from vmp_edge.bundle.writing import Staging
from vmp_edge.calibration import quantisation
from vmp_edge.cli import main
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowering import Exported
from vmp_edge.compile.lowerings import delegates
from vmp_edge.compile.lowerings.delegates import htp, onnx_qnn
from vmp_edge.compile.lowerings.delegates.qnn import shared, toolchain
from vmp_edge.compile.plan import QuantisationOptions, plan
from vmp_edge.compile.precision import find
from vmp_edge.errors import BuildError, MissingDependencyError, UsageError
from vmp_edge.models import ModelOptions, VideoMamba

# A library in the place of Qualcomm's: it keeps the configuration that deviceCreate gets.
QUALCOMM = """
#include <stdint.h>
#include <string.h>
typedef struct { uint32_t backend; const char* name; uint32_t version[6]; void (*functions[96])(void); } Provider;
typedef struct { uint32_t option; void* custom; } Config;
uint32_t seen[4], count;
static uint64_t create(void* log, const Config** configs, void** device) {
  (void)log;
  for (count = 0; configs && configs[count]; ++count)
    if (configs[count]->option == 0) memcpy(seen, configs[count]->custom, sizeof seen);
  *device = seen;
  return 7;
}
static Provider provider = {6, "HTP", {2, 30, 0, 5, 47, 0}, {0}};
static const Provider* listed[] = {&provider};
uint64_t QnnInterface_getProviders(const Provider*** list, uint32_t* n) {
  provider.functions[40] = (void (*)(void))create;
  provider.functions[41] = (void (*)(void))memcpy;
  *list = listed;
  *n = 1;
  return 0;
}
"""
CALLER = """
#include <stdint.h>
#include <stdio.h>
#include <dlfcn.h>
#include <string.h>
typedef struct { uint32_t backend; const char* name; uint32_t version[6]; void (*functions[96])(void); } Provider;
typedef struct { uint32_t option; void* custom; } Config;
int main(int count, char** given) {
  (void)count;
  void* between = dlopen(given[1], RTLD_NOW);
  const char* (*open)(const char*) = (const char* (*)(const char*))dlsym(between, "vmp_qnn_open");
  const char* wrong = open(given[2]);
  if (wrong) { puts(wrong); return 1; }
  uint64_t (*get)(const Provider***, uint32_t*) =
      (uint64_t (*)(const Provider***, uint32_t*))dlsym(between, "QnnInterface_getProviders");
  const Provider** list;
  uint32_t n;
  if (get(&list, &n) || n != 1) return 2;
  struct { uint32_t option; uint32_t value[2]; } custom = {1, {75, 57}};
  Config first = {0, &custom}, second = {3, NULL};
  const Config* configs[] = {&first, &second, NULL};
  void* device = NULL;
  uint64_t (*create)(void*, const Config**, void**) =
      (uint64_t (*)(void*, const Config**, void**))list[0]->functions[40];
  uint64_t code = create(NULL, configs, &device);
  uint32_t* seen = device;
  int kept = list[0]->functions[41] == (void (*)(void))memcpy;
  printf("%u %u %u %u %d\\n", (unsigned)code, seen[0], seen[2], seen[3], kept);
  return create(NULL, NULL, &device) != 7;
}
"""


@pytest.mark.parametrize("name", ["android-qnn", "onnx-qnn"])
def test_a_soc_is_chosen(name):
    kind = target.load(name)
    assert kind.soc == "SM8650"
    chosen = target.choose(kind, None, None, "SM8750")
    assert (chosen.soc, chosen.socs["SM8750"].htp) == ("SM8750", 79)
    assert target.choose(kind, None, None, None) == kind


@pytest.mark.parametrize(
    ("name", "words"),
    [("onnx-qnn", "--soc is 'SM1'; target onnx-qnn has SM8650, SM8750"), ("host", "target host has none")],
)
def test_an_unknown_soc_is_one_line(capfd, name, words):
    assert main(["build", "--target", name, "--soc", "SM1"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert words in lines[-1]
    assert not any("Traceback" in line for line in lines)


def test_16a8w_needs_clips():
    recipe = plan(find("16a8w"), True, QuantisationOptions()).recipe
    assert recipe.needs_clips and recipe.headroom > 1
    with pytest.raises(UsageError, match="16a8w is calibrated on clips"):
        plan(find("16a8w"), False, QuantisationOptions())


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_device_configurations_are_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path / "cache"))
    for name, text, flags in (("qualcomm", QUALCOMM, ["-shared", "-fPIC"]), ("caller", CALLER, [])):
        (tmp_path / f"{name}.c").write_text(text)
        command = ["cc", "-std=c11", *flags, tmp_path / f"{name}.c", "-o", tmp_path / name, "-ldl"]
        subprocess.run(command, check=True)
    between = toolchain.build()
    assert toolchain.build() == between
    caller = tmp_path / "caller"
    done = subprocess.run([caller, between, tmp_path / "qualcomm"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "7 1 75 57 1\n")
    done = subprocess.run([caller, between, tmp_path / "none.so"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "none.so" in done.stdout
    done = subprocess.run([caller, between, between], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "it is not a QNN library\n")


def test_no_compiler_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("VMP_EDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(MissingDependencyError, match="needs a C compiler"):
        toolchain.build()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(BuildError, match=r"htp\.c cannot be compiled"):
        toolchain.build()
    assert not list(tmp_path.rglob("*.so"))


def test_a_loaded_library_is_noticed():
    assert not toolchain._is_loaded("libno-such-library.so")
    ctypes.CDLL("libm.so.6")
    assert toolchain._is_loaded("libm.so.6")


def test_a_model_in_several_parts_is_refused():
    pytest.importorskip("onnx", reason="needs onnx")
    from onnx import TensorProto, helper

    def model_of(*kinds):
        names = [f"t{i}" for i in range(len(kinds) + 1)]
        nodes = [helper.make_node(kind, [a], [b]) for kind, a, b in zip(kinds, names, names[1:], strict=False)]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in (names[0], names[-1])]
        return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])).SerializeToString()

    onnx_qnn.check(model_of("EPContext"))
    for kinds, words in (
        (("EPContext", "Exp", "EPContext"), "in 2 parts and leaves Exp beside"),
        (("Exp",), "in 0 parts and leaves Exp"),
        (("EPContext", "EPContext"), "in 2 parts and leaves nothing"),
    ):
        with pytest.raises(BuildError, match=words):
            onnx_qnn.check(model_of(*kinds))


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, 2),  # scans in both directions, and the backward scan of the last layer, which gives one token
        ({"directions": "separate", "scan_input": "conv"}, 3),
        ({"scan_order": "temporal_first", "tubelet_size": 2}, 2),
    ],
    ids=str,
)
def test_parts_between_shared_scans_give_the_numbers_of_the_whole(options, kinds):
    torch.manual_seed(0)
    small = {"embed_dim": 32, "depth": 4, "image_size": 32, "num_frames": 4, "num_classes": 5}
    model = VideoMamba(ModelOptions(**{**small, **options})).eval()
    program = graph.export(model)
    whole, scans = shared.split(program)
    video = torch.randn(1, 3, 4, 32, 32)
    frames = graph.fold_frames(video, model.options.tubelet_size)
    parts = shared.inputs_of(whole, (frames,))
    assert len(scans) == len(graph.scans(program)) and scans < set(parts)
    assert len({shared.kind_of(whole.get_submodule(name), parts[name]) for name in scans}) == kinds
    assert not any(isinstance(value, torch.nn.Parameter) for name in set(parts) - scans for value in parts[name])
    with torch.no_grad():
        (logits,) = whole(frames)
        torch.testing.assert_close(logits, model(video), atol=1e-5, rtol=1e-5)


def test_scans_of_many_tokens_are_shared():
    torch.manual_seed(0)
    program = graph.export(VideoMamba(ModelOptions(embed_dim=32, depth=2, image_size=32, num_frames=4, num_classes=5)))
    kind = target.load("android-qnn")
    assert not delegates.shares_scans(program, kind, "fp16")  # 17 tokens
    kind = dataclasses.replace(kind, options={"shared_scans": 17})
    assert delegates.shares_scans(program, kind, "fp16")
    assert len(graph.scans(delegates.prepare(program, kind, "fp16").program)) == 2
    assert not delegates.shares_scans(program, kind, "16a8w")
    assert not delegates.shares_scans(program, target.load("onnx-qnn"), "fp16")


def test_a_delegate_that_quantises_by_itself_is_given_the_clips(tmp_path, monkeypatch):
    """ONNX Runtime's quantiser makes the model that QNN would compile: run on the CPU, it is near the float model."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    import onnxruntime

    def on_the_cpu(path, kind):
        content = path.read_bytes()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return delegates.Delegated(content, ("onnx",), "the CPU", lambda x: session.run(None, {"frames": x})[0])

    monkeypatch.setattr(onnx_qnn, "_require", lambda: None)
    monkeypatch.setattr(onnx_qnn, "_compile", on_the_cpu)
    torch.manual_seed(0)
    model = VideoMamba(ModelOptions(embed_dim=32, depth=2, image_size=32, num_frames=4, num_classes=5)).eval()
    kind = target.choose(target.load("onnx-qnn"), None, None, "SM8650")
    assert delegates.quantiser(kind, quantisation.load("16a8w")) is None
    plain = delegates.prepare(graph.export(model), kind, "16a8w").program
    videos = [torch.randn(1, 3, 4, 32, 32) for _ in range(3)]
    clips = [graph.fold_frames(video, 1).contiguous().numpy() for video in videos]
    source = Exported(model, plain, clips=clips)
    lowered = delegates.lower(source, Staging(tmp_path), kind, "16a8w", "model.onnx")
    engine = lowered.emulate(unsealed(tmp_path, "model.onnx", model.options))
    with torch.no_grad():
        expected = torch.cat([model(video) for video in videos]).numpy()
    got = engine.run(torch.cat(videos).numpy())
    assert 25 < 10 * np.log10(np.square(expected).sum() / np.square(got - expected).sum()) < 100
    import onnx
    from onnx import numpy_helper

    recipe, scales = quantisation.load("16a8w"), []
    for headroom in (recipe.headroom, 3 * recipe.headroom):
        delegated = onnx_qnn.lower_calibrated(plain, kind, dataclasses.replace(recipe, headroom=headroom), clips)
        nodes = onnx.load_from_string(delegated.program).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in nodes.initializer}
        (first,) = [node for node in nodes.node if node.op_type == "QuantizeLinear" and node.input[0] == "frames"]
        scales.append(float(constants[first.input[1]]))
    frames = np.stack(clips)
    assert scales[0] == pytest.approx(recipe.headroom * (frames.max() - frames.min()) / 65535, rel=1e-4)
    assert scales[1] == pytest.approx(3 * scales[0], rel=1e-4)


class PoorlyComputed(torch.nn.Module):
    def forward(self, x):
        return torch.exp(-x) + torch.sigmoid(x) + torch.rsqrt(x)


def test_operations_that_the_htp_computes_poorly_are_replaced():
    x = torch.logspace(-3, 3, 100)
    accurate = htp.with_accurate_operations(torch.export.export(PoorlyComputed(), (x,), strict=False))
    program = htp.with_bounded_exponents(accurate)
    calls = {node.target: node for node in program.graph.nodes if node.op == "call_function"}
    aten = torch.ops.aten
    assert not {aten.sigmoid.default, aten.rsqrt.default} & set(calls)
    assert calls[aten.exp.default].args[0].args[1] > -88  # below it the HTP's exponential can be any number
    torch.testing.assert_close(program.module()(x), PoorlyComputed()(x))
