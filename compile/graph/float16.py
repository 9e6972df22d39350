"""Cast the parameters of an exported program to float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter

from vmp_edge import ops as _ops  # noqa: F401  # registers the operators

# For each operation the place of the argument whose type it computes in, see `in_float16`.
_TYPE_ARGUMENT = {
    torch.ops.aten.linear.default: 1,
    torch.ops.aten.conv2d.default: 1,
    torch.ops.vmp.causal_conv_silu.default: 1,
    torch.ops.vmp.selective_scan.default: 2,
    torch.ops.vmp.bi_selective_scan.default: 2,
}


def in_float16(program: ExportedProgram, stays: Callable[[str], bool]) -> ExportedProgram:
    """Cast a program's parameters to float16, with exceptions; its input and output stay float32.

    Layers and convolutions compute in the type of their weight, scans in the type of their A, and their inputs are cast
    to it. Everything between them computes in the widest type of its inputs.

    Args:
        program: A program of `export`.
        stays: Tells by a parameter's name whether it stays float32.
    """
    example = program.example_inputs[0]
    with torch.no_grad():
        module = _HalfPrecision(program.module(check_guards=False), stays)
        return torch.export.export(module, example, strict=False)


class _HalfPrecision(nn.Module):
    """A program's module with parameters in float16."""

    def __init__(self, module: Any, stays: Callable[[str], bool]) -> None:
        super().__init__()
        self.module = module
        tensors = {name: tensor if stays(name) else tensor.half() for name, tensor in module.state_dict().items()}
        module.load_state_dict(tensors, assign=True)  # the program keeps its own weights

    def forward(self, frames: Tensor) -> Tensor:
        result: Tensor = _CastInputs(self.module).run(frames)
        return result.float()


class _CastInputs(Interpreter):
    """An interpreter that casts the inputs of the operations in `_TYPE_ARGUMENT`."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _TYPE_ARGUMENT:
            dtype = args[_TYPE_ARGUMENT[target]].dtype
            args = tuple(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args)
        return super().call_function(target, args, kwargs)
