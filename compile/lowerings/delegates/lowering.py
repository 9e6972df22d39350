"""Lower a model to a target's delegate: prepare the program, let the delegate compile it, write the file."""

from __future__ import annotations

import importlib.metadata
from functools import partial
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import Staging
from vmp_edge.calibration import quantisation
from vmp_edge.calibration.quantisation import Recipe
from vmp_edge.ops.chunked import Form
from vmp_edge.runtimes.folding import fold

from ... import graph, precision
from ...lowering import Exported, Lowered, Prepared
from ...target import Target
from . import contract
from .contract import Array, Delegated
from .whole import quiet


def check(target: Target) -> None:
    """Check that the toolchain of a target's delegate is installed.

    Raises:
        MissingDependencyError: It is not.
    """
    contract.find(target).check()


def prepare(program: ExportedProgram, target: Target, precision: str) -> Prepared:
    """Rewrite a program in operations that a target's delegate takes, with its scans in the form that the target names.

    In every precision but fp32, norms square only what sixteen bits can hold. Scans that the delegate shares between
    layers stay as they are.

    Args:
        program: A program of `graph.export`.
        target: The target.
        precision: The precision.
    """
    with quiet():
        program = program if precision == "fp32" else graph.with_bounded_norms(program)
        program = graph.with_linear_patches(program) if target.options.get("patches") == "linear" else program
        if shares_scans(program, target, precision):
            return Prepared(program)
        plain = graph.with_plain_operations(program, Form(**target.scan))
        rewrite = contract.find(target).rewrite
        return Prepared(plain if rewrite is None else rewrite(plain))


def shares_scans(program: ExportedProgram, target: Target, precision_name: str) -> bool:
    """Return whether the delegate compiles a scan once for all layers.

    It does for sequences of at least as many tokens as the target's option ``shared_scans`` says. Quantised scans
    differ from layer to layer, because their ranges are compiled in.
    """
    least = target.options.get("shared_scans")
    if least is None or precision.find(precision_name).by_delegate:
        return False
    return any(node.args[0].meta["val"].shape[1] >= least for node in graph.scans(program))


def quantiser(target: Target, recipe: Recipe) -> Any:
    """Return the quantiser of a target's delegate with a recipe's ranges, or None if it quantises while it lowers.

    Raises:
        MissingDependencyError: The delegate's toolchain is not installed.
    """
    make = contract.find(target).quantiser
    return None if make is None else make(target, recipe)


def lower(exported: Exported, staging: Staging, target: Target, precision_name: str, file: str) -> Lowered:
    """Compile a model with the target's delegate, and add the result to a bundle.

    Args:
        exported: The model; its program is already `Prepared` if it is quantised.
        staging: The bundle that is being written.
        target: The target.
        precision_name: The precision.
        file: The name of the file.

    Raises:
        MissingDependencyError: The delegate's toolchain is not installed.
        BuildError: The delegate does not take the model whole.
    """
    delegate, program = contract.find(target), exported.program
    prepared = program if isinstance(program, Prepared) else prepare(program, target, precision_name)
    if precision.find(precision_name).by_delegate and delegate.lower_calibrated is not None:
        recipe = quantisation.load(precision_name)
        delegated = delegate.lower_calibrated(prepared.program, target, recipe, exported.clips)
    else:
        delegated = delegate.lower(prepared.program, target, precision_name)
    staging.add(file, delegated.program)
    emulate = None if delegated.run is None else partial(EmulatedDelegate, delegated)
    return Lowered(file, {name: importlib.metadata.version(name) for name in delegated.tools}, emulate=emulate)


class EmulatedDelegate:
    """Run a delegate's program on a machine that is not the target.

    Args:
        delegated: A program with a `run`.
        bundle: The bundle that the program is in.

    Raises:
        MissingDependencyError: Something that the emulator needs is not installed.
    """

    def __init__(self, delegated: Delegated, bundle: Bundle) -> None:
        assert delegated.run is not None and delegated.emulator is not None
        delegated.check()
        self.emulator, self._run = delegated.emulator, delegated.run
        self._tubelet = bundle.manifest.tubelet

    def run(self, video: Array) -> Array:
        """Return the logits of a batch of clips: float32 (B, 3, T, H, W) -> (B, classes)."""
        return np.concatenate([self._run(clip) for clip in fold(video, self._tubelet)]).astype(np.float32, copy=False)

    def close(self) -> None:
        """Release nothing: this engine holds no resources."""
