"""Measure what quantising changes in each layer's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from .layers import Recorder, layers


def signal_to_noise(program: ExportedProgram, quantised: ExportedProgram, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Measure how much stronger each layer's output is than the change that quantising makes in it.

    Args:
        program: The float program.
        quantised: The program that `quantise` made from it.
        inputs: Inputs to average over.

    Returns:
        Decibels by layer, in the program's order. A layer's value includes the errors of all layers before it.
    """
    modules = [each.module(check_guards=False) for each in (program, quantised)]
    names = _number_repeats([name for name, _ in layers(modules[0])])
    float_names, quantised_names = (
        {node: name for name, (_, node) in zip(names, layers(module), strict=True)} for module in modules
    )
    power, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    references: dict[str, Tensor] = {}

    def keep(node: Node, value: Tensor) -> None:
        references[float_names[node]] = value

    def compare(node: Node, value: Tensor) -> None:
        name = quantised_names[node]
        reference = references.pop(name)
        power[name] += float(reference.square().sum())
        noise[name] += float((value - reference).square().sum())

    with torch.no_grad():
        for tensor in inputs:
            Recorder(modules[0], list(float_names), keep).run(tensor)
            Recorder(modules[1], list(quantised_names), compare).run(tensor)
    return {name: decibels(power[name], noise[name]) for name in names}


def decibels(power: float, noise: float) -> float:
    """Return a signal-to-noise ratio in decibels; 200 where there is practically no noise."""
    return 10 * float(torch.log10(torch.tensor(power / max(noise, 1e-20 * power, 1e-38), dtype=torch.float64)))


def _number_repeats(names: Sequence[str]) -> list[str]:
    """Make names unique: the second and later uses of a layer get a number."""
    uses: Counter[str] = Counter()
    numbered = []
    for name in names:
        uses[name] += 1
        numbered.append(name if uses[name] == 1 else f"{name} ({uses[name]})")
    return numbered
