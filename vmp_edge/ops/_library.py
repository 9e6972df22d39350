"""The ``vmp::`` operators of PyTorch: schemas, shape rules, kernels and gradients.

Which kernel runs is decided in `_kernels_for` alone. Importing this module registers the operators; the native and the
CUDA library are loaded at the first call that needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from ctypes import CDLL
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from vmp_edge.ops import _cuda, _native, _openmp, reference

_SCAN_INPUTS = "Tensor B, Tensor C, Tensor? D=None, Tensor? z=None, Tensor? dt_bias=None"
_SCAN_OPTIONS = 'bool reverse=False, str initial_state="zero", bool mask_diagonal=False'
_BI_OPTIONS = 'str initial_state="zero", bool mask_backward=False'
# name: (inputs, options)
_SCHEMAS = {
    "selective_scan": (f"Tensor x, Tensor dt, Tensor A, {_SCAN_INPUTS}", _SCAN_OPTIONS),
    "bi_selective_scan": (f"Tensor x, Tensor dt, Tensor A, Tensor A_b, {_SCAN_INPUTS}", _BI_OPTIONS),
    "causal_conv_silu": ("Tensor x, Tensor weight, Tensor? bias=None", "bool reverse=False"),
}

_library = torch.library.Library("vmp", "DEF")  # type: ignore[no-untyped-call]
for _name, (_inputs, _options) in _SCHEMAS.items():
    for _schema in (
        f"{_name}({_inputs}, *, {_options}) -> Tensor",
        # what ExecuTorch turns the operator into: memory is planned ahead
        f"{_name}.out({_inputs}, *, {_options}, Tensor(a!) out) -> Tensor(a!)",
        # gradients of the inputs that are given, in their order
        f"{_name}_backward(Tensor grad_y, {_inputs}, *, {_options}) -> Tensor[]",
    ):
        _library.define(_schema)  # type: ignore[no-untyped-call]


class ScanArguments(NamedTuple):
    """Both scan operators' arguments in one form; ``A_b`` is None for one direction."""

    x: Tensor
    dt: Tensor
    A: Tensor
    A_b: Tensor | None
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    dt_bias: Tensor | None
    reverse: bool
    initial_state: str
    mask: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are given, in the operator's order."""
        return tuple(t for t in self[:9] if t is not None)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> ScanArguments:
        """The same with every tensor replaced."""
        values: list[Any] = [function(v) if isinstance(v, Tensor) else v for v in self]
        return ScanArguments(*values)


class ConvArguments(NamedTuple):
    """The convolution's arguments."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    reverse: bool

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are given, in the operator's order."""
        return (self.x, self.weight) if self.bias is None else (self.x, self.weight, self.bias)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> ConvArguments:
        """The same with every tensor replaced."""
        values: list[Any] = [function(v) if isinstance(v, Tensor) else v for v in self]
        return ConvArguments(*values)


Arguments = ScanArguments | ConvArguments
_Arguments = TypeVar("_Arguments", ScanArguments, ConvArguments)


def _scan_arguments(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    reverse: bool = False,
    initial_state: str = "zero",
    mask_diagonal: bool = False,
) -> ScanArguments:
    return _checked_scan(ScanArguments(x, dt, A, None, B, C, D, z, dt_bias, reverse, initial_state, mask_diagonal))


def _bi_arguments(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    A_b: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    *,
    initial_state: str = "zero",
    mask_backward: bool = False,
) -> ScanArguments:
    return _checked_scan(ScanArguments(x, dt, A, A_b, B, C, D, z, dt_bias, False, initial_state, mask_backward))


def _conv_arguments(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, reverse: bool = False) -> ConvArguments:
    a = ConvArguments(x, weight, bias, reverse)
    _require_shape("x", x, 3, "(batch, length, channels)")
    _require_shape("weight", weight, 2, "(channels, taps)")
    _require_sizes("weight", weight, (x.shape[2], weight.shape[1]), "(channels, taps)")
    _require_sizes("bias", bias, (x.shape[2],), "(channels)")
    if weight.shape[1] > _native.MAX_TAPS:
        raise ValueError(f"weight has {weight.shape[1]} taps; at most {_native.MAX_TAPS} are supported")
    _require_kind(a)
    return a


def _checked_scan(a: ScanArguments) -> ScanArguments:
    _require_shape("x", a.x, 3, "(batch, length, channels)")
    _require_shape("A", a.A, 2, "(channels, states)")
    batch, length, channels = a.x.shape
    states = a.A.shape[1]
    activation, rate, projection = (batch, length, channels), (channels, states), (batch, length, states)
    _require_sizes("dt", a.dt, activation, "(batch, length, channels)")
    _require_sizes("z", a.z, activation, "(batch, length, channels)")
    _require_sizes("A", a.A, rate, "(channels, states)")
    _require_sizes("A_b", a.A_b, rate, "(channels, states)")
    _require_sizes("B", a.B, projection, "(batch, length, states)")
    _require_sizes("C", a.C, projection, "(batch, length, states)")
    _require_sizes("D", a.D, (channels,), "(channels)")
    _require_sizes("dt_bias", a.dt_bias, (channels,), "(channels)")
    if a.initial_state not in reference.INITIAL_STATES:
        names = ", ".join(reference.INITIAL_STATES)
        raise ValueError(f"initial_state is {a.initial_state!r}; it must be one of {names}")
    _require_kind(a)
    return a


def _require_shape(name: str, tensor: Tensor, rank: int, meaning: str) -> None:
    if tensor.dim() != rank or 0 in tensor.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning}, none of them zero")


def _require_sizes(name: str, tensor: Tensor | None, sizes: tuple[int, ...], meaning: str) -> None:
    if tensor is not None and tensor.shape != sizes:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {meaning} = {tuple(sizes)}")


def _require_kind(a: Arguments) -> None:
    device = a.x.device
    for tensor in a.tensors():
        if tensor.device != device:
            raise ValueError(f"all tensors must be on one device; there are {device} and {tensor.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"all tensors must be floating point; one is {tensor.dtype}")


def _kernels_for(a: Arguments) -> str:
    """``"native"``, ``"cuda"`` or ``"reference"``; the first two compute in float32 and take half precision."""
    if a.x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return "reference"
    if a.x.device.type == "cpu":
        return "native"
    if a.x.device.type != "cuda" or (isinstance(a, ScanArguments) and a.A.shape[1] > _cuda.MAX_STATES):
        return "reference"
    return "cuda" if _cuda_supports(a.x.device) else "reference"


# ---------------------------------------------------------------------------------------------- native kernels


def _ready(tensor: Tensor) -> Tensor:
    """As the native kernels read it: float32; of activations only the columns have to lie side by side."""
    tensor = tensor.to(torch.float32)
    if tensor.dim() == 3 and (tensor.stride(2) == 1 or tensor.shape[2] == 1):
        return tensor
    return tensor.contiguous()


def _result_like(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=torch.float32, device=tensor.device)


def _view(tensor: Tensor | None) -> _native.View:
    if tensor is None:
        return _native.View()
    return _native.View(tensor.data_ptr(), tensor.stride(0), tensor.stride(1))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _threads() -> _native.Threads:
    return _native.threads(torch.get_num_threads(), _openmp.gomp_parallel())


def _native_scan_struct(a: ScanArguments) -> _native.Scan:
    return _native.Scan(
        *a.x.shape, a.A.shape[1],
        _view(a.x), _view(a.dt), _view(a.B), _view(a.C), _view(a.z),
        _address(a.A), _address(a.A_b), _address(a.D), _address(a.dt_bias),
        a.reverse, a.initial_state == "first_input", a.mask,
    )  # fmt: skip


def _native_scan(a: ScanArguments) -> Tensor:
    wide = a.mapped(_ready)  # kept until the call returns: the struct holds addresses only
    y = _result_like(a.x)
    library = _native.load()
    function = library.vmp_selective_scan if a.A_b is None else library.vmp_bi_selective_scan
    _native.check(function(_native_scan_struct(wide), _view(y), _threads()))
    return y.to(a.x.dtype)


def _native_scan_backward(grad_y: Tensor, a: ScanArguments) -> list[Tensor]:
    wide, grad_y = a.mapped(_ready), _ready(grad_y)
    grads = wide.mapped(_result_like)
    struct = _native.ScanGrads(
        _view(grads.x), _view(grads.dt), _view(grads.z),
        _address(grads.B), _address(grads.C), _address(grads.A), _address(grads.A_b),
        _address(grads.D), _address(grads.dt_bias),
    )  # fmt: skip
    library = _native.load()
    function = library.vmp_selective_scan_backward if a.A_b is None else library.vmp_bi_selective_scan_backward
    _native.check(function(_native_scan_struct(wide), _view(grad_y), struct, _threads()))
    return _like(grads.tensors(), a)


def _native_conv_struct(a: ConvArguments) -> _native.Conv:
    return _native.Conv(
        *a.x.shape, a.weight.shape[1], _view(a.x), _address(a.weight), _address(a.bias), a.reverse
    )  # fmt: skip


def _native_conv(a: ConvArguments) -> Tensor:
    wide = a.mapped(_ready)
    y = _result_like(a.x)
    function = _native.load().vmp_causal_conv_silu
    _native.check(function(_native_conv_struct(wide), _view(y), _threads()))
    return y.to(a.x.dtype)


def _native_conv_backward(grad_y: Tensor, a: ConvArguments) -> list[Tensor]:
    wide, grad_y = a.mapped(_ready), _ready(grad_y)
    grads = wide.mapped(_result_like)
    struct = _native.ConvGrads(_view(grads.x), _address(grads.weight), _address(grads.bias))
    function = _native.load().vmp_causal_conv_silu_backward
    _native.check(function(_native_conv_struct(wide), _view(grad_y), struct, _threads()))
    return _like(grads.tensors(), a)


def _like(grads: Sequence[Tensor], a: Arguments) -> list[Tensor]:
    return [grad.to(given.dtype) for grad, given in zip(grads, a.tensors(), strict=True)]


# ------------------------------------------------------------------------------------------------ CUDA kernels


@functools.cache
def _cuda_supports(device: torch.device) -> bool:
    library = _cuda.load()
    if library is None:
        return False
    with torch.cuda.device(device):
        return bool(library.vmp_cuda_supported() == 0)


def _cuda_ready(a: _Arguments) -> _Arguments:
    """Activations of one dtype, x's if they agree on it, with columns side by side; the rest float32, contiguous."""
    activations = {t.dtype for t in a.tensors() if t.dim() == 3}
    dtype = a.x.dtype if len(activations) == 1 else torch.float32

    def ready(tensor: Tensor) -> Tensor:
        if tensor.dim() < 3:
            return tensor.to(torch.float32).contiguous()
        tensor = tensor.to(dtype)
        return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()

    return a.mapped(ready)


def _cuda_dtype(a: Arguments) -> int:
    return _cuda.DTYPES[str(a.x.dtype).removeprefix("torch.")]


def _cuda_scan_struct(a: ScanArguments) -> _cuda.Scan:
    return _cuda.Scan(
        *a.x.shape, a.A.shape[1],
        _view(a.x), _view(a.dt), _view(a.B), _view(a.C), _view(a.z),
        _address(a.A), _address(a.A_b), _address(a.D), _address(a.dt_bias),
        _cuda_dtype(a), a.reverse, a.initial_state == "first_input", a.mask,
    )  # fmt: skip


def _cuda_scan_by(library: CDLL, a: ScanArguments, stream: int) -> Tensor:
    """The scan by a library with the interface of vmp_cuda.h, queued on a stream of the tensors' device."""
    ready = _cuda_ready(a)  # kept until the call returns, afterwards by PyTorch's allocator for the stream
    struct = _cuda_scan_struct(ready)
    y = _empty_like(ready.x)
    workspace = torch.empty(_cuda.workspace_bytes(library, struct), dtype=torch.uint8, device=y.device)
    code = library.vmp_cuda_selective_scan(struct, _view(y), workspace.data_ptr(), workspace.numel(), stream)
    _cuda.check(library, code)
    return y.to(a.x.dtype)


def _cuda_conv_struct(a: ConvArguments) -> _cuda.Conv:
    return _cuda.Conv(
        *a.x.shape, a.weight.shape[1], _view(a.x), _address(a.weight), _address(a.bias), _cuda_dtype(a), a.reverse
    )  # fmt: skip


def _cuda_conv_by(library: CDLL, a: ConvArguments, stream: int) -> Tensor:
    """The convolution, as `_cuda_scan_by`."""
    ready = _cuda_ready(a)
    y = _empty_like(ready.x)
    _cuda.check(library, library.vmp_cuda_causal_conv_silu(_cuda_conv_struct(ready), _view(y), stream))
    return y


def _cuda_forward(a: Arguments) -> Tensor:
    library = _cuda.load()
    assert library is not None  # `_kernels_for` has looked
    with torch.cuda.device(a.x.device):
        stream = torch.cuda.current_stream().cuda_stream
        return _cuda_conv_by(library, a, stream) if isinstance(a, ConvArguments) else _cuda_scan_by(library, a, stream)


# ------------------------------------------------------------------------------------------- reference kernels


def _reference(a: Arguments) -> Tensor:
    if isinstance(a, ConvArguments):
        return reference.causal_conv_silu(a.x, a.weight, a.bias, reverse=a.reverse)
    if a.A_b is None:
        return reference.selective_scan(
            a.x, a.dt, a.A, a.B, a.C, a.D, a.z, a.dt_bias,
            reverse=a.reverse, initial_state=a.initial_state, mask_diagonal=a.mask,
        )  # fmt: skip
    return reference.bi_selective_scan(
        a.x, a.dt, a.A, a.A_b, a.B, a.C, a.D, a.z, a.dt_bias, initial_state=a.initial_state, mask_backward=a.mask
    )


def _reference_backward(grad_y: Tensor, a: Arguments) -> list[Tensor]:
    with torch.enable_grad():
        again = a.mapped(lambda t: t.detach().requires_grad_())
        grads = torch.autograd.grad(_reference(again), again.tensors(), grad_y, materialize_grads=True)
    return [grad.contiguous() for grad in grads]


# ------------------------------------------------------------------------------------------------ registration


def _forward(a: Arguments) -> Tensor:
    kernels = _kernels_for(a)
    if kernels == "cuda":
        return _cuda_forward(a)
    if kernels == "reference":
        return _reference(a).contiguous()
    return _native_conv(a) if isinstance(a, ConvArguments) else _native_scan(a)


def _backward(grad_y: Tensor, a: Arguments) -> list[Tensor]:
    if _kernels_for(a) != "native":
        return _reference_backward(grad_y, a)  # on CUDA, too: it computes the scan again, step by step
    return _native_conv_backward(grad_y, a) if isinstance(a, ConvArguments) else _native_scan_backward(grad_y, a)


def _empty_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape)  # contiguous, whatever the input's strides


def _register(name: str, parse: Callable[..., Arguments]) -> None:
    def forward(*inputs: Any, **options: Any) -> Tensor:
        return _forward(parse(*inputs, **options))

    def forward_out(*inputs: Any, out: Tensor, **options: Any) -> Tensor:
        y = _forward(parse(*inputs, **options))
        return out.resize_(y.shape).copy_(y)

    def backward(grad_y: Tensor, *inputs: Any, **options: Any) -> list[Tensor]:
        a = parse(*inputs, **options)
        _require_sizes("grad_y", grad_y, tuple(a.x.shape), "the shape of x")
        return _backward(grad_y, a)

    def fake(*inputs: Any, **options: Any) -> Tensor:
        return _empty_like(parse(*inputs, **options).x)

    def fake_out(*inputs: Any, out: Tensor, **options: Any) -> Tensor:
        parse(*inputs, **options)
        return out

    def fake_backward(grad_y: Tensor, *inputs: Any, **options: Any) -> list[Tensor]:
        return [_empty_like(t) for t in parse(*inputs, **options).tensors()]

    def setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.options = keyword_only_inputs

    def gradient(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        grads = iter(getattr(torch.ops.vmp, f"{name}_backward")(grad_y, *inputs, **ctx.options))
        return tuple(None if given is None else next(grads) for given in inputs)

    for key, kernel, fake_kernel in (
        (name, forward, fake),
        (f"{name}.out", forward_out, fake_out),
        (f"{name}_backward", backward, fake_backward),
    ):
        _library.impl(key, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"vmp::{key}", fake_kernel, lib=_library)
    torch.library.register_autograd(f"vmp::{name}", gradient, setup_context=setup_context, lib=_library)


_register("selective_scan", _scan_arguments)
_register("bi_selective_scan", _bi_arguments)
_register("causal_conv_silu", _conv_arguments)
