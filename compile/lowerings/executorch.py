"""The lowering to ExecuTorch: XNNPACK and our own operators on CPUs, a delegate for the whole model elsewhere."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import warnings
from functools import partial
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Node

from vmp_edge.bundle.reading import Bundle
from vmp_edge.bundle.writing import Staging
from vmp_edge.errors import MissingDependencyError
from vmp_edge.installation import install_command
from vmp_edge.machine import host_machine
from vmp_edge.progress import Step, part
from vmp_edge.runtimes.executorch.library import LIBRARY, build_library, library_is_built

from ..cross import cmake_toolchain, cross_compiler, executorch_library, executorch_sdk
from ..lowering import EmulatedEngine, Exported, Lowered, Lowering
from ..needs import require_all, require_build_tools, require_package_tools
from ..target import Target
from . import delegates

PROGRAM, EMBEDDING = "model.pte", "embedding.pte"
# Systems that we build no library for, with the processor on whose Linux the emulator runs their bundles.
SYSTEMS = {"android": "aarch64"}


def lower(exported: Exported, staging: Staging, target: Target, precision: str) -> Lowered:
    """Write ``model.pte`` into a bundle, and for the CPU of a Linux machine the library with our operators.

    Args:
        exported: The model.
        staging: The bundle that is being made.
        target: The target; without a delegate, the program is the same for every CPU.
        precision: One of the target's precisions.

    Raises:
        MissingDependencyError: executorch, its wheel for the target, the compiler of the operators, or the delegate's
            toolchain is not there.
        BuildError: The library of the operators cannot be built, or the delegate does not take the model whole.
    """
    if target.delegate is not None:
        return delegates.lower(exported, staging, target, precision, PROGRAM)
    processor = SYSTEMS.get(target.machine, target.machine)
    foreign = processor not in ("host", host_machine())
    if target.machine not in SYSTEMS:
        with part("compile our operators, once for all builds"):
            staging.add(LIBRARY, executorch_library(processor) if foreign else build_library())
    staging.add(PROGRAM, to_executorch(exported.unprepared).buffer)
    if exported.embedding is not None:
        staging.add(EMBEDDING, to_executorch(exported.embedding).buffer)
    tools = {name: importlib.metadata.version(name) for name in ("torch", "executorch")}
    return Lowered(
        PROGRAM,
        tools,
        emulate=partial(_open_emulated, processor) if target.machine != "host" else None,
        embedding=EMBEDDING if exported.embedding is not None else None,
    )


def _open_emulated(machine: str, bundle: Bundle) -> EmulatedEngine:
    """Open a bundle in an emulator of a machine's Linux."""
    from ..emulation.runners import EmulatedExecuTorch

    return EmulatedExecuTorch(bundle, machine)


def to_executorch(exported: ExportedProgram) -> Any:
    """Convert a program of `graph.export` to an `ExecutorchProgramManager`, with XNNPACK's delegate for most of it."""
    for name in ("executorch", "torch", "torchao"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries, which no user can mend
        try:
            from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
            from executorch.backends.xnnpack.partition.config.gemm_configs import LinearConfig
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
        except ImportError as error:
            raise MissingDependencyError(
                f"lowering to ExecuTorch needs {error.name}; run: {install_command('compile')}"
            ) from error
        configs = [config for config in ALL_PARTITIONER_CONFIGS if config is not LinearConfig]
        partitioner = XnnpackPartitioner(configs=[_linear_config(), *configs])
        return to_edge_transform_and_lower(exported, partitioner=[partitioner]).to_executorch()


def _linear_config() -> Any:
    """Return the configuration of linear layers for XNNPACK's partitioner, with int8 weights of float inputs.

    XNNPACK has kernels for such layers (f32_qc8w), but ExecuTorch's own configuration leaves them out.
    """
    from executorch.backends.xnnpack.partition.config.gemm_configs import ConfigPrecisionType, LinearConfig
    from executorch.backends.xnnpack.utils.quant_utils import is_dequant, tag_as_implicit_q_dq

    class WithWeightOnly(LinearConfig):  # type: ignore[misc]
        def get_deps(self, node: Node, ep: ExportedProgram) -> tuple[bool, list[Node]]:
            if not is_dequant(node.args[1]) or is_dequant(node.args[0]):
                dependencies: tuple[bool, list[Node]] = super().get_deps(node, ep)
                return dependencies
            valid, needed = self._get_weight_deps(node, ep, ConfigPrecisionType.STATIC_QUANT)
            for dequantise in filter(is_dequant, needed):
                tag_as_implicit_q_dq(dequantise)
            return valid and len(node.args) == 2, needed  # ExecuTorch cannot write the biases of these kernels

    return WithWeightOnly


def check(target: Target, precision: str) -> None:
    """Check that the libraries and compilers are installed that `lower` needs for a target.

    Raises:
        MissingDependencyError: One of them is missing.
    """
    if target.delegate is not None:
        delegates.check(target)
        return
    if importlib.util.find_spec("executorch") is None:
        raise MissingDependencyError(f"lowering to ExecuTorch needs executorch; run: {install_command('compile')}")
    if target.machine in SYSTEMS:
        return
    foreign = target.machine not in ("host", host_machine())
    toolchain = cmake_toolchain(target.machine) if foreign else None
    require_all(
        *([partial(cross_compiler, target.machine)] if foreign else []),
        *([] if library_is_built(toolchain) else [require_package_tools if foreign else require_build_tools]),
    )
    if foreign and not library_is_built(toolchain):
        with Step(f"get ExecuTorch for {target.machine}", quiet=True):
            executorch_sdk(target.machine)  # a download that fails should not do so after the export


LOWERING = Lowering(lower, check, stems=True)
