"""Cast the parameters of an exported program to float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Interpreter

from vmp_edge import ops as _ops  # noqa: F401  # registers the operators

# The place of the argument in whose type an operation computes, see `in_float16`.
_DECIDES = {
    torch.ops.aten.linear.default: 1,
    torch.ops.aten.conv2d.default: 1,
    torch.ops.vmp.causal_conv_silu.default: 1,
    torch.ops.vmp.selective_scan.default: 2,
    torch.ops.vmp.bi_selective_scan.default: 2,
}


def in_float16(program: ExportedProgram, stays: Callable[[str], bool]) -> ExportedProgram:
    """A program whose parameters are float16, but for some; its input and output stay float32.

    Layers, convolutions and scans compute in the type of their weight, or of their A, and what they take is cast to it;
    everything between them in the wider type of what it takes.

    Args:
        program: of `export`.
        stays: whether a parameter stays float32, by its name.
    """
    example = program.example_inputs[0]
    with torch.no_grad():
        halved = _Halved(program.module(check_guards=False), stays)
        return torch.export.export(halved, example, strict=False)


class _Halved(nn.Module):
    def __init__(self, module: Any, stays: Callable[[str], bool]) -> None:
        super().__init__()
        self.module = module
        tensors = {name: tensor if stays(name) else tensor.half() for name, tensor in module.state_dict().items()}
        module.load_state_dict(tensors, assign=True)  # the program keeps its own weights

    def forward(self, frames: Tensor) -> Tensor:
        result: Tensor = _InTypesOfParameters(self.module).run(frames)
        return result.float()


class _InTypesOfParameters(Interpreter):
    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _DECIDES:
            dtype = args[_DECIDES[target]].dtype
            args = tuple(arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in args)
        return super().call_function(target, args, kwargs)
