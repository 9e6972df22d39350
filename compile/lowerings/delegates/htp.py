"""What Qualcomm's HTP computes poorly in float16, written in operations that it computes well.

Signal-to-noise ratio over uniform inputs on its x86 emulator (QNN of onnxruntime-qnn 2.7), best possible in brackets:
softplus 44 dB (73), 1 / sqrt 67 dB and always too small (74), sigmoid 65 dB (75), most of it at negative inputs. As
0.5 tanh(x / 2) + 0.5, SiLU has 76 dB instead of 69, and x to the power of -0.5 has 73. Softplus is written otherwise
by the form of the scan (`vmp_edge.ops.chunked`, ``softplus: polynomial``). Below -88, where exp is zero in float16, it
is anything up to 131008, of either sign.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram

_LEAST_EXPONENT = -64.0  # whose exponential is zero in float16, too


def well_computed(program: ExportedProgram) -> ExportedProgram:
    """A program without sigmoids and reciprocal square roots."""
    aten = torch.ops.aten
    table = {
        aten.sigmoid.default: _sigmoid,
        aten.silu.default: lambda x: x * _sigmoid(x),
        aten.rsqrt.default: lambda x: torch.pow(x, -0.5),
    }
    rewritten: ExportedProgram = program.run_decompositions(table)
    return rewritten


def with_bounded_exponents(program: ExportedProgram) -> ExportedProgram:
    """A program of float16 without exponentials of what is far below zero.

    In 16-bit whole numbers, whose ranges are calibrated, a model with the bound had 2 dB less.
    """
    aten = torch.ops.aten
    bounded: ExportedProgram = program.run_decompositions({})
    edited = bounded.graph_module
    for node in edited.graph.find_nodes(op="call_function", target=aten.exp.default):
        (exponent,) = node.all_input_nodes
        with edited.graph.inserting_before(node):
            clamp = edited.graph.call_function(aten.clamp.default, (exponent, _LEAST_EXPONENT))
        clamp.meta["val"] = exponent.meta["val"]
        node.replace_input_with(exponent, clamp)
    edited.recompile()
    return bounded


def _sigmoid(x: Tensor) -> Tensor:
    return torch.tanh(x * 0.5) * 0.5 + 0.5
