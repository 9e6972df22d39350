"""ONNX models give the source model's numbers, have standard operators alone, and run without PyTorch."""

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
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, ConvCase, ScanCase, error
from vmp_edge.ops.chunked import Form
from vmp_edge.ops.stateful_cases import StateCase, errors
from vmp_edge.preprocessing import empty_video

pytest.importorskip("onnx", reason="needs onnx")
pytest.importorskip("onnxscript", reason="needs onnxscript")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")
pytest.importorskip("torchao", reason="needs torchao, of the extra `compile`")

import onnx
import onnxruntime
from quantisation import quantised

from vmp_edge.compile.lowerings.onnx.lowering import OPSET, in_precision, lower, to_onnx
from vmp_edge.runtimes.onnxruntime.engine import OnnxRuntimeEngine

QUANTISED = quantised_by(Quantiser.RECIPE)
SCAN = Form("scan")


VARIANT_NAMES = ("pro", "vanilla", "spatiotemporal")  # shared or separate directions, both orders of tokens


@cache
def converted(variant="pro", form=SCAN, **options):
    """A small model and its ONNX model."""
    model = make_model(**VARIANTS[variant], **options)
    return model, to_onnx(graph.export(model), form)


def stock_session(program):
    """A session of ONNX Runtime with its default options instead of our own."""
    return onnxruntime.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture
def as_bundle(tmp_path):
    """A function that returns what an engine sees of a bundle with an ONNX model."""

    def make(program, options):
        (tmp_path / "model.onnx").write_bytes(program)
        return unsealed(tmp_path, "model.onnx", options)

    return make


@pytest.mark.parametrize("variant", VARIANT_NAMES)
def test_agrees_with_the_source_model(variant, as_bundle):
    model, program = converted(variant)
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


def check_standard(program):
    """Check that a model has standard operators alone, and static shapes."""
    onnx.checker.check_model(program, full_check=True)
    assert {entry.domain: entry.version for entry in program.opset_import} == {"": OPSET}
    assert not program.functions
    assert {node.domain for node in program.graph.node} == {""}
    shapes = [value.type.tensor_type.shape for value in [*program.graph.input, *program.graph.value_info]]
    assert all(size.HasField("dim_value") for shape in shapes for size in shape.dim)


@pytest.mark.parametrize("form", [SCAN, Form("loop", 4), Form("hillis-steele", 4, "polynomial")], ids=str)
def test_standard_operators_alone_with_static_shapes(form):
    model, program = converted(form=form)
    check_standard(program)
    scans = [node for node in program.graph.node if node.op_type == "Scan"]
    # each block has one for both directions, but the last has two, as its forward direction takes the first token alone
    assert len(scans) == (model.options.depth + 1 if form == SCAN else 0)
    assert all(len(node.attribute[0].g.node) <= 6 for node in scans)
    video = torch.randn(1, 3, 4, 32, 32)
    (logits,) = stock_session(program).run(None, {"frames": graph.fold_frames(video, 1).numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(video).numpy(), atol=1e-4, rtol=0)


def test_what_a_scan_takes_from_outside_is_constant():
    """OpenVINO takes nothing else. The model is wide, as the optimiser by itself folds small tensors only."""
    _, program = converted(embed_dim=384, depth=2, num_frames=2)
    constant = {tensor.name for tensor in program.graph.initializer}
    for node in program.graph.node:
        if node.op_type == "Scan":
            (body,) = (attribute.g for attribute in node.attribute if attribute.name == "body")
            inside = {value.name for value in body.input} | {name for each in body.node for name in each.output}
            assert {name for each in body.node for name in each.input} - inside <= constant


def test_size_does_not_depend_on_the_length():
    """A scan that is unrolled over the tokens would be larger for more frames."""
    sizes = [converted(**frames)[1].ByteSize() for frames in ({}, {"num_frames": 8})]
    positions = 4 * 4 * 32 * 4  # frames, patches, width, bytes
    assert sizes[1] - sizes[0] < positions + 500


class OneOperator(torch.nn.Module):
    """The operator of a case, with all tensors as inputs."""

    def __init__(self, case):
        super().__init__()
        self.operator, self.options = getattr(ops, case.operator), case.options()

    def forward(self, **inputs):
        return self.operator(**inputs, **self.options)


# No cases with extremes of z, as ONNX Runtime's sigmoid is never below 1e-8. Cases of the same shapes share a graph.
SOME = [[case for case in SCAN_CASES if (case.length, case.leave_out) == (37, ("z",)) and case.direction == direction]
        for direction in ("forward", "backward", "both")]  # fmt: skip
SOME += [[case] for case in SCAN_CASES if (case.length, case.channels, case.direction) == (401, 5, "both")]
SOME += [[case] for case in SCAN_CASES if (case.length, case.channels) == (1, 7)][-1:]


@pytest.mark.parametrize("cases", [*SOME, CONV_CASES[:1], CONV_CASES[-1:]], ids=lambda cases: cases[0].name)
def test_operators_agree_with_the_reference(cases):
    tensors = [{name: tensor for name, tensor in case.inputs().items() if tensor is not None} for case in cases]
    program = torch.export.export(OneOperator(cases[0]), (), tensors[0], strict=False)
    session = stock_session(to_onnx(program, SCAN, names=(list(tensors[0]), ["y"])))
    for case, inputs in zip(cases, tensors, strict=True):
        (y,) = session.run(None, {name: tensor.contiguous().numpy() for name, tensor in inputs.items()})
        assert error(case, torch.from_numpy(y)) <= case.tolerance


class OneOperatorWithState(OneOperator):
    def forward(self, **inputs):
        return self.operator(**inputs, **self.options, return_state=True)


@pytest.mark.parametrize(
    "case",
    [
        StateCase(ScanCase(2, 37, 19, 16, "forward", "first_input", leave_out=("z",)), (37,), "given"),
        StateCase(ScanCase(2, 37, 19, 16, "both", "first_input", True, leave_out=("z",)), (37,), "given"),
        StateCase(ScanCase(9, 1, 19, 16, leave_out=("z",)), (1,), "given"),
        StateCase(ConvCase(2, 37, 19, 4), (37,), "given"),
        StateCase(ConvCase(9, 1, 19, 4), (1,), "given"),
    ],
    ids=lambda case: case.name,
)
def test_operators_with_a_state_agree_with_the_reference(case):
    inputs = {name: tensor for name, tensor in case.inputs().items() if tensor is not None}
    program = torch.export.export(OneOperatorWithState(case), (), inputs, strict=False)
    onnx_model = to_onnx(program, SCAN, names=(list(inputs), ["y", "last"]))
    check_standard(onnx_model)
    assert len([node for node in onnx_model.graph.node if node.op_type == "Scan"]) == ("scan" in case.operator)
    results = stock_session(onnx_model).run(None, {name: t.contiguous().numpy() for name, t in inputs.items()})
    assert errors(case, *map(torch.from_numpy, results)) <= case.tolerance


WIDE = {"embed_dim": 192, "num_classes": 5, "num_frames": 2, "depth": 2}
# The number of layers that each recipe leaves in float (the patch embedding, the head).
FLOAT_LAYERS = {"int8": 0, "int8-dynamic": 1, "int8-weight-only": 2}
# The largest size of the weights relative to fp32. In a model of two blocks the patch embedding is a quarter of them.
MOST = {"fp16": 0.55, "int8": 0.35, "int8-dynamic": 0.5, "int8-weight-only": 0.5}


@cache
def wide(precision):
    """A model as wide as Tiny, its program in a precision before lowering, and its ONNX model."""
    model = make_model(**WIDE)
    program = graph.export(model)
    if precision in QUANTISED:
        program = quantised(program, precision)
    return model, program, to_onnx(in_precision(program, precision), SCAN)


@pytest.mark.parametrize("precision", ["fp16", *QUANTISED])
def test_precisions(precision, as_bundle):
    """The numbers are PyTorch's with the rewritten program, and close to the model's; the file is mostly weights."""
    model, program, onnx_model = wide(precision)
    check_standard(onnx_model)
    video = torch.randn(1, 3, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    frames = graph.fold_frames(video, 1)
    rewritten = qdq.with_fixed_ranges(program) if precision in QUANTISED else program
    with torch.no_grad():
        exact, quantised_here, expected = (
            run(x).numpy() for run, x in ((model, video), (program.module(), frames), (rewritten.module(), frames))
        )
    got = OnnxRuntimeEngine(as_bundle(onnx_model.SerializeToString(), model.options)).run(video.numpy())
    assert got.dtype == np.float32 and not np.array_equal(got, exact)
    (stock,) = stock_session(onnx_model).run(None, {"frames": frames.numpy()})
    spread = np.ptp(exact)  # it is small with random weights, so trained models are relatively closer
    np.testing.assert_allclose(got, expected, atol=(5e-3 if precision == "fp16" else 1e-5) * spread, rtol=0)
    for numbers in (got, stock, quantised_here):
        np.testing.assert_allclose(numbers, exact, atol=0.1 * spread, rtol=0)
    weights = sum(tensor.ByteSize() for tensor in onnx_model.graph.initializer)
    assert onnx_model.ByteSize() < 1.3 * weights
    assert weights < MOST[precision] * sum(parameter.numel() * 4 for parameter in model.parameters())


@pytest.mark.parametrize("precision", QUANTISED)
def test_int8_weights_lie_as_they_are_multiplied(precision):
    """Nothing is between DequantizeLinear and its product: so consumers find both, and ONNX Runtime 1.31 accepts it."""
    nodes, initializers = wide(precision)[2].graph.node, wide(precision)[2].graph.initializer
    users = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node.op_type)
    dequantised = [node for node in nodes if node.op_type == "DequantizeLinear"]
    assert {user for node in dequantised for user in users[node.output[0]]} <= {"MatMul", "Gemm", "Conv"}
    kinds = {tensor.name: tensor.data_type for tensor in initializers}
    weights = [node for node in dequantised if kinds.get(node.input[0]) == onnx.TensorProto.INT8]
    assert len(weights) == 7 * WIDE["depth"] + 2 - FLOAT_LAYERS[precision]
    quantised_inputs = sum(node.op_type == "QuantizeLinear" for node in nodes)
    assert (quantised_inputs > 0) == (precision != "int8-weight-only")


def test_tokens_of_zeros_stay_zeros():
    """The size of one token does not change the precision of the others."""
    linear = torch.nn.Linear(8, 8, bias=False)
    x = torch.randn(1, 3, 8) * torch.tensor([1e4, 0.0, 1e-4])[:, None]
    program = quantised(torch.export.export(torch.nn.Sequential(linear), (x,), strict=False), "int8-dynamic")
    onnx_model = to_onnx(qdq.with_fixed_ranges(program), SCAN, names=(["x"], ["y"]))
    (y,) = stock_session(onnx_model).run(None, {"x": x.numpy()})
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
    with pytest.raises(MissingDependencyError, match=rf"needs {missing}; run: .*pip install .*\[compile,onnx"):
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
    process = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(process.stdout)["label"].startswith("class-")
    assert process.stderr == ""
