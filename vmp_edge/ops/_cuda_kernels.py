"""Run the scan and the convolution by the CUDA library: tensors in, tensors out."""

from __future__ import annotations

import functools
from ctypes import CDLL
from typing import TypeVar

import torch
from torch import Tensor

from . import _cuda
from ._arguments import Arguments, ConvArguments, ScanArguments
from ._native_kernels import address, view

_Arguments = TypeVar("_Arguments", ScanArguments, ConvArguments)


@functools.cache
def supports(device: torch.device) -> bool:
    library = _cuda.load()
    if library is None:
        return False
    with torch.cuda.device(device):
        return bool(library.vmp_cuda_supported() == 0)


def _ready(a: _Arguments) -> _Arguments:
    """Activations of one dtype, x's if they agree on it, with columns side by side; the rest float32, contiguous."""
    activations = {t.dtype for t in a.tensors() if t.dim() == 3}
    dtype = a.x.dtype if len(activations) == 1 else torch.float32

    def ready(tensor: Tensor) -> Tensor:
        if tensor.dim() < 3:
            return tensor.to(torch.float32).contiguous()
        tensor = tensor.to(dtype)
        return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()

    return a.mapped(ready)


def _dtype(a: Arguments) -> int:
    return _cuda.DTYPES[str(a.x.dtype).removeprefix("torch.")]


def _scan_struct(a: ScanArguments) -> _cuda.Scan:
    return _cuda.Scan(
        *a.x.shape, a.A.shape[1],
        view(a.x), view(a.dt), view(a.B), view(a.C), view(a.z),
        address(a.A), address(a.A_b), address(a.D), address(a.dt_bias),
        _dtype(a), a.reverse, a.initial_state == "first_input", a.mask,
    )  # fmt: skip


def scan_by(library: CDLL, a: ScanArguments, stream: int) -> Tensor:
    """The scan by a library with the interface of vmp_cuda.h, queued on a stream of the tensors' device."""
    ready = _ready(a)  # kept until the call returns, afterwards by PyTorch's allocator for the stream
    struct = _scan_struct(ready)
    y = _empty_like(ready.x)
    workspace = torch.empty(_cuda.workspace_bytes(library, struct), dtype=torch.uint8, device=y.device)
    code = library.vmp_cuda_selective_scan(struct, view(y), workspace.data_ptr(), workspace.numel(), stream)
    _cuda.check(library, code)
    return y.to(a.x.dtype)


def _conv_struct(a: ConvArguments) -> _cuda.Conv:
    return _cuda.Conv(
        *a.x.shape, a.weight.shape[1], view(a.x), address(a.weight), address(a.bias), _dtype(a), a.reverse
    )  # fmt: skip


def conv_by(library: CDLL, a: ConvArguments, stream: int) -> Tensor:
    """The convolution, as `scan_by`."""
    ready = _ready(a)
    y = _empty_like(ready.x)
    _cuda.check(library, library.vmp_cuda_causal_conv_silu(_conv_struct(ready), view(y), stream))
    return y


def forward(a: Arguments) -> Tensor:
    library = _cuda.load()
    assert library is not None  # `_kernels_for` has looked
    with torch.cuda.device(a.x.device):
        stream = torch.cuda.current_stream().cuda_stream
        return conv_by(library, a, stream) if isinstance(a, ConvArguments) else scan_by(library, a, stream)


def _empty_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape)  # contiguous, whatever the input's strides
