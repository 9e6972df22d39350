"""Rewrite operations that Qualcomm's HTP computes poorly in float16 in operations that it computes well.

The signal-to-noise ratios over uniform inputs on the x86 emulator (QNN of onnxruntime-qnn 2.7), with the best possible
ones in brackets, are: softplus 44 dB (73); 1 / sqrt 67 dB, always too small (74); sigmoid 65 dB (75), most of the noise
at negative inputs. With the sigmoid as 0.5 tanh(x / 2) + 0.5, SiLU has 76 dB instead of 69; x to the power of -0.5 has
73 dB. The form of the scan replaces softplus (`vmp_edge.ops.chunked`, ``softplus: polynomial``). The exponential of
numbers below -88, which is zero in float16, can be any number up to 131008, of either sign.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.export import ExportedProgram

_LEAST_EXPONENT = -64.0  # its exponential is zero in float16, too


def with_accurate_operations(program: ExportedProgram) -> ExportedProgram:
    """Return the program without sigmoids and reciprocal square roots, in operations that the HTP computes well."""
    aten = torch.ops.aten
    table = {
        aten.sigmoid.default: _sigmoid,
        aten.silu.default: lambda x: x * _sigmoid(x),
        aten.rsqrt.default: lambda x: torch.pow(x, -0.5),
    }
    rewritten: ExportedProgram = program.run_decompositions(table)
    return rewritten


def with_bounded_exponents(program: ExportedProgram) -> ExportedProgram:
    """Return a float16 program that takes no exponential of a number far below zero.

    It is not for 16-bit whole numbers: their ranges are calibrated, and a model with the bound had 2 dB less.
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
