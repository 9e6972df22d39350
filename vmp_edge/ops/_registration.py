"""Register the ``vmp::`` operators with PyTorch: schemas, shape rules, kernels and gradients.

Importing this module registers them. It loads no library: the first call that needs the native or the CUDA library
loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _dispatch
from ._arguments import Arguments, bi_scan_arguments, conv_arguments, require_sizes, scan_arguments
from ._memory import empty_like
from .reference import wide_dtype

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
    # The same with the state before the first step as an input, and the last one as an output.
    _inputs, _name = f"{_inputs}, Tensor? state=None", f"{_name}_with_state"
    for _schema in (
        f"{_name}({_inputs}, *, {_options}) -> (Tensor, Tensor)",
        f"{_name}.out({_inputs}, *, {_options}, Tensor(a!) out, Tensor(b!) last) -> (Tensor(a!), Tensor(b!))",
        f"{_name}_backward(Tensor grad_y, Tensor? grad_last, {_inputs}, *, {_options}) -> Tensor[]",
    ):
        _library.define(_schema)  # type: ignore[no-untyped-call]


def _register(name: str, parse: Callable[..., Arguments]) -> None:
    """Give an operator its kernels, shape rules and gradient.

    Args:
        name: The operator's name in ``vmp::``.
        parse: The function that checks the operator's arguments and brings them into one form.
    """

    def forward(*inputs: Any, **options: Any) -> Tensor:
        return _dispatch.forward(parse(*inputs, **options))[0]

    def forward_out(*inputs: Any, out: Tensor, **options: Any) -> Tensor:
        return _write(out, forward(*inputs, **options))

    def backward(grad_y: Tensor, *inputs: Any, **options: Any) -> list[Tensor]:
        return _differentiate(grad_y, None, parse(*inputs, **options))

    def fake(*inputs: Any, **options: Any) -> Tensor:
        return empty_like(parse(*inputs, **options).x)

    def fake_out(*inputs: Any, out: Tensor, **options: Any) -> Tensor:
        parse(*inputs, **options)
        return out

    def fake_backward(grad_y: Tensor, *inputs: Any, **options: Any) -> list[Tensor]:
        return [empty_like(t) for t in parse(*inputs, **options).tensors()]

    _implement(name, (forward, fake), (forward_out, fake_out), (backward, fake_backward))


def _register_with_state(name: str, parse: Callable[..., Arguments]) -> None:
    """Give an operator that takes and returns a state the same as `_register`."""
    parse = partial(parse, keeps_state=True)

    def forward(*inputs: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        return _dispatch.forward(parse(*inputs, **options))

    def forward_out(*inputs: Any, out: Tensor, last: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        y, state = forward(*inputs, **options)
        assert state is not None  # as `keeps_state` says
        return _write(out, y), _write(last, state)

    def backward(grad_y: Tensor, grad_last: Tensor | None, *inputs: Any, **options: Any) -> list[Tensor]:
        return _differentiate(grad_y, grad_last, parse(*inputs, **options))

    def fake(*inputs: Any, **options: Any) -> tuple[Tensor, Tensor]:
        args = parse(*inputs, **options)
        return empty_like(args.x), args.x.new_empty(args.state_shape(), dtype=wide_dtype(args.x))

    def fake_out(*inputs: Any, out: Tensor, last: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        parse(*inputs, **options)
        return out, last

    def fake_backward(grad_y: Tensor, grad_last: Tensor | None, *inputs: Any, **options: Any) -> list[Tensor]:
        return [empty_like(t) for t in parse(*inputs, **options).tensors()]

    _implement(name, (forward, fake), (forward_out, fake_out), (backward, fake_backward))


def _write(out: Tensor, result: Tensor) -> Tensor:
    return out.resize_(result.shape).copy_(result)


def _differentiate(grad_y: Tensor, grad_last: Tensor | None, args: Arguments) -> list[Tensor]:
    require_sizes("grad_y", grad_y, tuple(args.x.shape), "the shape of x")
    require_sizes("grad_last", grad_last, args.state_shape(), "the shape of the state")
    return _dispatch.backward(grad_y, grad_last, args)


_Kernel = tuple[Callable[..., Any], Callable[..., Any]]


def _implement(name: str, operator: _Kernel, out_variant: _Kernel, gradients: _Kernel) -> None:
    """Register an operator's functions: of each variant what computes it, and what gives its shapes."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.options = keyword_only_inputs

    def gradient(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        results = iter(getattr(torch.ops.vmp, f"{name}_backward")(*grads, *inputs, **ctx.options))
        return tuple(None if tensor is None else next(results) for tensor in inputs)

    keys = (name, f"{name}.out", f"{name}_backward")
    for key, (kernel, fake) in zip(keys, (operator, out_variant, gradients), strict=True):
        _library.impl(key, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"vmp::{key}", fake, lib=_library)
    torch.library.register_autograd(f"vmp::{name}", gradient, setup_context=setup_context, lib=_library)


for _name, _parse in (
    ("selective_scan", scan_arguments),
    ("bi_selective_scan", bi_scan_arguments),
    ("causal_conv_silu", conv_arguments),
):
    _register(_name, _parse)
    _register_with_state(f"{_name}_with_state", _parse)
