"""The operators on CUDA tensors: the one case list, half precision, graphs, streams and gradients."""

import pytest
import torch

from vmp_edge import ops
from vmp_edge.ops import _arguments, _cuda, _cuda_kernels, _dispatch
from vmp_edge.ops.cases import CONV_CASES, SCAN_CASES, ConvCase, ScanCase, error
from vmp_edge.ops.stateful_cases import STATE_CASES, errors

if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU and a PyTorch with CUDA", allow_module_level=True)
needs_kernels = pytest.mark.skipif(
    _cuda.library_path() is None or not _cuda_kernels.supports(torch.device("cuda", 0)),
    reason="the CUDA kernels were not built, or not for this GPU",
)


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the convolution's reference would use TF32


def _inputs(case, dtype=torch.float32, copies=1):
    """Return the case's inputs on the GPU in their memory layout, the batch repeated; parameters stay float32."""
    moved = {}
    for name, tensor in case.inputs().items():
        if tensor is not None:
            storage = torch.empty_strided(tensor.shape, tensor.stride(), device="cuda").copy_(tensor)
            tensor = storage if tensor.dim() < 3 else storage.to(dtype)
            tensor = tensor.repeat(copies, 1, 1) if tensor.dim() == 3 and copies > 1 else tensor
        moved[name] = tensor
    return moved


def _run(case, inputs):
    return getattr(ops, case.operator)(**inputs, **case.options())


@needs_kernels
def test_cuda_tensors_take_the_kernels():
    a = _arguments.scan_arguments(**_inputs(ScanCase(1, 5, 4, 4)))
    assert _dispatch.kernels_for(a) == "cuda"
    a = _arguments.conv_arguments(**_inputs(ConvCase(1, 5, 4, 4)))
    assert _dispatch.kernels_for(a) == "cuda"


@pytest.mark.parametrize("case", SCAN_CASES + CONV_CASES, ids=lambda case: case.name)
def test_matches_the_float64_reference(case):
    y = _run(case, _inputs(case))
    assert y.is_contiguous() and y.is_cuda
    assert error(case, y.cpu()) <= case.tolerance


@needs_kernels
@pytest.mark.parametrize("case", SCAN_CASES + CONV_CASES, ids=lambda case: case.name)
def test_matches_where_the_batch_fills_the_gpu(case):
    y = _run(case, _inputs(case, copies=200))
    assert error(case, y[-case.batch :].cpu()) <= case.tolerance
    assert torch.equal(y[: case.batch], y[-case.batch :])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [c for c in SCAN_CASES if c.dt == "usual"] + CONV_CASES, ids=lambda case: case.name)
def test_half_precision_is_computed_in_float32(case, dtype):
    inputs = _inputs(case, dtype)
    y = _run(case, inputs)
    wide = _run(case, {n: None if t is None else t.float() for n, t in inputs.items()})
    assert y.dtype == dtype
    assert torch.equal(y, wide.to(dtype))


GRAPH_CASES = [
    ScanCase(2, 401, 100, 16, "both", "first_input", True),
    ScanCase(1, 401, 30, 33, "backward"),
    ConvCase(2, 401, 100, 4, reverse=True),
]


@needs_kernels
@pytest.mark.parametrize("case", GRAPH_CASES, ids=lambda case: case.name)
def test_a_captured_graph_computes_what_the_call_does(case):
    inputs = _inputs(case)
    expected = _run(case, inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = _run(case, inputs)
    y.fill_(torch.nan)
    inputs["x"].neg_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, _run(case, inputs)) and not torch.equal(y, expected)


@needs_kernels
def test_runs_on_the_current_stream():
    case = GRAPH_CASES[0]
    inputs = _inputs(case)
    expected = _run(case, inputs)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x = inputs["x"].clone()
        torch.cuda._sleep(100_000_000)
        inputs["x"].zero_()
        inputs["x"].copy_(x)
        y = _run(case, inputs)
    stream.synchronize()
    assert torch.equal(y, expected)


@pytest.mark.parametrize(
    "case", [ScanCase(2, 9, 6, 4, "both", "first_input", True), ConvCase(2, 9, 6, 4)], ids=lambda case: case.name
)
def test_gradients_are_those_of_the_cpu(case):
    gradients = []
    for device in ("cpu", "cuda"):
        inputs = {n: t.to(device).requires_grad_() for n, t in case.inputs().items()}
        gradients.append(torch.autograd.grad(_run(case, inputs).square().sum(), list(inputs.values())))
    for cpu, cuda in zip(*gradients, strict=True):
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", STATE_CASES, ids=lambda case: case.name)
def test_states_match_the_float64_reference(case):
    def operator(**inputs):
        inputs = {n: t.cuda() if isinstance(t, torch.Tensor) else t for n, t in inputs.items()}
        return tuple(t.cpu() for t in getattr(ops, case.operator)(**inputs))

    assert errors(case, *case.run(operator)) <= case.tolerance
