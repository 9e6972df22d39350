"""The operators as PyTorch sees them: schemas, shape rules, dtypes, export, and refused arguments."""

import pytest
import torch

from vmp_edge import ops
from vmp_edge.ops import reference
from vmp_edge.ops.cases import ConvCase, ScanCase

CASES = [
    ScanCase(2, 9, 6, 4, "backward", "first_input", True),
    ScanCase(1, 5, 7, 3, "forward", leave_out=("D", "z", "dt_bias")),
    ScanCase(2, 9, 6, 4, "both", "first_input", True),
    ScanCase(2, 9, 6, 4, "both", layout="slices", leave_out=("z",)),
    ConvCase(2, 9, 6, 4, reverse=True),
    ConvCase(2, 9, 6, 3, bias=False, layout="transposed"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def _call(case, module=ops, dtype=torch.float32, **changes):
    inputs = {n: None if t is None else t.to(dtype) for n, t in case.inputs().items()}
    return getattr(module, case.operator)(**{**inputs, **case.options(), **changes})


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(case, dtype):
    inputs = [None if t is None else t.to(dtype).requires_grad_() for t in case.inputs().values()]
    torch.library.opcheck(getattr(torch.ops.vmp, case.operator).default, inputs, case.options())


@each_case
def test_opcheck_of_the_gradient(case):
    inputs = list(case.inputs().values())
    grad_y = torch.randn(case.batch, case.length, case.channels)
    torch.library.opcheck(
        getattr(torch.ops.vmp, f"{case.operator}_backward").default, [grad_y, *inputs], case.options()
    )


@each_case
def test_out_variant_writes_what_the_operator_returns(case):
    out = torch.empty(0)
    inputs = list(case.inputs().values())
    overload = getattr(torch.ops.vmp, case.operator).out
    assert overload(*inputs, **case.options(), out=out) is out
    assert torch.equal(out, _call(case))


@each_case
def test_exports_as_a_single_node(case):
    inputs = case.inputs()
    names = [name for name, tensor in inputs.items() if tensor is not None]

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            by_name = dict(zip(names, tensors, strict=True))
            return getattr(ops, case.operator)(**{n: by_name.get(n) for n in inputs}, **case.options())

    tensors = tuple(inputs[name] for name in names)
    program = torch.export.export(Module(), tensors)
    nodes = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert nodes == [getattr(torch.ops.vmp, case.operator).default]
    assert torch.equal(program.module()(*tensors), _call(case))
    nodes = [node.target for node in program.run_decompositions().graph.nodes if node.op == "call_function"]
    assert nodes == [getattr(torch.ops.vmp, case.operator).default]


def test_executorch_emits_the_out_variants():
    exir = pytest.importorskip("executorch.exir")

    class Module(torch.nn.Module):
        def forward(self, x, dt, A, B, C, weight):
            x = ops.causal_conv_silu(x, weight, reverse=True)
            y = ops.bi_selective_scan(x, dt, A, A, B, C, initial_state="first_input", mask_backward=True)
            return y + ops.selective_scan(x, dt, A, B, C, reverse=True, initial_state="first_input")

    inputs = ScanCase(1, 5, 6, 4, leave_out=("D", "z", "dt_bias")).inputs()
    tensors = (*(t for t in inputs.values() if t is not None), torch.rand(6, 4))
    program = exir.to_edge(torch.export.export(Module(), tensors)).to_executorch()
    nodes = [node for node in program.exported_program().graph.nodes if "vmp" in str(node.target)]
    assert [str(node.target) for node in nodes] == [
        "vmp.causal_conv_silu.out",
        "vmp.bi_selective_scan.out",
        "vmp.selective_scan.out",
    ]
    assert nodes[1].kwargs["initial_state"] == "first_input" and nodes[1].kwargs["mask_backward"] is True


@each_case
def test_float64_takes_the_reference_and_passes_gradcheck(case):
    assert torch.equal(_call(case, dtype=torch.float64), _call(case, reference, torch.float64))
    inputs = {n: None if t is None else t.double().requires_grad_() for n, t in case.inputs().items()}
    names = [name for name, tensor in inputs.items() if tensor is not None]

    def function(*tensors):
        by_name = dict(zip(names, tensors, strict=True))
        return getattr(ops, case.operator)(**{n: by_name.get(n) for n in inputs}, **case.options())

    assert torch.autograd.gradcheck(function, [inputs[name] for name in names])


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(case, dtype):
    y = _call(case, dtype=dtype)
    rounded = {n: None if t is None else t.to(dtype).float() for n, t in case.inputs().items()}
    assert y.dtype == dtype
    assert torch.equal(y, getattr(ops, case.operator)(**rounded, **case.options()).to(dtype))


def test_gradients_come_in_the_dtypes_of_their_inputs():
    case = ScanCase(2, 9, 6, 4, "both")
    inputs = {n: t.to(torch.bfloat16 if t.dim() == 3 else torch.float32) for n, t in case.inputs().items()}
    y = ops.bi_selective_scan(**{n: t.requires_grad_() for n, t in inputs.items()})
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(t.grad.dtype == t.dtype and t.grad.shape == t.shape for t in inputs.values())


def test_only_some_inputs_need_gradients():
    inputs = ScanCase(1, 9, 6, 4).inputs()
    inputs["A"].requires_grad_()
    ops.selective_scan(**inputs).sum().backward()
    assert inputs["A"].grad is not None and inputs["x"].grad is None


def test_broadcast_inputs_are_read_in_place():
    inputs = ScanCase(1, 9, 6, 4).inputs()
    wide = {n: t.expand(3, -1, -1) if t.dim() == 3 else t for n, t in inputs.items()}
    assert torch.equal(ops.selective_scan(**wide)[2], ops.selective_scan(**inputs)[0])


def test_fake_kernels_on_the_meta_device():
    inputs = {n: t.to("meta") for n, t in ScanCase(2, 9, 6, 4, layout="slices").inputs().items()}
    y = ops.selective_scan(**inputs)
    assert y.device.type == "meta" and y.shape == (2, 9, 6) and y.is_contiguous()


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (CASES[0], {"x": torch.zeros(9, 6)}, r"x has shape \(9, 6\); it must be \(batch, length, channels\)"),
        (CASES[0], {"x": torch.zeros(2, 0, 6)}, "none of them zero"),
        (CASES[0], {"dt": torch.zeros(2, 8, 6)}, r"dt has shape \(2, 8, 6\).*= \(2, 9, 6\)"),
        (CASES[0], {"A": torch.zeros(5, 4)}, r"A has shape \(5, 4\).*= \(6, 4\)"),
        (CASES[2], {"A_b": torch.zeros(6, 3)}, r"A_b has shape \(6, 3\).*= \(6, 4\)"),
        (CASES[0], {"B": torch.zeros(2, 9, 6)}, r"B has shape \(2, 9, 6\).*= \(2, 9, 4\)"),
        (CASES[0], {"C": torch.zeros(1, 9, 4)}, r"C has shape \(1, 9, 4\).*= \(2, 9, 4\)"),
        (CASES[0], {"D": torch.zeros(4)}, r"D has shape \(4,\).*= \(6,\)"),
        (CASES[0], {"z": torch.zeros(2, 9, 12)}, r"z has shape \(2, 9, 12\)"),
        (CASES[0], {"dt_bias": torch.zeros(6, 1)}, r"dt_bias has shape \(6, 1\)"),
        (CASES[0], {"initial_state": "last_input"}, "initial_state is 'last_input'; it must be one of zero, first_in"),
        (CASES[0], {"A": torch.zeros(6, 4, dtype=torch.int64)}, "must be floating point; one is torch.int64"),
        (CASES[0], {"A": torch.zeros(6, 4, device="meta")}, "on one device; there are cpu and meta"),
        (CASES[4], {"weight": torch.zeros(5, 4)}, r"weight has shape \(5, 4\).*= \(6, 4\)"),
        (CASES[4], {"weight": torch.zeros(6, 17)}, "17 taps; at most 16"),
        (CASES[4], {"bias": torch.zeros(4)}, r"bias has shape \(4,\)"),
    ],
)
def test_refuses_what_does_not_fit(case, changes, message):
    with pytest.raises(ValueError, match=message):
        _call(case, **changes)


def test_the_gradient_operator_refuses_a_gradient_of_another_shape():
    with pytest.raises(ValueError, match="grad_y has shape"):
        torch.ops.vmp.selective_scan_backward(torch.zeros(1, 2, 3), *ScanCase(2, 9, 6, 4).inputs().values())
