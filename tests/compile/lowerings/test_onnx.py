"""ONNX models give the source model's numbers, are made of standard operators alone, and run without PyTorch."""

import json
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from bundles import unsealed
from small_models import VARIANTS, make_model

from vmp_edge import ops
from vmp_edge.compile import graph, target
from vmp_edge.compile.lowerings.onnx import qdq
from vmp_edge.compile.precision import Quantiser, quantised_by
from vmp_edge.errors import BundleError, MissingDependencyError, UsageError, VmpError
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, error
from vmp_edge.ops.chunked import Form
from vmp_edge.preprocessing import empty_video

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxscript", reason="needs onnxscript")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")
pytest.importorskip("torchao", reason="needs torchao: pip install 'vmp-edge[compile]'")

import onnx
import onnxruntime
from quantisation import quantised

from vmp_edge.compile.lowerings.onnx.lowering import OPSET, in_precision, lower, to_onnx
from vmp_edge.runtimes.onnxruntime.engine import OnnxRuntimeEngine

QUANTISED = quantised_by(Quantiser.RECIPE)
SCAN = Form("scan")


VARIANT_NAMES = ("pro", "vanilla", "spatiotemporal")  # shared or separate directions, both orders of tokens


@cache
def made(variant="pro", form=SCAN, **options):
    """A small model with the ONNX model made of it."""
    model = make_model(**VARIANTS[variant], **options)
    return model, to_onnx(graph.export(model), form)


def stock_session(made):
    """ONNX Runtime as it comes, without any of our options."""
    return onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture
def as_bundle(tmp_path):
    """What an engine sees of a bundle with this model."""

    def make(program, options):
        (tmp_path / "model.onnx").write_bytes(program)
        return unsealed(tmp_path, "model.onnx", options)

    return make


@pytest.mark.parametrize("variant", VARIANT_NAMES)
def test_agrees_with_the_source_model(variant, as_bundle):
    model, program = made(variant)
    engine = OnnxRuntimeEngine(as_bundle(program.SerializeToString(), model.options))
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


def check_standard(made):
    """Standard operators alone, static shapes."""
    onnx.checker.check_model(made, full_check=True)
    assert {entry.domain: entry.version for entry in made.opset_import} == {"": OPSET}
    assert not made.functions
    assert {node.domain for node in made.graph.node} == {""}
    shapes = [value.type.tensor_type.shape for value in [*made.graph.input, *made.graph.value_info]]
    assert all(size.HasField("dim_value") for shape in shapes for size in shape.dim)


@pytest.mark.parametrize("form", [SCAN, Form("loop", 4), Form("hillis-steele", 4, "polynomial")], ids=str)
def test_standard_operators_alone_with_static_shapes(form):
    model, program = made(form=form)
    check_standard(program)
    scans = [node for node in program.graph.node if node.op_type == "Scan"]
    # one for both directions of a block, but in the last, which scans in one direction to the first token alone
    assert len(scans) == (model.options.depth + 1 if form == SCAN else 0)
    assert all(len(node.attribute[0].g.node) <= 6 for node in scans)
    video = torch.randn(1, 3, 4, 32, 32)
    (logits,) = stock_session(program).run(None, {"frames": graph.fold_frames(video, 1).numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(video).numpy(), atol=1e-4, rtol=0)


def test_what_a_scan_takes_from_outside_is_constant():
    """OpenVINO takes nothing else; wide, as the optimiser by itself computes small tensors only."""
    _, program = made(embed_dim=384, depth=2, num_frames=2)
    constant = {tensor.name for tensor in program.graph.initializer}
    for node in program.graph.node:
        if node.op_type == "Scan":
            (body,) = (attribute.g for attribute in node.attribute if attribute.name == "body")
            inside = {value.name for value in body.input} | {name for each in body.node for name in each.output}
            assert {name for each in body.node for name in each.input} - inside <= constant


def test_size_does_not_depend_on_the_length():
    """The known failure is a scan that is unrolled over the tokens."""
    sizes = [made(**frames)[1].ByteSize() for frames in ({}, {"num_frames": 8})]
    positions = 4 * 4 * 32 * 4  # frames, patches, width, bytes
    assert sizes[1] - sizes[0] < positions + 500


class OneOperator(torch.nn.Module):
    """A case's operator with all its tensors as inputs."""

    def __init__(self, case):
        super().__init__()
        self.operator, self.options = getattr(ops, case.operator), case.options()

    def forward(self, **inputs):
        return self.operator(**inputs, **self.options)


# Without extremes of z: ONNX Runtime's sigmoid is never below 1e-8. Cases that differ in numbers alone share a graph.
SOME = [[case for case in SCAN_CASES if (case.length, case.leave_out) == (37, ("z",)) and case.direction == direction]
        for direction in ("forward", "backward", "both")]  # fmt: skip
SOME += [[case] for case in SCAN_CASES if (case.length, case.channels, case.direction) == (401, 5, "both")]
SOME += [[case] for case in SCAN_CASES if (case.length, case.channels) == (1, 7)][-1:]


@pytest.mark.parametrize("cases", [*SOME, CONV_CASES[:1], CONV_CASES[-1:]], ids=lambda cases: cases[0].name)
def test_operators_agree_with_the_reference(cases):
    given = [{name: tensor for name, tensor in case.inputs().items() if tensor is not None} for case in cases]
    program = torch.export.export(OneOperator(cases[0]), (), given[0], strict=False)
    session = stock_session(to_onnx(program, SCAN, names=(list(given[0]), ["y"])))
    for case, inputs in zip(cases, given, strict=True):
        (y,) = session.run(None, {name: tensor.contiguous().numpy() for name, tensor in inputs.items()})
        assert error(case, torch.from_numpy(y)) <= case.tolerance


WIDE = {"embed_dim": 192, "num_classes": 5, "num_frames": 2, "depth": 2}
# Layers that the recipes leave in float (the patches', the head), and the most bytes of weights, over those in fp32: in
# a model of two blocks the patches' are a quarter.
FLOAT_LAYERS = {"int8": 0, "int8-dynamic": 1, "int8-weight-only": 2}
MOST = {"fp16": 0.55, "int8": 0.35, "int8-dynamic": 0.5, "int8-weight-only": 0.5}


@cache
def wide(precision):
    """A model as wide as Tiny, its program in a precision before lowering, and the ONNX model."""
    model = make_model(**WIDE)
    program = graph.export(model)
    if precision in QUANTISED:
        program = quantised(program, precision)
    return model, program, to_onnx(in_precision(program, precision), SCAN)


@pytest.mark.parametrize("precision", ["fp16", *QUANTISED])
def test_precisions(precision, as_bundle):
    """What PyTorch computes with the rewritten program, close to the model; and hardly more than the weights."""
    model, program, made = wide(precision)
    check_standard(made)
    video = torch.randn(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    frames = graph.fold_frames(video, 1)
    rewritten = qdq.with_fixed_ranges(program) if precision in QUANTISED else program
    with torch.no_grad():
        exact, quantised_here, expected = (
            run(x).numpy() for run, x in ((model, video), (program.module(), frames), (rewritten.module(), frames))
        )
    got = OnnxRuntimeEngine(as_bundle(made.SerializeToString(), model.options)).run(video.numpy())
    assert got.dtype == np.float32 and not np.array_equal(got, exact)
    (stock,) = stock_session(made).run(None, {"frames": frames.numpy()})
    spread = np.ptp(exact)  # which is small with random weights: trained models are closer
    np.testing.assert_allclose(got, expected, atol=(5e-3 if precision == "fp16" else 1e-5) * spread, rtol=0)
    for numbers in (got, stock, quantised_here):
        np.testing.assert_allclose(numbers, exact, atol=0.1 * spread, rtol=0)
    least = sum(tensor.ByteSize() for tensor in made.graph.initializer)
    assert made.ByteSize() < 1.3 * least
    assert least < MOST[precision] * sum(one.numel() * 4 for one in model.parameters())


@pytest.mark.parametrize("precision", QUANTISED)
def test_int8_weights_lie_as_they_are_multiplied(precision):
    """Nothing between DequantizeLinear and its product: consumers find both, and ONNX Runtime 1.31 keeps it valid."""
    made = wide(precision)[2]
    users = {}
    for node in made.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    dequantised = [node for node in made.graph.node if node.op_type == "DequantizeLinear"]
    assert {user for node in dequantised for user in users[node.output[0]]} <= {"MatMul", "Gemm", "Conv"}
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    weights = [node for node in dequantised if kinds.get(node.input[0]) == onnx.TensorProto.INT8]
    assert len(weights) == 7 * WIDE["depth"] + 2 - FLOAT_LAYERS[precision]
    quantised_inputs = sum(node.op_type == "QuantizeLinear" for node in made.graph.node)
    assert (quantised_inputs > 0) == (precision != "int8-weight-only")


def test_tokens_of_zeros_stay_zeros():
    """And one token's size is nothing to the others'."""
    linear = torch.nn.Linear(8, 8, bias=False)
    x = torch.randn(1, 3, 8) * torch.tensor([1e4, 0.0, 1e-4])[:, None]
    program = quantised(torch.export.export(torch.nn.Sequential(linear), (x,), strict=False), "int8-dynamic")
    made = to_onnx(qdq.with_fixed_ranges(program), SCAN, names=(["x"], ["y"]))
    (y,) = stock_session(made).run(None, {"x": x.numpy()})
    expected = linear(x).detach().numpy()
    assert not y[0, 1].any()
    assert (np.abs(y - expected) <= 0.02 * np.abs(expected).max(-1, keepdims=True)).all()


def test_the_program_must_be_of_the_precision():
    with pytest.raises(UsageError, match="the program is not quantised, which does not go with int8"):
        in_precision(graph.export(make_model()), "int8")


def test_damaged_model(as_bundle):
    bundle = as_bundle(b"not a model", make_model().options)
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load it") as caught:
        OnnxRuntimeEngine(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_package(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependencyError, match=rf"needs {missing}; run: pip install 'vmp-edge\[compile,onnx"):
        lower(None, None, target.load("onnx"), "fp32")


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
