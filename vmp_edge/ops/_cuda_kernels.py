"""Run the scan and the convolution by the CUDA library: tensors in, tensors out."""

from __future__ import annotations

import functools
from ctypes import CDLL
from typing import TypeVar

import torch
from torch import Tensor

from . import _cuda
from ._arguments import Arguments, ConvArguments, ScanArguments
from ._memory import address, empty_like, readable, view, with_contiguous_state

_Arguments = TypeVar("_Arguments", ScanArguments, ConvArguments)


@functools.cache
def supports(device: torch.device) -> bool:
    """Return whether the CUDA library was built and has code for this GPU."""
    library = _cuda.load()
    if library is None:
        return False
    with torch.cuda.device(device):
        return bool(library.vmp_cuda_supported() == 0)


def forward(args: Arguments) -> tuple[Tensor, Tensor | None]:
    """Compute an operator on the current stream of the tensors' device, in float32.

    Args:
        args: Arguments on a device for which `supports` is true.

    Returns:
        (B, L, D), contiguous, in the dtype of ``x``; and the last state, contiguous float32, if `args.keeps_state`.
    """
    library = _cuda.load()
    assert library is not None  # `supports` has loaded it
    with torch.cuda.device(args.x.device):
        stream = torch.cuda.current_stream().cuda_stream
        return run_conv(library, args, stream) if isinstance(args, ConvArguments) else run_scan(library, args, stream)


def run_scan(library: CDLL, args: ScanArguments, stream: int) -> tuple[Tensor, Tensor | None]:
    """Queue the scan.

    Args:
        library: A library with the interface of vmp_cuda.h.
        args: The scan's arguments.
        stream: Handle of a CUDA stream of the tensors' device.
    """
    inputs = kernel_inputs(args)  # in scope until the call returns; then PyTorch keeps the memory for the stream
    y, last = empty_like(inputs.x), state_memory(args)
    struct = scan_struct(inputs, last)
    workspace = torch.empty(_cuda.workspace_bytes(library, struct), dtype=torch.uint8, device=y.device)
    code = library.vmp_cuda_selective_scan(struct, view(y), workspace.data_ptr(), workspace.numel(), stream)
    _cuda.check(library, code)
    return y.to(args.x.dtype), last


def run_conv(library: CDLL, args: ConvArguments, stream: int) -> tuple[Tensor, Tensor | None]:
    """Queue the convolution; the arguments are like those of `run_scan`."""
    inputs = kernel_inputs(args)
    y, last = empty_like(inputs.x), state_memory(args)
    _cuda.check(library, library.vmp_cuda_causal_conv_silu(conv_struct(inputs, last), view(y), stream))
    return y.to(args.x.dtype), last


def state_memory(args: Arguments) -> Tensor | None:
    """Return memory for the last state if the operator returns it."""
    return args.x.new_empty(args.state_shape(), dtype=torch.float32) if args.keeps_state else None


def kernel_inputs(args: _Arguments) -> _Arguments:
    """Return the arguments as the CUDA kernels read them.

    All activations get one dtype: their own if they agree on it, otherwise float32. Parameters and states become
    float32.
    """
    state = None if args.state is None else args.state.to(torch.float32)
    args = args._replace(state=None)
    dtypes = {tensor.dtype for tensor in args.tensors() if tensor.dim() == 3}
    dtype = args.x.dtype if len(dtypes) == 1 else torch.float32
    args = args.map_tensors(lambda tensor: readable(tensor, dtype if tensor.dim() == 3 else torch.float32))
    return with_contiguous_state(args._replace(state=state))


def scan_struct(args: ScanArguments, last: Tensor | None = None) -> _cuda.Scan:
    """Describe a scan, and where its last state goes, to C. The struct holds addresses, which it must not outlive."""
    return _cuda.Scan(
        *args.x.shape, args.A.shape[1],
        view(args.x), view(args.dt), view(args.B), view(args.C), view(args.z),
        address(args.A), address(args.A_b), address(args.D), address(args.dt_bias),
        _dtype_code(args), args.reverse, args.initial_state == "first_input", args.mask,
        address(args.state), address(last),
    )  # fmt: skip


def conv_struct(args: ConvArguments, last: Tensor | None = None) -> _cuda.Conv:
    """Describe a convolution, and where its last inputs go, to C; see `scan_struct`."""
    return _cuda.Conv(
        *args.x.shape, args.weight.shape[1], view(args.x), address(args.weight), address(args.bias),
        _dtype_code(args), args.reverse, address(args.state), address(last),
    )  # fmt: skip


def _dtype_code(args: Arguments) -> int:
    return _cuda.DTYPES[str(args.x.dtype).removeprefix("torch.")]
