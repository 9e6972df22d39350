"""Lowering to ExecuTorch: XNNPACK for what it takes, vmp's operators for the scans and convolutions."""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from typing import Any

from torch.export import ExportedProgram

from vmp_edge.bundle import Staging
from vmp_edge.compile.lowering import Lowered, Source
from vmp_edge.compile.target import Target
from vmp_edge.errors import MissingDependencyError
from vmp_edge.runtimes.building import INSTALL_HINT
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library

PROGRAM = "model.pte"


def lower(source: Source, staging: Staging, kind: Target, precision: str) -> Lowered:
    """Write ``model.pte`` and the library with its operators into a bundle.

    Args:
        source: the model.
        staging: the bundle that is being made.
        kind: the target; the program is the same for every CPU.
        precision: one of the target's.

    Raises:
        MissingDependencyError: executorch or what builds its operators is not installed.
        BuildError: the operators' library cannot be built.
    """
    library = build_library()
    staging.add(PROGRAM, to_executorch(source.program).buffer)
    staging.add(LIBRARY, library)
    tools = {name: importlib.metadata.version(name) for name in ("torch", "executorch")}
    return Lowered(program=PROGRAM, tools=tools)


def to_executorch(exported: ExportedProgram) -> Any:
    """An `ExecutorchProgramManager` of a program of `graph.export`."""
    for name in ("executorch", "torch", "torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries: nothing that a user could mend
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        except ImportError as error:
            raise MissingDependencyError(f"lowering to ExecuTorch needs {error.name}; {INSTALL_HINT}") from error
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        return program.to_executorch()
