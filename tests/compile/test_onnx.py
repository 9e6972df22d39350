"""ONNX models give the source model's numbers, are made of standard operators alone, and run without PyTorch."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vmp_edge import ops
from vmp_edge.compile import graph
from vmp_edge.errors import BundleError, MissingDependencyError, VmpError
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, error
from vmp_edge.ops.chunked import Form
from vmp_edge.preprocessing import empty_video

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxscript", reason="needs onnxscript")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import onnx
import onnxruntime

from vmp_edge.compile.onnx import OPSET, lower, to_onnx
from vmp_edge.runtimes.onnxruntime.engine import OnnxRuntimeEngine

SCAN = Form("scan")


@pytest.fixture
def as_bundle(tmp_path):
    """What an engine sees of a bundle with this model."""

    def make(program, options):
        (tmp_path / "model.onnx").write_bytes(program)
        manifest = SimpleNamespace(program="model.onnx", model=vars(options), labels=range(options.num_classes))
        return SimpleNamespace(path=tmp_path, manifest=manifest)

    return make


def test_agrees_with_the_source_model(model, as_bundle):
    engine = OnnxRuntimeEngine(as_bundle(to_onnx(graph.export(model), SCAN).SerializeToString(), model.options))
    video = np.random.default_rng(0).standard_normal((2, 3, 4, 32, 32), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(video)).numpy()
    got = engine.run(video)
    assert got.shape == expected.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=0)
    frame_by_frame = empty_video(4, 32)  # as the ring fills it
    frame_by_frame[...] = video[:1]
    np.testing.assert_array_equal(engine.run(frame_by_frame)[0], got[0])
    with pytest.raises(VmpError, match="ONNX Runtime: "):
        engine.run(video[:, :, :2])
    engine.close()
    engine.close()


@pytest.mark.parametrize("form", [SCAN, Form("loop", 4), Form("hillis-steele", 4, "polynomial")], ids=str)
def test_standard_operators_alone_with_static_shapes(make, form):
    model = make()
    made = to_onnx(graph.export(model), form)
    onnx.checker.check_model(made, full_check=True)
    assert {entry.domain: entry.version for entry in made.opset_import} == {"": OPSET}
    assert not made.functions
    assert {node.domain for node in made.graph.node} == {""}
    scans = [node for node in made.graph.node if node.op_type == "Scan"]
    assert len(scans) == (2 * model.options.depth if form == SCAN else 0)
    assert all(len(node.attribute[0].g.node) <= 6 for node in scans)
    shapes = [value.type.tensor_type.shape for value in [*made.graph.input, *made.graph.value_info]]
    assert all(size.HasField("dim_value") for shape in shapes for size in shape.dim)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    video = torch.randn(1, 3, 4, 32, 32)
    (logits,) = session.run(None, {"frames": graph.fold_frames(video, 1).numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(video).numpy(), atol=1e-4, rtol=0)


def test_size_does_not_depend_on_the_length(make):
    """The known failure is a scan that is unrolled over the tokens."""
    sizes = [to_onnx(graph.export(make(num_frames=frames)), SCAN).ByteSize() for frames in (2, 8)]
    positions = 6 * 4 * 32 * 4  # frames, patches, width, bytes
    assert sizes[1] - sizes[0] < positions + 500


class OneOperator(torch.nn.Module):
    """A case's operator with all its tensors as inputs."""

    def __init__(self, case):
        super().__init__()
        self.operator, self.options = getattr(ops, case.operator), case.options()

    def forward(self, **inputs):
        return self.operator(**inputs, **self.options)


# Without extremes of z: ONNX Runtime's sigmoid is never below 1e-8.
SOME = [case for case in SCAN_CASES if case.length == 37 and case.leave_out == ("z",)]
SOME += [case for case in SCAN_CASES if (case.length, case.channels) == (401, 5)]
SOME += [case for case in SCAN_CASES if (case.length, case.channels) == (1, 7)][-1:]


@pytest.mark.parametrize("case", [*SOME, CONV_CASES[0], CONV_CASES[-1]], ids=lambda case: case.name)
def test_operators_agree_with_the_reference(case):
    inputs = {name: tensor for name, tensor in case.inputs().items() if tensor is not None}
    program = torch.export.export(OneOperator(case), (), inputs, strict=False)
    made = to_onnx(program, SCAN, names=(list(inputs), ["y"]))
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {name: tensor.contiguous().numpy() for name, tensor in inputs.items()})
    assert error(case, torch.from_numpy(y)) <= case.tolerance


def test_quantised_programs_keep_their_numbers(make, as_bundle):
    """Linear layers in int8: what PyTorch computes with the quantised program, and int8 weights in the file."""
    quantizer = pytest.importorskip(
        "executorch.backends.xnnpack.quantizer.xnnpack_quantizer", reason="needs executorch"
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    model, video = make(depth=1), torch.randn(1, 3, 4, 32, 32)
    frames = graph.fold_frames(video, 1)
    recipe = quantizer.get_symmetric_quantization_config(is_per_channel=True)
    linears = quantizer.XNNPACKQuantizer().set_operator_type(torch.ops.aten.linear.default, recipe)
    observed = prepare_pt2e(graph.export(model).module(), linears)
    observed(frames)
    quantised = convert_pt2e(observed)
    made = to_onnx(torch.export.export(quantised, (frames,), strict=False), SCAN)
    weights = [tensor for tensor in made.graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims]
    assert len(weights) >= 7
    engine = OnnxRuntimeEngine(as_bundle(made.SerializeToString(), model.options))
    with torch.no_grad():
        np.testing.assert_allclose(engine.run(video.numpy()), quantised(frames).numpy(), atol=1e-5)


def test_damaged_model(as_bundle, make):
    bundle = as_bundle(b"not a model", make().options)
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load it") as caught:
        OnnxRuntimeEngine(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=rf"needs {missing}; run: pip install 'vmp-edge\[compile,onnx"):
        lower(None, None, None, "fp32")


RUN_WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["onnx"] = None  # importing them now fails
import numpy as np
import vmp_edge
recognizer = vmp_edge.load(sys.argv[1], threads=1)
size = recognizer.manifest.image_size
print(json.dumps({"label": recognizer.predict(np.zeros((4, size, size, 3), np.uint8)).label}))
"""


def test_bundle_runs_without_importing_pytorch(tmp_path, checkpoint):
    from vmp_edge.compile.pipeline import Request, build

    bundle = build(Request(target="host", engine="onnxruntime", checkpoint=checkpoint, output=tmp_path / "bundle"))
    assert bundle.manifest.parity["max_difference"] <= 1e-4
    assert sorted(bundle.manifest.files) == ["model.onnx"]
    moved = shutil.move(bundle.path, tmp_path / "elsewhere")
    command = [sys.executable, "-c", RUN_WITHOUT_TORCH, str(moved)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["label"].startswith("class-")
    assert done.stderr == ""
