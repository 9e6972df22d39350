"""Register the ``vmp::`` operators with PyTorch: schemas, shape rules, kernels and gradients.

Importing this module registers them. It loads no library: the first call that needs the native or the CUDA library
loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _dispatch
from ._arguments import Arguments, bi_scan_arguments, conv_arguments, require_sizes, scan_arguments
from ._memory import empty_like

_SCAN_INPUTS = "Tensor B, Tensor C, Tensor? D=None, Tensor? z=None, Tensor? dt_bias=None"
_SCAN_OPTIONS = 'bool reverse=False, str initial_state="zero", bool mask_diagonal=False'
_BI_OPTIONS = 'str initial_state="zero", bool mask_backward=False'
# Of each operator: inputs, options.
_SCHEMAS = {
    "selective_scan": (f"Tensor x, Tensor dt, Tensor A, {_SCAN_INPUTS}", _SCAN_OPTIONS),
    "bi_selective_scan": (f"Tensor x, Tensor dt, Tensor A, Tensor A_b, {_SCAN_INPUTS}", _BI_OPTIONS),
    "causal_conv_silu": ("Tensor x, Tensor weight, Tensor? bias=None", "bool reverse=False"),
}

_library = torch.library.Library("vmp", "DEF")  # type: ignore[no-untyped-call]
for _name, (_inputs, _options) in _SCHEMAS.items():
    for _schema in (
        f"{_name}({_inputs}, *, {_options}) -> Tensor",
        # ExecuTorch replaces the operator by this variant, because it plans memory ahead.
        f"{_name}.out({_inputs}, *, {_options}, Tensor(a!) out) -> Tensor(a!)",
        # The gradients of the inputs that are not None, in their order.
        f"{_name}_backward(Tensor grad_y, {_inputs}, *, {_options}) -> Tensor[]",
    ):
        _library.define(_schema)  # type: ignore[no-untyped-call]


def _register(name: str, parse: Callable[..., Arguments]) -> None:
    """Give an operator its kernels, shape rules and gradient.

    Args:
        name: The operator's name in ``vmp::``.
        parse: The function that checks the operator's arguments and brings them into one form.
    """

    def forward(*inputs: Any, **options: Any) -> Tensor:
        return _dispatch.forward(parse(*inputs, **options))

    def forward_out(*inputs: Any, out: Tensor, **options: Any) -> Tensor:
        y = _dispatch.forward(parse(*inputs, **options))
        return out.resize_(y.shape).copy_(y)

    def backward(grad_y: Tensor, *inputs: Any, **options: Any) -> list[Tensor]:
        args = parse(*inputs, **options)
        require_sizes("grad_y", grad_y, tuple(args.x.shape), "the shape of x")
        return _dispatch.backward(grad_y, args)

    def fake(*inputs: Any, **options: Any) -> Tensor:
        return empty_like(parse(*inputs, **options).x)

    def fake_out(*inputs: Any, out: Tensor, **options: Any) -> Tensor:
        parse(*inputs, **options)
        return out

    def fake_backward(grad_y: Tensor, *inputs: Any, **options: Any) -> list[Tensor]:
        return [empty_like(t) for t in parse(*inputs, **options).tensors()]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.options = keyword_only_inputs

    def gradient(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        grads = iter(getattr(torch.ops.vmp, f"{name}_backward")(grad_y, *inputs, **ctx.options))
        return tuple(None if tensor is None else next(grads) for tensor in inputs)

    for key, kernel, fake_kernel in (
        (name, forward, fake),
        (f"{name}.out", forward_out, fake_out),
        (f"{name}_backward", backward, fake_backward),
    ):
        _library.impl(key, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"vmp::{key}", fake_kernel, lib=_library)
    torch.library.register_autograd(f"vmp::{name}", gradient, setup_context=setup_context, lib=_library)


_register("selective_scan", scan_arguments)
_register("bi_selective_scan", bi_scan_arguments)
_register("causal_conv_silu", conv_arguments)
