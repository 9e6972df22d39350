"""Programs quantised by the project's own recipes, on random clips, for the tests of lowerings."""

import dataclasses

import torch

from vmp_edge.calibration import quantisation

STATIC, DYNAMIC, WEIGHT_ONLY = KINDS = ("int8", "int8-dynamic", "int8-weight-only")


def quantised(program, kind, inputs=(), **changes):
    """A program by the recipe of a precision, or by one that differs from it; on random clips if none are given."""
    shape, generator = program.example_inputs[0][0].shape, torch.Generator().manual_seed(0)
    random = [torch.randn(shape, generator=generator) for _ in range(2)]
    return quantisation.quantise(program, dataclasses.replace(quantisation.load(kind), **changes), inputs or random)
